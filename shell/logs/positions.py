"""How far each log was read and made safe, on disk: read on from there after a restart. Replaced in one step, without waiting for the disk:
a power cut may repeat lines, the end of the process may not."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from shell.logs.tail import Position
from shell.state_file import StateFile, json_format

VERSION: Final = 1


class _File(msgspec.Struct, frozen=True):
    version: int
    positions: dict[str, Position]


_FORMAT: Final = json_format(
    _File,
    "log positions",
    lost="lines may be repeated",
    unwritten="a crash may repeat lines",
    version=VERSION,
    is_synced=False,
    is_shipped=False,
)


class Positions:
    """Positions by the path of their file."""

    def __init__(self, path: Path) -> None:
        self.file = StateFile(path, _FORMAT)
        found = self.file.load()
        self._all: Mapping[str, Position] = {} if found is None else found.positions

    def get(self, path: Path) -> Position | None:
        """Where to read on; None for a file that is new."""
        return self._all.get(str(path))

    async def keep(self, changed: Mapping[str, Position | None]) -> None:
        """Remember these; None forgets one. Returns when the disk has them or has refused them, which costs nothing while this runs."""
        merged = {**self._all, **changed}
        kept = {name: position for name, position in merged.items() if position is not None}
        if kept == self._all:
            return
        self._all = kept
        with suppress(OSError):
            await self.file.save(_File(VERSION, kept))
