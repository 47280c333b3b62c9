"""The folder of one build: private, with the record of the build, what its sandbox sees, and nothing else; removed whatever happens.

Knows no tool. After a crash the folders that are left tell which builds were going on. What lies in the sandbox's own folders was
written by anybody: it is never opened through a link.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from returns.pipeline import is_successful

from core import build_record
from core.build_plan import RAILPACK_PLAN, Found, Layout
from core.build_record import Record
from core.build_sandbox import USER
from core.build_source import CHECKOUT
from shell.building import usage
from shell.log import logger
from shell.state_file import Format, StateFile

_RECORD: Final = "build.json"
_PREFIX: Final = "build-"
_LARGEST_ANSWER: Final = 64 * 1024


def _decoded(raw: bytes) -> Record:
    found = build_record.parse(raw)
    if not is_successful(found):
        raise ValueError(found.failure())
    return found.unwrap()


_RECORD_FORMAT: Final = Format(
    "record of a build",
    _decoded,
    build_record.render,
    lost="how that build ended is not reported",
    unwritten="a crash leaves that build without a report",
)


class Workplace:
    """One build's folder below `top`; its name is derived, since an id may be any text."""

    def __init__(self, top: Path, build_id: str) -> None:
        self.folder = top / f"{_PREFIX}{hashlib.sha256(build_id.encode()).hexdigest()[:24]}"
        self.guest = self.folder / "guest"
        self.temporary = self.folder / "tmp"
        self.git = self.folder / "git"
        self.secrets = self.folder / "secrets"
        self.login = self.folder / "login"
        self.root = self.folder / "root"
        self.why = self.folder / "why"

    def remember(self, record: Record) -> None:
        """Write the record, durably. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        StateFile(self.folder / _RECORD, _RECORD_FORMAT).write(record)

    def prepare(self, git_config: str) -> None:
        """Make the folders and Git's configuration. Raises OSError."""
        for path in (self.folder, self.root):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        plan = self.guest / RAILPACK_PLAN
        for path in (self.guest, plan, self.temporary, self.git, self.secrets, self.login):
            make_guests_folder(path)
        self.temporary.chmod(0o1777)
        _write(self.git / "gitconfig", git_config.encode())

    def write_secrets(self, names: tuple[tuple[str, str], ...], secrets: Mapping[str, str]) -> None:
        """One private file for each secret. Raises OSError."""
        for file, name in names:
            _write(self.secrets / file, secrets[name].encode("utf-8", "surrogateescape"))

    def copy_login(self, auth_file: Path) -> None:
        """The registries' credentials where `buildctl` looks for them. Raises OSError."""
        _write(self.login / "config.json", auth_file.read_bytes())

    def take_back(self) -> None:
        """Remove what was handed over to a command that has ended: whoever ends this process finds nothing of it."""
        for folder in (self.git, self.secrets, self.login):
            for path in folder.glob("*"):
                path.unlink(missing_ok=True)

    def look(self, layout: Layout) -> Found:
        """What is in the checkout. A Dockerfile counts when it is a file of the repository. Raises OSError."""
        checkout = self.guest / CHECKOUT
        dockerfile = checkout / layout.dockerfile
        context = checkout / layout.folder
        return Found(
            _is_inside(dockerfile, checkout) and dockerfile.is_file(),
            _is_inside(context, checkout) and context.is_dir(),
        )

    def read(self, name: str) -> bytes:
        """What a command has left in a file of the build's folder, at most 64 KiB. Raises OSError."""
        descriptor = os.open(self.guest / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "not a file", name)
            return file.read(_LARGEST_ANSWER)

    def clear(self) -> None:
        """Remove everything but the record."""
        for path in self.folder.glob("*"):
            if path.name == _RECORD:
                continue
            if path.is_dir() and not path.is_symlink():
                remove_folder(path)
            else:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        remove_folder(self.folder)


def make_guests_folder(path: Path) -> None:
    """A folder that is the sandbox's own. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(path, USER, USER, follow_symlinks=False)


def remove_folder(folder: Path) -> None:
    """Remove a folder; what cannot be removed is said, and tried again at the next start."""
    why = usage.remove(str(folder))
    if why:
        logger().warning("build folder not removed", path=str(folder), why=why, then="tried again at the next start")


def left_over(top: Path) -> Iterator[tuple[Path, Record | None]]:
    """The folders that builds have left here, with their records (None for one that makes no sense)."""
    for folder in sorted(top.glob(f"{_PREFIX}*")):
        yield folder, StateFile(folder / _RECORD, _RECORD_FORMAT).load()


def _write(path: Path, content: bytes) -> None:
    """A private file that the sandbox may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchown(descriptor, USER, USER)
        file.write(content)


def _is_inside(path: Path, top: Path) -> bool:
    """Whether a path stays within a folder once its links are followed. (`Path.resolve` would raise for links in a circle.)"""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top))
