"""The processes behind Podman's containers, as the kernel shows them below /proc.

A process is a container's when its control group says so, which names the container's id; nothing else is ever signalled, and only through
a descriptor that was opened before that was read (a number that is used again then ends nobody). Podman's own numbers are those of its
service's PID namespace, which may be another than the agent's: who serves the socket tells which. A service that cannot be seen from here
(behind a relay, in a namespace beside) leaves nothing to look at, and Podman is believed.
"""

import contextlib
import errno
import os
import signal
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from core import processes
from core.containers import ContainerId
from core.processes import Monitor, Process
from shell.failure import AdapterError

T = TypeVar("T")

_PROC: Final = "/proc"
_CREDENTIALS: Final = struct.Struct("3i")
_CONNECT_S: Final = 1.0
_THREADS: Final = 8
_COMPONENT: Final = "podman"
_NOT_NOW: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing of what was to be read
_LARGEST: Final = 4 * 1024**2  # a mount table has some hundred bytes a mount
_PAUSE_S: Final = 0.05
# What ends a container by name, whoever types it: `podman stop`, `podman restart`, `podman rm`, `podman pod stop`, …
_STOPS: Final = frozenset({"stop", "restart", "rm", "down", "kill"})
_CLIENTS: Final = ("podman", "podman-remote", "docker", "docker-compose")  # all but the first through Podman's socket


@dataclass(frozen=True, slots=True)
class View:
    """How Podman's numbers are read: `proc` is a /proc in which they hold, `root` the file system that its service sees."""

    proc: str
    root: str
    namespace: str


class Processes:
    """The processes of the containers of the Podman behind one socket. What has ended meanwhile is not there.

    Everything raises AdapterError when the server has no file or memory free: a process that could not be looked at is never one that
    has ended.
    """

    def __init__(self, socket_path: Path) -> None:
        self._socket = socket_path
        self._view: View | None = None
        self._limiter = anyio.CapacityLimiter(_THREADS)

    async def not_there(self, listed: Mapping[ContainerId, int]) -> frozenset[ContainerId]:
        """Those containers whose process, by Podman's number, is not there; empty when that cannot be told."""
        return await self._off_the_loop(lambda: self._not_there(listed))

    async def is_gone(
        self, pid: int, pid_file: str, monitor_pid: int, container_id: ContainerId, *, is_late: bool = False
    ) -> bool | None:
        """Whether a container's process is gone and nobody will tell Podman, since its monitor is gone too; None when it may be told yet.

        `is_late`: the monitor has had its time; it is not waited for where no process has that number.

        False also when this cannot be seen from here: Podman's own file must have the number, where its service has its files.
        """
        return await self._off_the_loop(lambda: self._is_gone(pid, pid_file, monitor_pid, container_id, is_late))

    async def of(self, container_id: ContainerId) -> tuple[Process, ...]:
        """The processes of one container."""
        return await self._off_the_loop(lambda: tuple(_all().get(container_id, ())))

    async def living(self, ids: Iterable[ContainerId]) -> frozenset[ContainerId]:
        """Those of these containers that have a process."""
        wanted = frozenset(ids)
        return await self._off_the_loop(lambda: wanted & _all().keys())

    async def ended(self, container_id: ContainerId, limit_s: float) -> bool:
        """Whether the container has no process any more, waiting for that as long as the limit."""
        end = anyio.current_time() + limit_s
        while await self.of(container_id):
            if anyio.current_time() >= end:
                return False
            await anyio.sleep(_PAUSE_S)
        return True

    async def signal(self, container_id: ContainerId, number: signal.Signals) -> None:
        """Send every process of the container a signal."""
        await self._off_the_loop(lambda: _signal_all(container_id, number))

    async def end_family(self, container_id: ContainerId, first: int) -> None:
        """Kill a process of the container and all that have come from it, also what they start meanwhile."""
        await self._off_the_loop(lambda: _end_family(container_id, first))

    async def commands_in(self, container_id: ContainerId) -> dict[str, Process]:
        """The commands that were run in a container beside its own process: session id, and the first process of each."""
        return await self._off_the_loop(lambda: _commands_in(container_id))

    async def users(self, service_id: str, folders: tuple[Path, ...]) -> frozenset[ContainerId]:
        """The containers of which a process has one of a service's folders mounted."""
        return await self._off_the_loop(lambda: _users(service_id, folders))

    async def monitors(self) -> dict[ContainerId, Monitor]:
        """What each running monitor of a container looks after, of whatever store."""
        return await self._off_the_loop(
            lambda: {one.container_id: one for one in _monitors().values() if one.session == one.container_id}
        )

    async def user_of(self, service_id: str, folders: tuple[Path, ...]) -> int | None:
        """A process outside of this one's mount namespace that has one of a service's folders mounted; None when there is none."""
        return await self._off_the_loop(lambda: _user_of(service_id, folders))

    async def unused_networks(self) -> tuple[str, ...]:
        """The network namespaces that Podman has made and that no process is in, as paths."""
        return await self._off_the_loop(self._unused_networks)

    async def has_mount(self, path: str) -> bool:
        """Whether a file system is mounted at a path of Podman's service; False also when that cannot be seen from here."""
        return await self._off_the_loop(lambda: self._has_mount(path))

    async def is_somebody_stopping(self) -> bool:
        """Whether a `podman` command that stops containers runs where the service does."""
        return await self._off_the_loop(self._is_somebody_stopping)

    async def age_s(self, one: Process) -> float:
        """For how long a process has run."""
        return await self._off_the_loop(lambda: _uptime_s() - one.started / os.sysconf("SC_CLK_TCK"))

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        """In a thread of few, and left alone there when its caller's time is over: a file system that hangs holds up no end of anything."""
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:
            what = "look at the processes of containers"
            raise AdapterError(_COMPONENT, what, error.strerror or str(error), "looked at again") from error

    def _not_there(self, listed: Mapping[ContainerId, int]) -> frozenset[ContainerId]:
        missing = _missing(self._view, listed)
        if missing and (fresh := _view(self._socket)) != self._view:  # another service than before
            self._view = fresh
            missing = _missing(fresh, listed)
        return missing if self._view is not None else frozenset()

    def _is_gone(
        self, pid: int, pid_file: str, monitor_pid: int, container_id: ContainerId, is_late: bool
    ) -> bool | None:
        view = self._view = _view(self._socket)
        if view is None or not pid_file or _read(f"{view.root}{pid_file}").strip() != str(pid):
            return False
        watching = processes.monitor(_read_bytes(f"{view.proc}/{monitor_pid}/cmdline"))
        if watching is not None and watching.container_id == container_id:
            return True if is_late and _process(view.proc, pid) is None else None
        return not _is_of(view.proc, pid, container_id)

    def _unused_networks(self) -> tuple[str, ...]:
        view = _view(self._socket)
        if view is None:
            return ()
        there = {path: one for path in Path(f"{view.root}/run/netns").glob("netns-*") for one in _places([path])}
        used = _places(Path(f"{_PROC}/{pid}/ns/net") for pid in _numbers()) if there else frozenset()
        return tuple(sorted(str(path) for path, one in there.items() if one not in used))

    def _has_mount(self, path: str) -> bool:
        view = _view(self._socket)
        if view is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            folder = Path(f"{view.root}{path}")
            return folder.stat().st_dev != (folder / "..").stat().st_dev
        return False

    def _is_somebody_stopping(self) -> bool:
        view = _view(self._socket)
        if view is None:
            return False
        return any(
            not _STOPS.isdisjoint(words.decode("utf-8", "replace").split("\0")) and view.namespace == _space(pid)
            for pid, words in _commands(*_CLIENTS)
        )


def _view(path: Path) -> View | None:
    """Who listens at the socket; None when that is nobody whom this process can see."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECT_S)
            connection.connect(str(path))
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError as error:
        _require_seen(error)
        return None
    pid = _CREDENTIALS.unpack(raw)[0]  # in this process's numbers; 0 when it is in a namespace beside
    space = _space(pid) if pid else ""
    if not space:
        return None
    root = f"{_PROC}/{pid}/root"
    if space == _space(os.getpid()):
        return View(_PROC, root, space)
    proc = f"{root}{_PROC}"  # another namespace's where the service has none of its own: numbers would be others' there
    return View(proc, root, space) if _link(f"{proc}/1/ns/pid") == space else None


def _space(pid: int) -> str:
    """The PID namespace of a process, empty when it has ended or may not be looked at."""
    return _link(f"{_PROC}/{pid}/ns/pid")


def _missing(view: View | None, listed: Mapping[ContainerId, int]) -> frozenset[ContainerId]:
    proc = _PROC if view is None else view.proc
    return frozenset(one for one, pid in listed.items() if not _is_of(proc, pid, one))


def _is_of(proc: str, pid: int, container_id: ContainerId) -> bool:
    """Whether the process is the container's, and no zombie: whose group cannot be told any more on cgroup v2."""
    group = _read(f"{proc}/{pid}/cgroup")
    return processes.container_of(group) == container_id and _process(proc, pid) is not None


def _all() -> dict[ContainerId, list[Process]]:
    """The processes of all containers that can be seen from here, of whatever Podman."""
    found: dict[ContainerId, list[Process]] = defaultdict(list)
    for pid in _numbers():
        container_id = processes.container_of(_read(f"{_PROC}/{pid}/cgroup"))
        if container_id is not None and (one := _process(_PROC, pid)) is not None:
            found[container_id].append(one)
    return dict(found)


def _process(proc: str, pid: int) -> Process | None:
    return processes.process(pid, _read(f"{proc}/{pid}/stat"))


def _signal(pid: int, container_id: ContainerId, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):  # it has ended
        descriptor = os.pidfd_open(pid)
        try:
            if processes.container_of(_read(f"{_PROC}/{pid}/cgroup")) == container_id:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _signal_all(container_id: ContainerId, number: signal.Signals) -> None:
    for one in _all().get(container_id, ()):
        _signal(one.pid, container_id, number)


_ROUNDS: Final = 10  # each ends what was started since the one before


def _end_family(container_id: ContainerId, first: int) -> None:
    for _ in range(_ROUNDS):
        there = {one.pid: one for one in _all().get(container_id, ())}
        family = processes.family(first, there) & there.keys()
        if not family:
            return
        for pid in family:  # nobody starts another while they end one by one
            _signal(pid, container_id, signal.SIGSTOP)
        for pid in family:
            _signal(pid, container_id, signal.SIGKILL)


def _monitors() -> dict[int, Monitor]:
    found = {pid: processes.monitor(words) for pid, words in _commands("conmon")}
    return {pid: one for pid, one in found.items() if one is not None}


def _commands(*names: str) -> Iterator[tuple[int, bytes]]:
    """The command lines of the programs of these names. Those of others are not read: a process that hangs on a disk makes who reads its
    command line hang, too."""
    for pid in _numbers():
        if _read(f"{_PROC}/{pid}/comm").removesuffix("\n") in names:
            yield pid, _read_bytes(f"{_PROC}/{pid}/cmdline")


def _commands_in(container_id: ContainerId) -> dict[str, Process]:
    sessions = {
        pid: one.session
        for pid, one in _monitors().items()
        if one.container_id == container_id and one.session != container_id
    }
    if not sessions:
        return {}
    return {sessions[one.parent]: one for one in _all().get(container_id, ()) if one.parent in sessions}


def _users(service_id: str, folders: tuple[Path, ...]) -> frozenset[ContainerId]:
    places = _places(folders)
    return frozenset(
        container_id
        for container_id, there in _all().items()
        if any(_has_mounted(one.pid, service_id, places) for one in there)
    )


def _user_of(service_id: str, folders: tuple[Path, ...]) -> int | None:
    places, seen = _places(folders), {_mounts_of(os.getpid())}
    for pid in _numbers():
        namespace = _mounts_of(pid)
        if namespace not in seen and namespace:
            seen.add(namespace)
            if _has_mounted(pid, service_id, places):
                return pid
    return None


def _places(folders: Iterable[Path]) -> frozenset[tuple[int, int]]:
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            about = folder.stat()
            found.add((about.st_dev, about.st_ino))
    return frozenset(found)


def _has_mounted(pid: int, service_id: str, places: frozenset[tuple[int, int]]) -> bool:
    for root, where in processes.mounts(_read(f"{_PROC}/{pid}/mountinfo")):
        if processes.shows(root, service_id):
            with contextlib.suppress(OSError):
                about = Path(f"{_PROC}/{pid}/root{where}").stat()
                if (about.st_dev, about.st_ino) in places:
                    return True
    return False


def _mounts_of(pid: int) -> str:
    return _link(f"{_PROC}/{pid}/ns/mnt")


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return str(Path(path).readlink())
    return ""


def _uptime_s() -> float:
    return float(_read(f"{_PROC}/uptime").split()[0])


def _numbers() -> list[int]:
    with os.scandir(_PROC) as entries:
        return [int(one.name) for one in entries if one.name.isdigit()]


def _read(path: str) -> str:
    return _read_bytes(path).decode("utf-8", "surrogateescape")


def _read_bytes(path: str) -> bytes:
    """The file, at most so much of it; empty when it is not there, since its process has ended. Raises OSError when none can be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(descriptor, 64 * 1024):
                parts.append(part)
                if sum(map(len, parts)) > _LARGEST:
                    break
            return b"".join(parts)
        finally:
            os.close(descriptor)
    except OSError as error:
        _require_seen(error)
        return b""


def _require_seen(error: OSError) -> None:
    """Raise an error that says nothing of the process that was to be looked at."""
    if error.errno in _NOT_NOW:
        raise error
