"""Files that survive a crash: written whole or not at all, private, and moved aside when they make no sense."""

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from shell.failure import CommandError

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
_ASIDE_LIMIT = 1000
_UNFINISHED = re.compile(r"\..+\.[0-9]+\.new")


def make_private_dir(path: Path) -> None:
    """Make a directory that only its owner can enter; its parents as usual. Fine when it is there. Raises CommandError."""
    try:
        path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        path.chmod(PRIVATE_DIR)
    except OSError as error:
        raise CommandError(f"{path} cannot be used as a folder: {error.strerror}") from error


def write_atomic(path: Path, content: bytes, mode: int = PRIVATE_FILE, *, is_synced: bool = True) -> None:
    """Replace a file: after a crash there is the old content or the new, never a part. Raises OSError.

    The new content is on the disk before its name is, and the name is before this returns; without `is_synced` that holds for a process
    that is killed, and not for a power cut.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a signal's too: it may hold a key
        temporary.unlink(missing_ok=True)
        raise
    if is_synced:
        sync_dir(path.parent)


def refuse_newer(path: Path, version: int, known: int) -> None:
    """A state file of a newer agent is not overwritten: raises CommandError, which says how to go on."""
    if version > known:
        ways = "install that agent again, or move the file away and lose what it remembers"
        raise CommandError(f"{path} is of version {version}, written by a newer agent; this one knows {known}; {ways}")


def sync_dir(path: Path) -> None:
    """Have the directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left half-written; only while no other one can be writing here."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with suppress(IsADirectoryError):  # nothing that a writer of ours has made
                path.unlink(missing_ok=True)


def move_aside(path: Path) -> Path:
    """Rename a file that makes no sense to the first free `<name>.corrupt-N`, so that nothing is lost; its new path.

    Raises CommandError when it cannot be moved.
    """
    for number in range(1, _ASIDE_LIMIT):
        target = path.with_name(f"{path.name}.corrupt-{number}")
        if not os.path.lexists(target):
            try:
                path.rename(target)
                sync_dir(path.parent)
            except OSError as error:
                raise CommandError(f"{path} makes no sense and cannot be moved aside: {error.strerror}") from error
            return target
    raise CommandError(
        f"{path} makes no sense, and there are {_ASIDE_LIMIT - 1} such files already; look into {path.parent}"
    )


def make_way(path: Path) -> None:
    """Have nothing at this path: a file goes, a folder is moved aside. Fine when nothing is. Raises OSError and CommandError."""
    if path.is_dir() and not path.is_symlink():
        move_aside(path)
    else:
        path.unlink(missing_ok=True)


class DataDirLock:
    """Only one agent works on a data directory. Held until the process ends, however it does."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "agent.lock"
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        descriptor = None
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE_FILE)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            remove_unfinished(self._path.parent)
        except OSError as error:
            raise self._refused(descriptor, error) from error
        self._descriptor = descriptor
        return self

    def _refused(self, descriptor: int | None, error: OSError) -> CommandError:
        if descriptor is None:
            return CommandError(f"{self._path} cannot be opened: {error.strerror}")
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return CommandError(f"another agent (process {holder}) works on {self._path.parent}; stop it first")
        return CommandError(f"{self._path} cannot be locked: {error.strerror}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
