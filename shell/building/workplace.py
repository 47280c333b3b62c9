"""The folder of one build: private, with the record of the build, the checkout, the secrets' files; removed whatever happens.

Knows no tool. After a crash the folders that are left tell which builds were going on.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio.to_thread
from returns.pipeline import is_successful

from core import build_record
from core.build_plan import DOCKERFILE, RAILPACK_PLAN, SECRETS, Found
from core.build_record import Record
from core.build_source import CHECKOUT
from shell import children
from shell.log import logger
from shell.state_file import Format, StateFile

_RECORD: Final = "build.json"
_SESSION: Final = "session"
_PREFIX: Final = "build-"


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
_SESSION_FORMAT: Final[Format[str]] = Format(
    "session of a build's command",
    bytes.decode,
    str.encode,
    lost="what that build has left running is not ended",
    unwritten="after a crash the command goes on",
    is_synced=False,  # after a power cut there is no session
)


class Workplace:
    """One build's folder below `top`; its name is derived, since an id may be any text."""

    def __init__(self, top: Path, build_id: str) -> None:
        self.folder = top / f"{_PREFIX}{hashlib.sha256(build_id.encode()).hexdigest()[:24]}"
        self.checkout = self.folder / CHECKOUT

    def remember(self, record: Record) -> None:
        """Write the record, durably. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        StateFile(self.folder / _RECORD, _RECORD_FORMAT).write(record)

    def prepare(self, git_config: str) -> None:
        """Make the folders and Git's configuration. Raises OSError."""
        for name in ("", RAILPACK_PLAN, SECRETS, "docker"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write("gitconfig", git_config.encode())

    def write_secrets(self, names: tuple[tuple[str, str], ...], secrets: Mapping[str, str]) -> None:
        """One private file for each secret. Raises OSError."""
        for file, name in names:
            self._write(f"{SECRETS}/{file}", secrets[name].encode("utf-8", "surrogateescape"))

    def copy_login(self, auth_file: Path) -> None:
        """The registry's credentials where `buildctl` looks for them. Raises OSError."""
        self._write("docker/config.json", auth_file.read_bytes())

    async def note_child(self, pid: int) -> None:
        """Remember the session of the command that runs now, so that it can be ended after a crash."""
        file = StateFile(self.folder / _SESSION, _SESSION_FORMAT)
        with suppress(OSError):
            await anyio.to_thread.run_sync(file.write, children.mark_of(pid))

    def look(self) -> Found:
        """What is in the checkout. A Dockerfile counts when it is a file of the repository. Raises OSError."""
        dockerfile = self.checkout / DOCKERFILE
        return Found(_is_inside(dockerfile, self.checkout) and dockerfile.is_file(), self._link_out())

    def has_submodules(self) -> bool:
        """Whether the checkout names any."""
        return (self.checkout / ".gitmodules").is_file()

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

    def _link_out(self) -> str | None:
        for folder, folders, names in os.walk(self.checkout):
            if ".git" in folders and Path(folder) == self.checkout:
                folders.remove(".git")
            for name in (*folders, *names):
                path = Path(folder, name)
                if path.is_symlink() and not _is_inside(path, self.checkout):
                    return str(path.relative_to(self.checkout))
        return None

    def _write(self, name: str, content: bytes) -> None:
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def remove_folder(folder: Path) -> None:
    """Remove a folder; what cannot be removed is said, and tried again at the next start."""
    shutil.rmtree(folder, onerror=_complain)


def left_over(top: Path) -> Iterator[tuple[Path, Record | None]]:
    """The folders that builds have left here, with their records (None for one that makes no sense); what still runs there is ended."""
    for folder in sorted(top.glob(f"{_PREFIX}*")):
        with suppress(OSError, ValueError):
            children.end_left_over(StateFile(folder / _SESSION, _SESSION_FORMAT).load() or "")
        yield folder, StateFile(folder / _RECORD, _RECORD_FORMAT).load()


def _is_inside(path: Path, top: Path) -> bool:
    """Whether a path stays within a folder once its links are followed. (`Path.resolve` would raise for links in a circle.)"""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top))


def _complain(_: object, path: str, error: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        logger().warning("build folder not removed", path=path, why=str(error[1]), then="tried again at the next start")
