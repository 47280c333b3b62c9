"""`shell.handover`: the daemon is the same process with another program in it, and shows no token."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shell.handover import Task
from shell.log_choices import LogFormat, LogLevel
from shell.options import Options

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from shell import handover, option_checks, streams
from shell.log_choices import LogFormat, LogLevel
streams.complete()
options = option_checks.checked({"data_dir": "/srv/a", "public_ip": "192.0.2.7", "unmanaged": ["dns"]})
print(os.getpid(), flush=True)
if "--stopped" in sys.argv:
    signal.pthread_sigmask(signal.SIG_BLOCK, handover.STOPS)
    os.kill(os.getpid(), signal.SIGINT)
handover.become_daemon(handover.Task(options, "hush-1", LogFormat.JSON, LogLevel.DEBUG), "tests.shell.told_task")
"""
WORDS = ("run", "--token", "hush-1", "--proxy", "--token=hush-1", "--url", "--token")


def told(folder: Path, *words: str, flags: tuple[str, ...] = (), closed: str = "") -> dict[str, str]:
    """What the program that was handed over to tells, by its subject; standard streams are closed as the shell is told."""
    argv = ("sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, *flags, "-c", PROGRAM, *words)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TECHULUS_TOKEN": "hush-1"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, cwd=folder, env=env, input="")
    assert done.stderr == ""
    pid, *lines = done.stdout.splitlines()
    return {"begun as": pid, **dict(line.split(": ", 1) for line in lines)}


def test_everything_arrives(tmp_path: Path) -> None:
    """In the same process; the file that it came in is closed."""
    found = told(tmp_path, *WORDS)
    assert found["process"] == found["begun as"]
    assert found["task"] == "/srv/a 192.0.2.7 ('dns',) hush-1 json debug"
    assert found["files left open"] == "0"
    assert found["arenas"] == "1"
    assert found["pending"] == "none"


def test_no_token_is_to_be_seen(tmp_path: Path) -> None:
    """L37: neither on the command line, which shows the other words, nor in the environment, nor where a value is printed."""
    found = told(tmp_path, *WORDS)
    assert found["shown"].endswith(" -P -m tests.shell.told_task N run --proxy --url")
    assert found["in the environment"] == "False"
    assert "hush" not in repr(Task(Options(), "hush-1", LogFormat.AUTO, LogLevel.INFO))


def test_the_interpreters_flags_are_kept(tmp_path: Path) -> None:
    """Whoever keeps folders out of the way of modules means the daemon, too."""
    assert " -s -P -m " in told(tmp_path, flags=("-s", "-P"))["shown"]


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_closed_streams_are_nobody_elses(tmp_path: Path, closed: str) -> None:
    """L16: as some that start services leave them. Their numbers go to no file that is opened later."""
    found = told(tmp_path, closed=closed)
    assert (found["task"] != "", found["files left open"]) == (True, "0")
    assert found["streams at nothing"] == str(closed.count("&"))


def test_a_stop_in_between_is_not_lost(tmp_path: Path) -> None:
    """L25: one that comes while there is no program to take it is taken by the next."""
    found = told(tmp_path, "--stopped")
    assert (found["pending"], found["taken"]) == ("SIGINT", "SIGINT")
