"""The pause on disk: written by whoever pauses, read by the agent before each change; it outlives both.

A file that makes no sense pauses: somebody meant something by it, and doing nothing is the safe half. So it is not moved aside when it is
read, as `StateFile.load` would do.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import anyio.lowlevel
import anyio.to_thread
import msgspec

from core.pause import Pause, is_over
from shell import files, state_file
from shell.failure import CommandError
from shell.state_file import StateFile, json_format

NAME: Final = "paused.json"
VERSION: Final = 1
_UNSEEN: Final = (-1, -1, -1)

# Up to the year 9999: a time beyond it (milliseconds, written by hand) cannot be shown to anybody.
_Epoch: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    since_s: _Epoch
    until_s: _Epoch | None = None
    reason: str = ""
    version: int = VERSION


_FORMAT: Final = json_format(
    _File, "pause", lost="it pauses all the same", unwritten="the agent is not paused", version=VERSION
)


async def no_pause() -> None:
    """The pause of an agent that nobody can pause."""
    await anyio.lowlevel.checkpoint()


async def never_paused() -> bool:
    """Whether an agent is paused that nobody can pause."""
    await anyio.lowlevel.checkpoint()
    return False


class PauseFile:
    """The pause of one data directory. Read again only when the file has changed; commands call it, the daemon awaits `in_force`."""

    def __init__(self, data_dir: Path, wall_clock: Callable[[], float]) -> None:
        self._path = data_dir / NAME
        self._wall_clock = wall_clock
        self._reading = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._pause: Pause | None = None

    def __call__(self) -> Pause | None:
        """The pause that is in force now. Blocks while the disk does."""
        with self._reading:
            return self._look()

    async def in_force(self) -> Pause | None:
        """The pause that is in force now, read in a thread: while the disk hangs no change begins, and the event loop goes on."""
        return await anyio.to_thread.run_sync(self, abandon_on_cancel=True)

    async def is_paused(self) -> bool:
        """Whether a pause is in force now."""
        return await self.in_force() is not None

    def save(self, pause: Pause) -> None:
        """Pause. Raises CommandError."""
        content = _File(since_s=pause.since_s, until_s=pause.until_s, reason=pause.reason)
        try:
            StateFile(self._path, _FORMAT).write(content)
        except OSError as error:
            raise CommandError(f"{self._path} cannot be written: {error.strerror}") from error

    def clear(self) -> bool:
        """End the pause; whether there was one. Raises CommandError."""
        was = self() is not None
        try:
            files.make_way(self._path)
        except OSError as error:
            raise CommandError(f"{self._path} cannot be removed: {error.strerror}") from error
        return was

    def _look(self) -> Pause | None:
        try:
            found = self._path.lstat()
        except (FileNotFoundError, NotADirectoryError):  # no file, no pause
            self._seen, self._pause = None, None
            return None
        except OSError:
            if self._seen != _UNSEEN:  # once, so that one trouble is one pause
                self._seen, self._pause = _UNSEEN, self._senseless(self._wall_clock())
            return self._pause
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if mark != self._seen:
            self._seen, self._pause = mark, self._read(found.st_mtime)
        return None if self._pause is None or is_over(self._pause, self._wall_clock()) else self._pause

    def _read(self, written_at_s: float) -> Pause | None:
        try:
            found = msgspec.json.decode(
                state_file.read(self._path), type=_File, strict=False
            )  # a person may have written it
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._senseless(written_at_s)
        return Pause(found.since_s, found.until_s, found.reason)

    def _senseless(self, since_s: float) -> Pause:
        return Pause(since_s, None, f"{self._path} makes no sense; `agent resume` removes it")
