"""Build logs: each line goes to a file at once, and from the file to the log store, so that nothing is lost while that is away. All of it
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
from shell.adapters.victorialogs import LogsError, Store, pack, send_each
from shell.failure import AdapterError
from shell.log import logger
from shell.parts import Turned, no_turn
from shell.state_file import Format, StateFile

BATCH_S: Final = 0.5
BATCH_BYTES: Final = 1024**2
LONGEST_PAUSE_S: Final = 60.0
_LARGEST_LOG: Final = 64 * 1024**2
_KEPT_FILES: Final = 20
_TIDY_S: Final = 600.0
_KEPT_BYTES: Final = 256 * 1024**2
_OPEN: Final = ".jsonl"
_ENDED: Final = ".done"
_OFFSET: Final = ".offset"
_OFFSET_FORMAT: Final[Format[int]] = Format(
    "place in a build log",
    int,
    lambda offset: str(offset).encode(),
    lost="its lines may be repeated",
    unwritten="its lines may be repeated",
    is_shipped=False,
)


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


class _Refusals:
    """Says once for each reason that lines are left out."""

    def __init__(self) -> None:
        self._why = ""

    def hear(self, line: bytes, error: LogsError) -> None:
        """One line that the store does not take."""
        if self._why != error.why:
            self._why = error.why
            then = "it is left out, and so are others like it"
            logger().warning("log line refused", why=error.why, bytes=len(line), then=then, ship=False)


async def ship(
    folder: Path, store: Store, sleep: Callable[[float], Awaitable[None]] = anyio.sleep, turned: Turned = no_turn
) -> None:
    """Send what is in the files, for ever. What cannot be sent waits; its reason is said once."""
    complaint: str | None = None
    pause_s = BATCH_S
    reached: dict[Path, int] = {}
    refusals = _Refusals()
    while True:
        await sleep(pause_s)
        try:
            found = await anyio.to_thread.run_sync(_files, folder)
            reached = {path: offset for path, offset in reached.items() if path in found}
            for path in found:
                await _ship_file(path, store, reached, refusals)
            if complaint is not None:
                logger().info("build logs go out again")
            complaint, pause_s = None, BATCH_S
        except (AdapterError, OSError) as error:
            if str(error) != complaint:
                logger().warning("build logs not sent", why=str(error), then="they are kept and sent later")
            complaint, pause_s = str(error), min(2 * max(pause_s, 1.0), LONGEST_PAUSE_S)
            await anyio.to_thread.run_sync(tidy, folder)
        turned()


async def keep_few(
    folder: Path, sleep: Callable[[float], Awaitable[None]] = anyio.sleep, turned: Turned = no_turn
) -> None:
    """Where there is no store to send them to: keep the last builds' files, for ever."""
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
            _remove(path)


async def _ship_file(path: Path, store: Store, reached: dict[Path, int], refusals: _Refusals) -> None:
    """Send what is new. What this process has `reached` is kept beside the file, too, for the next one, when the disk takes it."""
    has_ended = await anyio.to_thread.run_sync(
        path.with_suffix(_ENDED).exists
    )  # looked at first: what is written before it is read below
    offset = reached[path] if path in reached else await anyio.to_thread.run_sync(_read_offset, path)
    while batch := await anyio.to_thread.run_sync(_read_batch, path, offset):
        await send_each(store, await anyio.to_thread.run_sync(pack, batch), refusals.hear)
        offset += len(batch)
        reached[path] = offset
        await anyio.to_thread.run_sync(_offset_file(path).write, offset)
    if has_ended:
        await anyio.to_thread.run_sync(_remove, path)


def _read_batch(path: Path, offset: int) -> bytes:
    """Whole lines from here on, at most a batch."""
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(BATCH_BYTES)
    return raw[: raw.rfind(b"\n") + 1]


def _offset_file(path: Path) -> StateFile[int]:
    return StateFile(path.with_suffix(_OFFSET), _OFFSET_FORMAT)


def _read_offset(path: Path) -> int:
    """How far it was sent; a place within the file, else all of it is sent (again)."""
    offset = _offset_file(path).load() or 0
    return offset if 0 <= offset <= path.stat().st_size else 0


def _remove(path: Path) -> None:
    for suffix in (_OPEN, _OFFSET, _ENDED):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """The logs, oldest first."""
    return sorted(folder.glob(f"*{_OPEN}"), key=_age)


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def close_left_over(folder: Path) -> None:
    """At a start: every log that is here is of a build that has ended."""
    for path in folder.glob(f"*{_OPEN}"):
        with suppress(OSError):  # a full disk; its lines are sent all the same, and the next start finds it again
            path.with_suffix(_ENDED).touch(0o600)
