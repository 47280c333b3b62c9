"""Batches that wait on disk until the log store has them for good: bounded, oldest first, oldest dropped first when there is no room."""

import threading
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shell import files, state_file

_SUFFIX: Final = ".batch"
_BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole lines, packed, how many, and their place in the order."""

    number: int
    lines: int
    content: bytes


@dataclass(frozen=True, slots=True)
class _File:
    """One batch on disk. `acknowledged_by` is the instance of the store that has acknowledged it, before the agent ended."""

    number: int
    lines: int
    size_bytes: int = 0
    acknowledged_by: int | None = None

    @property
    def name(self) -> str:
        """The file's name, which holds everything but the size."""
        mark = "" if self.acknowledged_by is None else f"-{self.acknowledged_by}"
        return f"{self.number:016d}-{self.lines}{mark}{_SUFFIX}"


class Spool:
    """A folder of batches. What was here before is still here; a file that a crash has cut short is left out.

    `add`, `oldest`, `mark` and `remove` block, and may be called from any thread. What `add` has returned from survives a power cut.
    Numbers increase: none is added after a larger one.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._use = threading.Lock()
        state_file.make_folder(folder)
        for unfinished in folder.glob("*.new"):
            with suppress(OSError):
                unfinished.unlink()
        self._files: dict[int, _File] = {}
        self.size_bytes = 0
        """How much of the disk is taken: whole blocks, so that small batches are no way around the limit."""
        self.lines = 0
        """How many lines are here."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            if (found := _parsed(path.name, path.lstat().st_size)) is not None:
                self._note(found)
        self.last_number = max(self._files, default=0)

    def __len__(self) -> int:
        return len(self._files)

    def acknowledged(self) -> dict[int, tuple[int, int]]:
        """Number to (lines, instance of the store) of the batches that an agent before this one has marked."""
        return {
            one.number: (one.lines, one.acknowledged_by)
            for one in self._files.values()
            if one.acknowledged_by is not None
        }

    def has_other_than(self, numbers: Container[int]) -> bool:
        """Whether a batch is here that is none of these."""
        return any(number not in numbers for number in tuple(self._files))

    def add(self, batch: Batch) -> list[tuple[int, int]]:
        """Keep a batch; number and lines of those that had to be dropped for it. Raises OSError when the disk does not take it."""
        new = _File(batch.number, batch.lines, len(batch.content))
        with self._use:
            files.write_atomic(self._folder / new.name, batch.content)
            self._note(new)
            dropped = []
            while self.size_bytes > self._limit_bytes and len(self._files) > 1:
                oldest = next(iter(self._files.values()))
                dropped.append((oldest.number, oldest.lines))
                self._forget(oldest.number)
            return dropped

    def oldest(self, skipped: Container[int] = ()) -> Batch | None:
        """The batch that has waited longest, but for those that are `skipped`; it stays until it is removed."""
        with self._use:
            while (one := next((one for one in self._files.values() if one.number not in skipped), None)) is not None:
                with suppress(OSError):
                    return Batch(one.number, one.lines, state_file.read(self._folder / one.name))
                self._forget(one.number)
            return None

    def mark(self, number: int, instance: int) -> None:
        """Note for the next agent that this instance of the store has acknowledged a batch. Raises OSError."""
        with self._use:
            if (old := self._files.get(number)) is not None:
                new = _File(old.number, old.lines, old.size_bytes, instance)
                (self._folder / old.name).rename(self._folder / new.name)
                self._files[number] = new

    def remove(self, number: int) -> None:
        """It is stored for good. Fine when it is not here."""
        with self._use:
            self._forget(number)

    def _note(self, new: _File) -> None:
        self._drop(new.number)
        self._files[new.number] = new
        self.size_bytes += _blocks(new.size_bytes)
        self.lines += new.lines

    def _drop(self, number: int) -> _File | None:
        if (old := self._files.pop(number, None)) is not None:
            self.size_bytes -= _blocks(old.size_bytes)
            self.lines -= old.lines
        return old

    def _forget(self, number: int) -> None:
        if (old := self._drop(number)) is not None:
            with suppress(OSError):
                (self._folder / old.name).unlink(missing_ok=True)


def _blocks(size_bytes: int) -> int:
    return max(1, -(-size_bytes // _BLOCK)) * _BLOCK


def _parsed(name: str, size_bytes: int) -> _File | None:
    """None for a file that is no batch."""
    parts = name.removesuffix(_SUFFIX).split("-")
    if not 2 <= len(parts) <= 3 or not all(part.isdecimal() and len(part) <= 18 for part in parts):
        return None
    return _File(int(parts[0]), int(parts[1]), size_bytes, int(parts[2]) if len(parts) == 3 else None)
