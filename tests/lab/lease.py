"""What the lab leaves behind, written down before it exists, so that whoever comes next can take it away.

A lease is a number that no other process on the machine holds, kept by a lock on a file that the kernel drops when its
holder ends, however that happens. The file says what its holder has made. Whoever takes a lease first takes away what
dead holders left. Decides who owns which number and what is taken away; knows nothing of how things are made.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import assert_never

from tests.lab.podman_traces import remove_cgroups, remove_networks
from tests.lab.process import LabError, ProcessId, kill_group
from tests.lab.wait import PATIENCE_S, wait_for

_LONGEST_RECORD_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Group:
    """A process group, by its leader."""

    leader: ProcessId


@dataclass(frozen=True, slots=True)
class Cell:
    """A PID namespace with Podman in it: `init` is its first process, as seen from outside."""

    init: ProcessId


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The control groups of all containers in a Podman storage."""

    graph_root: str


@dataclass(frozen=True, slots=True)
class Networks:
    """What all networks in a folder of network configurations have in the kernel."""

    folder: str


@dataclass(frozen=True, slots=True)
class Directory:
    path: str


Leftover = Group | Cell | Cgroups | Networks | Directory


class Lease:
    """A held number. Not shared between threads."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._descriptor = descriptor
        self._leftovers: list[Leftover] = []

    @classmethod
    def take(cls, pool: str, highest: int) -> "Lease":
        """The lowest number from 1 to `highest` that is free in the pool; `LabError` when all are held.

        What dead holders in the pool left is taken away on the way.
        """
        folder = shared_directory() / "leases" / pool
        folder.mkdir(parents=True, exist_ok=True)
        taken: Lease | None = None
        for number in range(1, highest + 1):
            path = folder / str(number)
            if taken is not None and not path.exists():
                continue
            descriptor = _locked(path)
            if descriptor is None:
                continue
            _take_away_recorded(descriptor)
            if taken is None:
                taken = cls(number, descriptor)
            else:
                os.close(descriptor)
        if taken is None:
            raise LabError(f"all {highest} numbers of {pool} are held by running processes")
        return taken

    def remember(self, leftover: Leftover) -> None:
        """Write down what is about to be, or has just been, made. It is taken away in the opposite order."""
        self._leftovers.append(leftover)
        self._write()

    def forget(self, leftover: Leftover) -> None:
        """It is gone already."""
        self._leftovers.remove(leftover)
        self._write()

    def release(self) -> None:
        """Take everything away and give the number back. Fine twice."""
        if self._descriptor < 0:
            return
        _take_away(tuple(self._leftovers))
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1

    def _write(self) -> None:
        record = [{"what": type(leftover).__name__, **asdict(leftover)} for leftover in self._leftovers]
        content = json.dumps(record).encode()
        # Longer content first and the cut after it: killed in between, the record has a tail that is no JSON, and the
        # reader cuts it off at the newline.
        os.pwrite(self._descriptor, content + b"\n", 0)
        os.ftruncate(self._descriptor, len(content) + 1)


def shared_directory() -> Path:
    """The folder that all processes of this user share on this machine: leases and finished images.

    `LabError` when it is someone else's: what a lease says is taken away without a question.
    """
    folder = Path(tempfile.gettempdir()) / f"agent-lab-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise LabError(f"{folder} must be a folder that only this user can enter; remove it")
    return folder


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _take_away_recorded(descriptor: int) -> None:
    record, newline, _ = os.pread(descriptor, _LONGEST_RECORD_BYTES, 0).partition(b"\n")
    if newline:
        _take_away(tuple(_leftover(entry) for entry in json.loads(record)))
    os.ftruncate(descriptor, 0)


def _leftover(entry: dict[str, object]) -> Leftover:
    match entry:
        case {"what": "Group", "leader": {"pid": int(pid), "started": int(started)}}:
            return Group(ProcessId(pid, started))
        case {"what": "Cell", "init": {"pid": int(pid), "started": int(started)}}:
            return Cell(ProcessId(pid, started))
        case {"what": "Cgroups", "graph_root": str(graph_root)}:
            return Cgroups(graph_root)
        case {"what": "Networks", "folder": str(folder)}:
            return Networks(folder)
        case {"what": "Directory", "path": str(path)}:
            return Directory(path)
    raise LabError(f"a lease has an entry that is not known: {entry}")


def _take_away(leftovers: tuple[Leftover, ...]) -> None:
    for leftover in reversed(leftovers):
        match leftover:
            case Group(leader):
                if leader.alive():
                    kill_group(leader.pid, signal.SIGKILL)
            case Cell(init):
                _end_cell(init)
            case Cgroups(graph_root):
                remove_cgroups(Path(graph_root))
            case Networks(folder):
                remove_networks(Path(folder))
            case Directory(path):
                shutil.rmtree(path, ignore_errors=True)
            case _:
                assert_never(leftover)


def _end_cell(init: ProcessId) -> None:
    if init.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(init.pid, signal.SIGKILL)
        wait_for(lambda: not init.alive(), PATIENCE_S, f"the end of process {init.pid}")
