"""One log file that somebody else writes and rotates: read on from where it was left, through rotation by rename, removal and truncation.

Keeps the file open, so that what is renamed or removed is still read to its end.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.container_log import Begun


@dataclass(frozen=True, slots=True)
class Position:
    """Which file (device and inode) and how far. `last_ns` is the time of the last line, `begun` the lines that have begun before."""

    device: int
    inode: int
    offset: int
    last_ns: int = 0
    begun: Begun = ()


class Tail:
    """Reads a file as it grows. `missed` counts the times that it was replaced while nobody read.

    Without a `start` it is read from its beginning, or, if `is_new_only` and it is there at the first read, from its end.
    """

    def __init__(self, path: Path, start: Position | None = None, *, is_new_only: bool = False) -> None:
        self.path = path
        self.missed = 0
        self.is_gone = False
        self._start = start
        self._skips_content = is_new_only and start is None
        self._descriptor: int | None = None
        self._device = self._inode = self._offset = 0

    def position(self, held_bytes: int, last_ns: int, begun: Begun = ()) -> Position | None:
        """Where to read on after a restart, this far back; None when nothing was opened yet."""
        if self._descriptor is None:
            return self._start
        return Position(self._device, self._inode, max(0, self._offset - held_bytes), last_ns, begun)

    def read(self, limit: int) -> bytes:
        """What is new, at most so much; empty at the end for now. Raises OSError for a file that cannot be read."""
        if self._descriptor is None and not self._open():
            return b""
        chunk = self._read(limit)
        if chunk or not self._is_replaced():
            return chunk
        chunk = self._read(limit)  # written between the last read and the replacement
        if chunk:
            return chunk
        self.close()
        return self._read(limit) if self._open() else b""

    def close(self) -> None:
        """Let go of the file. Fine twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.is_gone, self._skips_content = True, False
            return False
        self.is_gone = False
        found = os.fstat(descriptor)
        start, self._start = self._start, None
        self._descriptor, self._device, self._inode = descriptor, found.st_dev, found.st_ino
        self._offset, self._skips_content = found.st_size if self._skips_content else 0, False
        if start is not None:
            if (start.device, start.inode) == (found.st_dev, found.st_ino) and 0 <= start.offset <= found.st_size:
                self._offset = start.offset
            else:
                self.missed += 1
        return True

    def _read(self, limit: int) -> bytes:
        assert self._descriptor is not None
        chunk = os.pread(self._descriptor, limit, self._offset)
        self._offset += len(chunk)
        return chunk

    def _is_replaced(self) -> bool:
        """Whether the name is another file's now. A file that has become shorter is begun anew."""
        assert self._descriptor is not None
        with suppress(FileNotFoundError):
            found = self.path.stat()
            self.is_gone = False
            if (found.st_dev, found.st_ino) != (self._device, self._inode):
                return True
            if found.st_size < self._offset:
                self._offset = 0
            return False
        self.is_gone = True
        return False
