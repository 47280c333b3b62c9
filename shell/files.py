"""Files that survive a crash: written whole or not at all, private, and moved aside when they make no sense."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from shell.failure import CommandError

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
_ASIDE_LIMIT = 1000


def make_private_dir(path: Path) -> None:
    """Make a directory that only its owner can enter; its parents as usual. Fine when it is there."""
    path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    path.chmod(PRIVATE_DIR)


def write_atomic(path: Path, content: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace a file: after a crash there is the old content or the new, never a part. Raises OSError.

    The new content is on the disk before its name is, and the name is before this returns.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def sync_dir(path: Path) -> None:
    """Have the directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_aside(path: Path) -> Path:
    """Rename a file that makes no sense to the first free `<name>.corrupt-N`, so that nothing is lost; its new path."""
    for number in range(1, _ASIDE_LIMIT):
        target = path.with_name(f"{path.name}.corrupt-{number}")
        if not target.exists():
            path.rename(target)
            return target
    raise CommandError(
        f"{path} makes no sense, and there are {_ASIDE_LIMIT} such files already; look into {path.parent}"
    )


class DataDirLock:
    """Only one agent works on a data directory. Held until the process ends, however it does."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "agent.lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        file = self._path.open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            file.close()
            raise CommandError(
                f"another agent (process {holder}) works on {self._path.parent}; stop it first"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
