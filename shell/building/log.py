"""Build logs: each line goes to a file at once, and from the file to the log store as every other log does (`shell.loops.logs`). All of it
in threads: a disk that hangs holds up no loop.

A file that is shipped whole and whose build has ended is removed; without a log store the newest files stay, for a person.
"""

import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import anyio
import anyio.to_thread

from core import log_lines
from shell.log import logger
from shell.parts import Turned, no_turn

_LARGEST_LOG: Final = 64 * 1024**2
_KEPT_FILES: Final = 20
_TIDY_S: Final = 600.0
_KEPT_BYTES: Final = 256 * 1024**2
_OPEN: Final = ".jsonl"
_ENDED: Final = ".done"


class BuildLog:
    """The log of one build. A disk that takes nothing costs lines, never the build.

    `say` is for the event loop, on which `run` has what was said written in a thread. `write` and `end` block.
    """

    def __init__(self, folder: Path, build_id: str, service_id: str, project_id: str) -> None:
        self._path = folder / f"{hashlib.sha256(build_id.encode()).hexdigest()[:24]}{_OPEN}"
        self._fields = {"build_id": build_id, "service_id": service_id, "project_id": project_id}
        self._last_ns = 0
        self._written = 0
        self._file: BinaryIO | None = None
        self._waiting: deque[bytes] = deque()
        self._has_more = anyio.Event()

    def say(self, text: str) -> None:
        """One more line."""
        if self._written > _LARGEST_LOG:
            return
        if self._written + len(text) > _LARGEST_LOG:
            text = f"the log is longer than {_LARGEST_LOG // 1024**2} MiB; the rest is left out"
            self._written = _LARGEST_LOG + 1
        self._last_ns = log_lines.next_time(time.time_ns(), self._last_ns)
        line = log_lines.build_line(text, self._last_ns, **self._fields) + b"\n"
        self._written += len(line)
        self._waiting.append(line)
        self._has_more.set()

    async def run(self) -> None:
        """Write what is said, for ever."""
        while True:
            await self._has_more.wait()
            self._has_more = anyio.Event()
            await anyio.to_thread.run_sync(self.write)

    def write(self) -> None:
        """Write what has been said and is not written."""
        lines: list[bytes] = []
        while self._waiting:  # more may be said meanwhile
            lines.append(self._waiting.popleft())
        if not lines:
            return
        with suppress(OSError):
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            self._file.write(b"".join(lines))

    def end(self) -> None:
        """The build has ended: what has been said is written, and nothing more will be."""
        self.write()
        if self._file is None:
            return
        self._file.close()
        with suppress(OSError):
            self._path.with_suffix(_ENDED).touch(0o600)


async def keep_few(
    folder: Path, sleep: Callable[[float], Awaitable[None]] = anyio.sleep, turned: Turned = no_turn
) -> None:
    """Keep no more than the last builds' files, for ever: there may be no store to send them to, or none that takes them."""
    complaint: str | None = None
    while True:
        try:
            await anyio.to_thread.run_sync(tidy, folder)
            complaint = None
        except OSError as error:
            if str(error) != complaint:
                logger().warning("old build logs not removed", why=str(error), then="tried again")
            complaint = str(error)
        turned()
        await sleep(_TIDY_S)


def tidy(folder: Path) -> None:
    """Remove the oldest files of builds that have ended, beyond what is kept."""
    total = 0
    ended = [path for path in folder.glob(f"*{_OPEN}") if path.with_suffix(_ENDED).exists()]
    for number, path in enumerate(sorted(ended, key=_age, reverse=True)):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
        if number >= _KEPT_FILES or total > _KEPT_BYTES:
            logger().warning("build log dropped", file=path.name, why="there are newer ones")
            remove(path)


def listed(folder: Path) -> list[tuple[Path, bool]]:
    """The logs, oldest first, and whether nothing more is written to each."""
    found = [(path, path.with_suffix(_ENDED).exists()) for path in folder.glob(f"*{_OPEN}")]
    return sorted(found, key=lambda one: (_age(one[0]), one[0]))


def remove(path: Path) -> None:
    """A log and its mark. Raises OSError; fine when they are not here."""
    for suffix in (_OPEN, _ENDED):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def close_left_over(folder: Path) -> None:
    """At a start: every log that is here is of a build that has ended."""
    for path in folder.glob(f"*{_OPEN}"):
        with suppress(OSError):  # a full disk; its lines are sent all the same, and the next start finds it again
            path.with_suffix(_ENDED).touch(0o600)
