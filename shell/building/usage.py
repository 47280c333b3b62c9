"""What a build uses, and the bounds of that: control groups (cgroups(7), both versions) and disk. Imports nothing of the agent."""

import errno
import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_MIB: Final = 1024**2
_GROUPS: Final = Path("/sys/fs/cgroup")
_RESERVE_BYTES: Final = 512 * _MIB  # of the disk, which is everybody's
_RESERVE_FILES: Final = 20  # a twentieth of the files that it can have
_EMPTY_S: Final = 5.0
_PAUSE_S: Final = 0.05
_LONGEST_COMPLAINT: Final = 500
_LOOK_AGAIN: Final = 16  # a sixteenth of the bound: so much may be written before the folders are looked through again


def enter(groups: list[tuple[str, dict[str, str]]], joined: list[str]) -> None:
    """Make the groups, write what is to be in force, and have this process and all that it starts in them. Raises OSError.

    A file whose name begins with `?` may be missing or refuse.
    """
    for folder, settings in groups:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, value in settings.items():
            with suppress(*([OSError] if name.startswith("?") else [])):
                Path(folder, name.removeprefix("?")).write_text(value)
    for folder in joined:
        Path(folder, "cgroup.procs").write_text(str(os.getpid()))


def leave(joined: list[str]) -> None:
    """Go out of the groups, and remove them."""
    for folder in joined:
        with suppress(OSError):
            Path(folder).parent.parent.joinpath("cgroup.procs").write_text(str(os.getpid()))
    remove_groups(joined)


def remove_groups(joined: Iterable[str]) -> None:
    """Remove control groups; of one whose processes are still ending once they have, if they do soon."""
    deadline = time.monotonic() + _EMPTY_S
    for folder in filter(os.path.isdir, joined):
        while True:
            try:
                Path(folder).rmdir()
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(_PAUSE_S)
                    continue
            break


def memory_fault() -> str:
    """Why a process of this group was killed, if one was for want of memory."""
    killed = _counted("memory", ("memory.events", "memory.oom_control"), "oom_kill")
    limit = _read("memory", ("memory.max", "memory.limit_in_bytes"))
    if not killed or not limit.strip().isdecimal():
        return ""
    return f"it needed more than {int(limit) // _MIB} MiB of memory (--build-memory-mib)"


def too_many_processes() -> str:
    """Why no further process could be started, if one could not."""
    if not _counted("pids", ("pids.events",), "max"):
        return ""
    return (
        f"it started more than {_read('pids', ('pids.max',)).strip()} processes and threads at a time (--build-tasks)"
    )


class Disk:
    """What some folders have of the disk. They are looked through only when the disk has lost a part of the bound since the last time, and
    beside everything else: a build may make more files than du(1) counts in a minute.
    """

    def __init__(self, folders: list[str], limit_bytes: int) -> None:
        self._folders = folders
        self._limit_bytes = limit_bytes
        self._free_bytes = 0
        self._counting: subprocess.Popen[str] | None = None

    def fault(self) -> str:
        """Why no more may be written, if that is so."""
        if not self._folders:
            return ""
        found = os.statvfs(self._folders[0])
        free_bytes = found.f_bavail * found.f_frsize
        if free_bytes < _RESERVE_BYTES:
            return f"the disk has less than {_RESERVE_BYTES // _MIB} MiB left"
        if found.f_files and found.f_favail < found.f_files // _RESERVE_FILES:
            return "the disk has hardly room for further files"
        if self._size_bytes(free_bytes) > self._limit_bytes:
            return f"it wrote more than {self._limit_bytes // _MIB} MiB (--build-disk-mib)"
        return ""

    def close(self) -> None:
        """Look no further."""
        if self._counting is not None:
            self._counting.kill()
            self._counting.communicate()
            self._counting = None

    def _size_bytes(self, free_bytes: int) -> int:
        """What the folders have, once that is known."""
        if self._counting is None:
            if not 0 <= self._free_bytes - free_bytes < self._limit_bytes // _LOOK_AGAIN:
                self._free_bytes = free_bytes
                self._counting = _count(self._folders)
            return 0
        if self._counting.poll() is None:
            return 0
        said, _ = self._counting.communicate()
        self._counting = None
        if not said:
            raise OSError(0, "du says nothing of how much the build has written")
        return int(said.splitlines()[-1].split()[0])


def _count(folders: list[str]) -> subprocess.Popen[str]:
    """What they have on the disk; du(1) and rm(1) take trees of any depth, which a build may make."""
    argv = ("du", "--summarize", "--total", "--block-size=1", "--", *filter(os.path.isdir, folders))
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - words of our own


def remove(folder: str) -> str:
    """Remove a folder and all in it; what went wrong, if something did."""
    done = subprocess.run(("rm", "-rf", "--", folder), capture_output=True, text=True, check=False)  # noqa: S603, S607 - no shell; found where this server has its tools
    return done.stderr.strip()[-_LONGEST_COMPLAINT:]


def _counted(controller: str, names: tuple[str, ...], key: str) -> int:
    for line in _read(controller, names).splitlines():
        word, _, count = line.partition(" ")
        if word == key:
            return int(count)
    return 0


def _read(controller: str, names: tuple[str, ...]) -> str:
    """The first of these files that this process's group has."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", controller):
            continue
        for name in names:
            with suppress(OSError):
                return Path(_GROUPS, controllers, path.lstrip("/"), name).read_text()
    return ""
