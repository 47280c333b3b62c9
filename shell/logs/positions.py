"""How far each log was read and made safe, on disk: read on from there after a restart. Replaced in one step, without waiting for the disk:
a power cut may repeat lines, the end of the process may not."""

import os
from pathlib import Path

import msgspec

from shell import files
from shell.log import logger
from shell.logs.tail import Position

VERSION = 1


class _File(msgspec.Struct, frozen=True):
    version: int
    positions: dict[str, Position]


class Positions:
    """Positions by the path of their file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all = self._load()

    def get(self, path: Path) -> Position | None:
        """Where to read on; None for a file that is new."""
        return self._all.get(str(path))

    def keep(self, changed: dict[str, Position | None]) -> None:
        """Remember these; None forgets one. A disk that does not take it is said once, by whoever sends."""
        before = dict(self._all)
        for name, position in changed.items():
            if position is None:
                self._all.pop(name, None)
            else:
                self._all[name] = position
        if self._all == before:
            return
        fresh = self._path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_File(VERSION, self._all)))
            fresh.rename(self._path)
        except OSError as error:
            logger().warning("log positions not written", why=str(error), then="a crash may repeat lines", ship=False)

    def _load(self) -> dict[str, Position]:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            moved = files.move_aside(self._path)
            then = f"moved to {moved}; lines may be repeated"
            logger().warning("log positions make no sense", why=str(error), then=then, ship=False)
            return {}
        files.refuse_newer(self._path, found.version, VERSION)
        return dict(found.positions)
