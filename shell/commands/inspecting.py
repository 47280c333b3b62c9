"""`agent status`, `agent pause` and `agent resume`: for the person at this server's terminal."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from returns.pipeline import is_successful

from core import overview, overview_text
from core.pause import LONGEST_REASON, Pause, parse_duration
from core.printable import json_text
from shell import status_socket
from shell.failure import CommandError
from shell.pausing import PauseFile

NOT_RUNNING: Final = 3  # as service managers say it


def show_status(data_dir: Path, *, as_json: bool) -> int:
    """Print what the agent of this data directory is doing; the exit status. Raises CommandError."""
    try:
        raw = status_socket.ask(data_dir)
        found = None if raw is None else msgspec.json.decode(raw, type=dict)
    except TimeoutError:
        raise CommandError(f"the agent of {data_dir} runs and does not answer; its log may say why") from None
    except PermissionError as error:
        raise CommandError(f"{data_dir}: {error.strerror}; run this as root") from error
    except (OSError, msgspec.DecodeError) as error:
        raise CommandError(f"the agent of {data_dir} ended while it was asked: {error}") from error
    document = overview.absent(str(data_dir), PauseFile(data_dir, time.time)()) if found is None else found
    if as_json:
        sys.stdout.write(json_text(document) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in overview_text.lines(document)))
    return NOT_RUNNING if found is None else 0


def pause(data_dir: Path, duration: str | None, reason: str) -> None:
    """Have the agent of this data directory change nothing. Raises CommandError."""
    now = time.time()
    until = None
    if duration is not None:
        parsed = parse_duration(duration)
        if not is_successful(parsed):
            raise CommandError(f"--for: {parsed.failure()}")
        until = now + parsed.unwrap()
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise CommandError(f"--reason: one line of at most {LONGEST_REASON} characters")
    _must_be_there(data_dir)
    PauseFile(data_dir, time.time).save(Pause(now, until, reason))
    end = (
        "until `agent resume`" if until is None else f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC"
    )
    sys.stdout.write(f"paused {end}; a change that is being made now is finished\n")


def resume(data_dir: Path) -> None:
    """End a pause. Raises CommandError."""
    _must_be_there(data_dir)
    was = PauseFile(data_dir, time.time).clear()
    sys.stdout.write("resumed; a running agent goes on within 10 s\n" if was else "the agent was not paused\n")


def _must_be_there(data_dir: Path) -> None:
    if not data_dir.is_dir():
        raise CommandError(f"{data_dir} is no folder; is --data-dir the agent's?")
