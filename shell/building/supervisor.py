"""Runs one command of a build in a sandbox; a program of its own (`python -m shell.building.supervisor`), which needs root.

The first line of standard input is the order. The end of standard input is the end of everything: whoever gave the order wants no more or
is gone, and then what the order calls doomed is removed, too. The exit status is the command's (128 and the number for a signal), or
`FAILED` when there could be no sandbox; why the sandbox itself has ended a command stands in the order's file `why`.

A sandbox is a user namespace that maps no user of the host, so that its root may do nothing outside; a root folder of its own, with the
tools (read only) and what the order names; namespaces of its own for processes, messages, the host name, control groups and the network.
Those of processes and the network are the host's, so nothing inside can look past `/proc` or change the firewall's rules.
pid_namespaces(7): when the first process in it ends, everything in it does. Imports nothing of the agent, so that it starts in a moment.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from shell.building import namespaces, relaying, usage

FAILED: Final = 254  # of no tool's: 125 is Buildah's, 126 and 127 are shells'; a step's own 254 becomes 1
IDS: Final = 65_536
_SIGNALLED: Final = 128
_NOT_FOUND: Final = 127
_LOOK_S: Final = 0.5
_BEGIN_S: Final = 60.0  # for one step of making a sandbox; each takes a fraction of a second
_LONGEST_WORDS: Final = 500
_ROOM: Final = 65_536  # of a pipe
_READY: Final = b"ready"
_WORD: Final = 16
_GO: Final = b"go"
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_NAMES: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOLDERS: Final = ("proc", "dev", "dev/pts", "dev/shm", "run", "etc", "old", "var")
_FIRST_TO_BE_KILLED: Final = "500"  # of -1000 to 1000: before anything else on this server when memory is short


@dataclass(frozen=True, slots=True)
class Order:
    """What is run, and what it sees.

    `root` is an empty folder of the host; `user` the first of the host's ids that its root and its other ids become. `binds` are places
    of the host (source, target, writable), `files` small texts. `rules` is for iptables-restore(8); `relays` lead from a socket inside to
    one of the host's (`host:port` or a path). `groups` are folders of control groups with what is written into their files, `joined`
    those that the command is in; none where the service manager sees to that. `disk` are the folders that may together have
    `disk_bytes`, `doomed` those that go when nobody wants the build any more, by way of `trash`.
    """

    argv: list[str]
    env: dict[str, str] = field(repr=False)
    folder: str
    root: str
    user: int
    why: str
    binds: list[tuple[str, str, bool]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    rules: str = ""
    relays: list[tuple[str, str]] = field(default_factory=list)
    groups: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    disk: list[str] = field(default_factory=list)
    disk_bytes: int = 0
    doomed: list[str] = field(default_factory=list)
    trash: str = ""

    def line(self) -> bytes:
        """As the supervisor reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Carry out the order."""
    signal.signal(signal.SIGTERM, _end_input)
    with open(0, "rb", buffering=0, closefd=False) as given:
        order = Order(**json.loads(given.readline()))
    os.umask(0o022)  # the new root is for another user
    usage.enter(order.groups, order.joined)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    outer = _forked(lambda: _outer(order, there))
    there.close()
    watch = os.pidfd_open(outer)
    network = None
    try:
        network = _begin(order, here, outer)
        return _to_the_end(order, outer, watch)
    finally:
        with suppress(ProcessLookupError):  # its number may be another's by now
            signal.pidfd_send_signal(watch, signal.SIGKILL)
        if network is not None:
            network.kill()
            network.wait()
        usage.leave(order.joined)


def _begin(order: Order, link: socket.socket, outer: int) -> subprocess.Popen[bytes] | None:
    """Connect what is being made inside: network, relays, ids; nothing when it could not be made."""
    said, listeners, _, _ = socket.recv_fds(link, len(_READY), len(order.relays) or 1)
    if said != _READY:
        return None
    sockets = [socket.socket(fileno=number) for number in listeners]
    relaying.start([*zip(sockets, (outside for _, outside in order.relays), strict=True)])
    network = _network(outer)
    link.send(_GO)
    words = (link.recv(_WORD), link.recv(_WORD))  # in either order: two processes say them
    first = next((word.decode() for word in words if word.isdigit()), "")
    if first and _READY in words:
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{first}/{kind}").write_text(f"0 {order.user} {IDS}\n")
        link.send(_GO)
    return network


def _to_the_end(order: Order, outer: int, watch: int) -> int:
    """Until the command ends, a bound is passed, or nobody wants it any more."""
    reason = ""
    with closing(usage.Disk(order.disk, order.disk_bytes)) as disk:
        while not reason:
            ready, _, _ = select.select([0, watch], [], [], _LOOK_S)
            if watch in ready:
                break
            if 0 in ready and not os.read(0, 4096):
                _kill(outer)
                _remove(order)
                return _SIGNALLED + signal.SIGKILL
            reason = _bound_passed(disk)
        status = _kill(outer) if reason else _code(os.waitpid(outer, 0)[1])
        if status:  # it may have ended before a bound that it met was seen
            reason = reason or usage.memory_fault() or usage.too_many_processes()
    if reason:
        Path(order.why).write_text(reason)
    return status


def _bound_passed(disk: usage.Disk) -> str:
    """Why the build has to end, if it does. Whoever looks is bound, too: du(1) may be the process that is one too many."""
    try:
        return usage.too_many_processes() or disk.fault()
    except BlockingIOError:
        return usage.too_many_processes() or "no process could be started to see how much it has written"


def _remove(order: Order) -> None:
    """Out of everybody's way first: what is half removed must not be used again."""
    trash = Path(order.trash)
    trash.mkdir(mode=0o700, exist_ok=True)
    for number, path in enumerate(order.doomed):
        with suppress(OSError):
            Path(path).rename(trash / str(number))
    usage.remove(order.trash)


def _end_input(number: int, frame: object) -> None:
    """A signal ends everything, too."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)


def _kill(outer: int) -> int:
    os.kill(outer, signal.SIGKILL)
    return _code(os.waitpid(outer, 0)[1])


def _network(pid: int) -> subprocess.Popen[bytes]:
    """A network of the user's kind: what a program inside sends is sent by a program of this server. slirp4netns(1)."""
    told, ready = os.pipe()
    until, end = os.pipe()
    os.set_inheritable(end, False)
    flags = (
        "--configure",
        "--mtu=65520",
        "--cidr=192.0.2.0/24",
        "--disable-host-loopback",
        "--enable-sandbox",
        "--enable-seccomp",
    )
    # It makes a root of its own, which no kernel allows where mounts are shared, as systemd has them, and /tmp is one.
    own_mounts = ("unshare", "--mount", "--propagation=slave", "--")
    argv = (*own_mounts, "slirp4netns", *flags, f"--ready-fd={ready}", f"--exit-fd={until}", str(pid), "tap0")
    if shutil.which("slirp4netns") is None:
        raise OSError(0, "slirp4netns is not installed")
    words, said = os.pipe()  # kept for as long as it runs, which would else end with what it says
    os.set_blocking(said, False)
    child = subprocess.Popen(  # noqa: S603 - words of our own
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        pass_fds=(ready, until),
    )
    for one in (ready, until, said):
        os.close(one)
    ready_now, _, _ = select.select([told], [], [], _BEGIN_S)
    if not ready_now:
        child.kill()
    if not os.read(told, 1):
        status = child.wait()
        last = " ".join(os.read(words, _ROOM).decode("utf-8", "replace").split())[-_LONGEST_WORDS:]
        raise OSError(0, f"slirp4netns ended with exit status {status}: {last}")
    os.close(told)
    return child


def _outer(order: Order, link: socket.socket) -> NoReturn:
    """Makes the namespaces, and waits for the first process in them."""
    namespaces.end_with_parent()
    Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_BE_KILLED)
    namespaces.leave(
        namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWIPC | namespaces.NEWUTS | namespaces.NEWCGROUP
    )
    socket.sethostname("build")
    namespaces.raise_loopback()
    _set_rules(order.rules)
    _make_root(order)
    listeners = [relaying.listen(inside, order.root, order.user) for inside, _ in order.relays]
    socket.send_fds(link, [_READY], [one.fileno() for one in listeners])
    if link.recv(len(_GO)) != _GO:
        os._exit(FAILED)
    namespaces.leave(namespaces.NEWPID)
    first = _forked(lambda: _first(order, link))
    link.send(str(first).encode())
    os._exit(_code(os.waitpid(first, 0)[1]))


def _set_rules(rules: str) -> None:
    try:
        subprocess.run(
            ("iptables-restore", "--wait"),  # noqa: S607 - found where this server has its tools
            input=rules,
            text=True,
            check=True,
            capture_output=True,
            timeout=_BEGIN_S,
        )
    except FileNotFoundError:
        raise OSError(0, "iptables is not installed") from None
    except subprocess.TimeoutExpired as error:
        raise OSError(0, f"iptables-restore took longer than {_BEGIN_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise OSError(0, f"iptables-restore: {str(error.stderr).strip()}") from error


def _make_root(order: Order) -> None:
    root, mine = order.root, f"uid={order.user},gid={order.user}"
    namespaces.keep_mounts_private()
    namespaces.mount("tmpfs", root, namespaces.NO_SUID, "mode=755,size=4m")
    for name in _FOLDERS:
        Path(root, name).mkdir()
    for name in _NAMES:
        path = Path("/", name)
        if path.is_symlink():
            Path(root, name).symlink_to(path.readlink())
        elif path.is_dir():
            _bind(root, str(path), str(path), writable=False)
    quiet = namespaces.NO_SUID | namespaces.NO_DEVICES
    namespaces.mount("tmpfs", f"{root}/run", quiet, f"mode=755,size=64m,{mine}")
    namespaces.mount("tmpfs", f"{root}/dev/shm", quiet, f"mode=1777,size=64m,{mine}")  # noqa: S108 - of the new root
    terminals = namespaces.NO_SUID | namespaces.NO_EXEC
    namespaces.mount("devpts", f"{root}/dev/pts", terminals, "newinstance,ptmxmode=0666,mode=620")
    for name in _DEVICES:
        Path(root, "dev", name).touch()
        namespaces.bind_device(f"/dev/{name}", f"{root}/dev/{name}")
    for name, target in {**_LINKS, "ptmx": "pts/ptmx"}.items():
        Path(root, "dev", name).symlink_to(target)
    for name, text in order.files.items():
        path = Path(root + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for source, target, writable in order.binds:
        _bind(root, source, target, writable=writable)


def _bind(root: str, source: str, target: str, *, writable: bool) -> None:
    place = Path(root + target)
    if not place.exists():  # it may lie below what is there already
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir() if Path(source).is_dir() else place.touch()
    namespaces.bind(source, str(place), writable=writable)


def _first(order: Order, link: socket.socket) -> NoReturn:
    """Process 1 of the sandbox: starts the command, and sees to whatever that leaves behind."""
    namespaces.end_with_parent()
    quiet = namespaces.NO_SUID | namespaces.NO_DEVICES | namespaces.NO_EXEC
    namespaces.mount("proc", f"{order.root}/proc", quiet)
    namespaces.enter_root(order.root)
    namespaces.leave(namespaces.NEWUSER)
    link.send(_READY)
    if link.recv(len(_GO)) != _GO:
        os._exit(FAILED)
    link.close()
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    namespaces.end_with_parent()
    namespaces.be_closed()
    namespaces.leave(namespaces.NEWNS)
    command = _forked(lambda: _command(order))
    while True:
        pid, status = os.wait()
        if pid == command:
            code = _code(status)
            os._exit(code if code != FAILED else 1)  # npm has this one, too


def _command(order: Order) -> NoReturn:
    os.setsid()
    os.chdir(order.folder)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(1, 2)
    try:
        os.execvpe(order.argv[0], order.argv, order.env)  # noqa: S606 - what this is for
    except OSError as error:
        os.write(1, f"{order.argv[0]}: {error.strerror}\n".encode())
        os._exit(_NOT_FOUND)


def _forked(child: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException as error:
            os.write(1, f"sandbox: {error}\n".encode())
            raise
        finally:
            os._exit(FAILED)
    return pid


def _code(status: int) -> int:
    number = os.waitstatus_to_exitcode(status)
    return number if number >= 0 else _SIGNALLED - number


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as problem:
        sys.stderr.write(f"sandbox: {problem.strerror or problem}\n")
        sys.exit(FAILED)
