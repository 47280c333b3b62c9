"""What the control plane keeps on disk for itself: `state.json`, replaced in one step, and the agents' reports, bounded.

Both are readable by their owner only: they hold tokens and the key that protects every secret.
"""

import heapq
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shell.failure import AdapterError, CommandError
from shell.files import write_atomic
from shell.local_plane.documents import validation_fault
from shell.local_plane.work import iso
from shell.local_plane.world import World

STATE = "state.json"
REPORTS = "reports.jsonl"
OLDER_REPORTS = "reports.1.jsonl"
REGISTRATIONS = "registrations.jsonl"
OLDER_REGISTRATIONS = "registrations.1.jsonl"
REGISTER = "register"

# Two files of this size at most, days of reports of a small lab.
_REPORTS_BYTES = 5 * 1024 * 1024
_REGISTRATIONS_BYTES = 256 * 1024  # some hundreds

_world = TypeAdapter(World)


def load_world(state_dir: Path) -> World | None:
    """The kept world, or None on a first start. A file that cannot be used raises `CommandError`.

    It is not moved aside: starting anew would make a new key and strand every registered server.
    """
    path = state_dir / STATE
    try:
        return _world.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CommandError(f"{path}: {validation_fault(error)}; put it right, or remove it to start anew") from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


def save_world(state_dir: Path, world: World) -> None:
    """Replace the kept world; after a crash it is the old one or the new one. Raises `AdapterError`."""
    path = state_dir / STATE
    try:
        write_atomic(path, _world.dump_json(world, indent=1))
    except OSError as error:
        raise AdapterError("control plane", f"write {path}", str(error.strerror), "nothing was changed") from error


class ReportLog:
    """What agents sent, one JSON object per line, oldest first.

    Registrations, which anybody can send, have files of their own: they push out each other and no report of a registered server.
    """

    def __init__(self, state_dir: Path) -> None:
        self._registrations = _Lines(state_dir / REGISTRATIONS, state_dir / OLDER_REGISTRATIONS, _REGISTRATIONS_BYTES)
        self._reports = _Lines(state_dir / REPORTS, state_dir / OLDER_REPORTS, _REPORTS_BYTES)

    def add(self, at_ms: int, kind: str, server: str, body: Mapping[str, Any], status: int) -> None:
        """Keep one report and how it was answered. Raises `AdapterError`."""
        record = {"at": iso(at_ms), "kind": kind, "server": server, "status": status, "body": body}
        lines = self._registrations if kind == REGISTER else self._reports
        lines.add(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def newest(self, limit: int, server: str | None = None, kind: str | None = None) -> list[Mapping[str, Any]]:
        """The latest reports, newest last; only one server's or one kind's where given."""
        wanted = {"server": server, "kind": kind}
        records = heapq.merge(
            self._registrations.records(), self._reports.records(), key=lambda one: str(one.get("at"))
        )
        found: list[Mapping[str, Any]] = [
            record
            for record in records
            if all(value is None or record.get(name) == value for name, value in wanted.items())
        ]
        return found[-limit:] if limit else []


class _Lines:
    """Lines in two files of a size at most, the older of which goes when the other is full."""

    def __init__(self, path: Path, older: Path, most_bytes: int) -> None:
        self._path = path
        self._older = older
        self._most_bytes = most_bytes

    def add(self, line: bytes) -> None:
        """Append. Raises `AdapterError`."""
        try:
            with suppress(FileNotFoundError):
                if self._path.stat().st_size + len(line) > self._most_bytes:
                    self._path.replace(self._older)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line)
        except OSError as error:
            raise AdapterError("control plane", f"write {self._path}", str(error.strerror)) from error

    def records(self) -> Iterator[dict[str, Any]]:
        """Those that can be read, oldest first."""
        for path in (self._older, self._path):
            with suppress(FileNotFoundError), path.open("rb") as file:
                for line in file:
                    with suppress(ValueError):  # a crash may have cut the last line short
                        yield json.loads(line)
