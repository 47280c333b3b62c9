"""State files: how the agent reads, checks, moves aside, writes and syncs everything that it keeps on disk.

One `StateFile` is one file, described by a `Format`. Whatever lies in its place, a start goes on: what cannot be used (torn, a folder, a
pipe, too large, nested without end, of wrong types) is moved to `<name>.corrupt-N` and logged in one line. Only a file of a newer agent
raises CommandError, in one line as well.

    file = StateFile(data_dir / "things.json", json_format(_File, "list of things", lost="things are made anew", version=1))
    value = file.load()      # at the start, or in a thread: the value, or None
    file.put(value)          # on the event loop: written soon, the latest wins, until the disk takes it
    await file.save(value)   # the same, and returns once it is on the disk; raises OSError when the disk refuses it now
    tasks.start_soon(file.run)   # the writer of `put`; a failure is logged once, and so is its end
    await file.flush()       # at the end: whatever is still to be written
    file.write(value)        # blocking, for threads and commands; raises OSError
"""

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import anyio
import anyio.to_thread
import msgspec

from shell import files
from shell.failure import CommandError
from shell.log import logger
from shell.parts import Turned, no_turn

T = TypeVar("T")
Struct = TypeVar("Struct", bound=msgspec.Struct)

AGAIN_S: Final = 10.0
LIMIT_BYTES: Final = 64 * 1024**2  # twice the largest document that the control plane may send
_UNUSABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_KINDS: Final = {stat.S_IFDIR: "is a folder", stat.S_IFLNK: "is a symbolic link", stat.S_IFIFO: "is a pipe"}


@dataclass(frozen=True, slots=True)
class Format(Generic[T]):
    """What a file holds and how.

    `name` is what messages call it. `decode` raises ValueError, a msgspec error or RecursionError for what is no such value. `lost` says
    what follows when the content is lost, `unwritten` what follows while the disk does not take it. `version` is the newest that this
    agent knows, None for content without one. `is_synced`: the content is on the disk before its name is, which a power cut asks for.
    `is_shipped` is False for what the log store's own pipeline has to say.
    """

    name: str
    decode: Callable[[bytes], T]
    encode: Callable[[T], bytes]
    lost: str
    unwritten: str
    version: int | None = None
    is_synced: bool = True
    is_shipped: bool = True


class _Head(msgspec.Struct, frozen=True):
    version: int


def json_format(
    kind: type[Struct],
    name: str,
    *,
    lost: str,
    unwritten: str,
    version: int,
    is_synced: bool = True,
    is_shipped: bool = True,
) -> Format[Struct]:
    """The format of a JSON object; `kind` has a field `version`."""

    def decode(raw: bytes) -> Struct:
        return msgspec.json.decode(raw, type=kind)

    return Format(name, decode, msgspec.json.encode, lost, unwritten, version, is_synced, is_shipped)


class StateFile(Generic[T]):
    """One file. `load` it before anything else; there is one writer, whoever asks."""

    def __init__(self, path: Path, form: Format[T]) -> None:
        self.path = path
        self._form = form
        self._wanted: tuple[T] | None = None  # in a box: None may be a value
        self._changed = anyio.Event()
        self._turn = anyio.Lock()
        self._writing = (
            threading.Lock()
        )  # a writer that hangs in the disk and was left behind must not meet the next one
        self._complaint: str | None = None

    def load(self) -> T | None:
        """The value; None when there is none, or none that can be used. Raises CommandError for a file of a newer agent. Blocks."""
        try:
            raw = read(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._set_aside(error.strerror or str(error))
            return None
        try:
            self._refuse_newer(raw)
            return self._form.decode(raw)
        except _UNUSABLE as error:
            self._set_aside(str(error))
            return None

    def put(self, value: T) -> None:
        """Have this written soon; a later value replaces one that has not been written. The value must not change afterwards."""
        self._wanted = (value,)
        self._changed.set()

    async def save(self, value: T) -> None:
        """Have this, or a later value, written; returns once it is on the disk.

        Raises OSError when the disk does not take it now; `run` goes on trying all the same.
        """
        self.put(value)
        await self._write_wanted()

    async def flush(self) -> None:
        """Write what is still to be written, once. A disk that does not take it has been complained about."""
        with suppress(OSError):
            await self._write_wanted()

    async def run(self, turned: Turned = no_turn) -> None:
        """Write whatever is `put`, for ever, as soon as the disk takes it."""
        while True:
            if self._wanted is None:
                await self._changed.wait()
            self._changed = anyio.Event()
            try:
                await self._write_wanted()
            except OSError:
                await anyio.sleep(AGAIN_S)
            turned()

    def write(self, value: T) -> None:
        """Write this now. Raises OSError. Blocks until it is on the disk."""
        with self._writing:
            files.write_atomic(self.path, self._form.encode(value), is_synced=self._form.is_synced)

    async def _write_wanted(self) -> None:
        async with self._turn:
            if (latest := self._wanted) is None:  # whoever had the turn before has written it
                return
            try:
                # Left behind when the agent ends: a disk that hangs must not hold up a stop, and after a crash the file is whole.
                await anyio.to_thread.run_sync(self.write, latest[0], abandon_on_cancel=True)
            except OSError as error:
                self._complain(str(error))
                raise
            self._wanted = None if self._wanted is latest else self._wanted
        if self._complaint is not None:
            self._complaint = None
            logger().info("state file written again", path=str(self.path), ship=self._form.is_shipped)

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            then = f"tried again every {AGAIN_S:.0f} s; {self._form.unwritten}"
            logger().warning(
                "state file not written", file=self._form.name, path=str(self.path), why=why, then=then,
                ship=self._form.is_shipped,
            )  # fmt: skip

    def _refuse_newer(self, raw: bytes) -> None:
        if self._form.version is not None:
            files.refuse_newer(self.path, msgspec.json.decode(raw, type=_Head).version, self._form.version)

    def _set_aside(self, why: str) -> None:
        try:
            then = f"moved to {files.move_aside(self.path)}; {self._form.lost}"
        except CommandError as error:
            then = f"{error}; {self._form.lost}"
        logger().warning(
            "state file not usable", file=self._form.name, path=str(self.path), why=why, then=then,
            ship=self._form.is_shipped,
        )  # fmt: skip


def read(path: Path, limit_bytes: int = LIMIT_BYTES, *, follow: bool = False) -> bytes:
    """The content of a regular file, without ever waiting for a writer. Raises OSError, FileNotFoundError when there is none.

    `follow` reads what a symbolic link leads to.
    """
    _check(path, path.stat(follow_symlinks=follow), limit_bytes)  # first: opening a device may do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW))
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor), limit_bytes)
        return file.read(limit_bytes)


def make_folder(path: Path) -> None:
    """Make a private folder for state files. Whatever else lies there is moved aside; what cannot be made is logged. Never raises."""
    try:
        if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink()):
            logger().warning("state folder not usable", path=str(path), then=f"moved to {files.move_aside(path)}")
        path.mkdir(mode=files.PRIVATE_DIR, parents=True, exist_ok=True)
    except (CommandError, OSError) as error:
        logger().warning("state folder not made", path=str(path), why=str(error), then="what belongs there is not kept")


def _check(path: Path, found: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, _KINDS.get(stat.S_IFMT(found.st_mode), "is no regular file"), str(path))
    if found.st_size > limit_bytes:
        raise OSError(errno.EFBIG, f"is larger than {limit_bytes} bytes", str(path))
