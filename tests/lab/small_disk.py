"""A file system that is really full, or soon will be."""

import errno
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[Path]:
    """An empty file system at a new folder while the block runs, as root; `options` of tmpfs: `size=4m`, `nr_inodes=10`."""
    folder.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder)), check=True, timeout=10)
    try:
        folder.chmod(0o700)
        yield folder
    finally:
        # Lazily: whoever still has a file open there must not keep it mounted.
        subprocess.run(("umount", "--lazy", str(folder)), check=True, timeout=10)


def fill(disk: Path) -> None:
    """Leave not one block."""
    with (disk / "filling").open("wb", buffering=0) as file, _until_full():
        while True:
            file.write(bytes(4096))


def fill_inodes(disk: Path) -> None:
    """Leave room for no other file."""
    with _until_full():
        for number in itertools.count():
            (disk / f"filling-{number}").touch()


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
