"""Files that another user's process reads: written whole or not at all, read with a bound. Knows nothing of what is in them."""

import os
from dataclasses import dataclass
from pathlib import Path

# As many records as are taken are less, all with the longest names; whatever is larger was not written by us.
MOST_BYTES = 32 * 1024 * 1024
_READABLE_BY_ALL = 0o644
_OPEN_TO_ALL = 0o755


@dataclass(frozen=True, slots=True)
class Identity:
    """Tells whether a file is still the one that was looked at: changes with every writing, in place or by renaming."""

    device: int
    inode: int
    changed_ns: int
    size_bytes: int


def identity(path: Path) -> Identity:
    """`OSError` when there is no such file."""
    found = path.stat()
    return Identity(found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)


def read(path: Path) -> str | None:
    """The text, cut at `MOST_BYTES`; None when there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None


def write(path: Path, text: str) -> None:
    """Replace a file: temporary file beside it, fsync, rename, fsync of the folder. Everybody may read it."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), _READABLE_BY_ALL)
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, open to all whatever the umask; what exists keeps its mode."""
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(_OPEN_TO_ALL)


def last_line(path: Path, longest_bytes: int = 400) -> str:
    """The last line of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - longest_bytes))
            lines = file.read(longest_bytes).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1].strip() if lines else ""
