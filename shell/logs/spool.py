"""Batches that wait on disk until the log store takes them: bounded, oldest first, oldest dropped first when there is no room."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shell import files, state_file

_SUFFIX: Final = ".batch"
_BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole lines, how many, and their place in the order."""

    number: int
    lines: int
    content: bytes


class Spool:
    """A folder of batches. What was here before is still here; a file that a crash has cut short is left out.

    `add`, `oldest` and `remove` block, and may be called from any thread. What `add` has returned from survives a power cut.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._use = threading.Lock()
        state_file.make_folder(folder)
        for unfinished in folder.glob("*.new"):
            with suppress(OSError):
                unfinished.unlink()
        self._sizes: dict[str, int] = {}
        self.size_bytes = 0
        """How much of the disk is taken: whole blocks, so that small batches are no way around the limit."""
        self.lines = 0
        """How many lines wait."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            self._note(path.name, path.lstat().st_size)
        self.last_number = max((_parts(name)[0] for name in self._sizes), default=0)

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, batch: Batch) -> int:
        """Keep a batch; how many lines had to be dropped for it. Raises OSError when the disk does not take it."""
        name = f"{batch.number:016d}-{batch.lines}{_SUFFIX}"
        with self._use:
            files.write_atomic(self._folder / name, batch.content)
            self._note(name, len(batch.content))
            dropped = 0
            while self.size_bytes > self._limit_bytes and len(self._sizes) > 1:
                oldest = min(self._sizes)
                dropped += _parts(oldest)[1]
                self._forget(oldest)
            return dropped

    def oldest(self) -> Batch | None:
        """The batch that has waited longest; it stays until it is removed."""
        with self._use:
            while self._sizes:
                name = min(self._sizes)
                with suppress(OSError):
                    return Batch(*_parts(name), state_file.read(self._folder / name))
                self._forget(name)
            return None

    def remove(self, batch: Batch) -> None:
        """It is stored. Fine when it is not here."""
        with self._use:
            self._forget(f"{batch.number:016d}-{batch.lines}{_SUFFIX}")

    def _note(self, name: str, size_bytes: int) -> None:
        self._drop(name)
        self._sizes[name] = max(1, -(-size_bytes // _BLOCK)) * _BLOCK
        self.size_bytes += self._sizes[name]
        self.lines += _parts(name)[1]

    def _drop(self, name: str) -> None:
        size_bytes = self._sizes.pop(name, None)
        if size_bytes is not None:
            self.size_bytes -= size_bytes
            self.lines -= _parts(name)[1]

    def _forget(self, name: str) -> None:
        self._drop(name)
        with suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)


def _parts(name: str) -> tuple[int, int]:
    number, _, lines = name.removesuffix(_SUFFIX).partition("-")
    return (int(number), int(lines)) if number.isdecimal() and lines.isdecimal() else (0, 0)
