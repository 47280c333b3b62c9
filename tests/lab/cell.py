"""A cell: mount and PID namespace (and network namespace, when asked for) in which Podman is alone on its machine.

It has a private /run, /dev/shm and /etc/containers, so that Podman's lock numbers, address reservations, runtime state
and mounts are nobody else's, and all of it ends with the cell's first process, as with a power cut. The storage is a
plain folder with the same path inside and outside, and survives. Knows Podman's configuration files; starts no service.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.lease import Cell, Cgroups, Group, Lease, Networks
from tests.lab.podman_traces import remove_cgroups, remove_networks
from tests.lab.process import Child, LabError, ProcessId, children_of, run
from tests.lab.wait import PATIENCE_S, wait_for

# The reader of the Podman log expects k8s-file; healthchecks have no systemd here and cgroups are Podman's own.
# Both limits are given, each with soft equal to hard: without them the runtime asks for more than a container that
# runs this lab may have, and Podman 4.3 swaps soft and hard when a container comes through its API.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{networks}"
"""
_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{graph_root}"
runroot = "/run/containers/storage"
"""
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'

# $1 folder of the cell, $2 size of its disk in bytes or nothing, $3 "own" for a network of its own. The file that
# /etc/resolv.conf names is often one in /run.
_INIT = """\
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/wireguard /run/podman
resolver=$(readlink -m /etc/resolv.conf)
case $resolver in /run/*) mkdir -p "${resolver%/*}"; touch "$resolver";; esac
if [ -e "$resolver" ]; then mount --bind "$1/resolv.conf" "$resolver"; fi
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /etc/containers
mount --bind "$1/etc" /etc/containers
if [ -n "$2" ]; then mount -t tmpfs -o "size=$2" tmpfs "$1/storage"; fi
if [ "$3" = own ]; then ip link set lo up; fi
trap 'exit 0' TERM
touch "$1/ready"
while :; do sleep 3600 & wait $!; done
"""


class PrivateCell:
    """A cell over the folder `directory`, which must exist. `own_network` gives it a network namespace with only `lo`.

    `disk_size_bytes` puts the storage on a memory disk of that size, which is empty at every start.
    """

    def __init__(
        self, directory: Path, lease: Lease, *, own_network: bool = False, disk_size_bytes: int | None = None
    ) -> None:
        self.directory = directory
        self.graph_root = directory / "storage"
        self.networks = directory / "networks"
        self._lease = lease
        self._own_network = own_network
        self._disk_size_bytes = disk_size_bytes
        self._unshare: Child | None = None
        self._init: Cell | None = None
        self._spawned: list[Child] = []
        for folder in (directory / "etc", self.graph_root, self.networks):
            folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        lease.remember(Cgroups(str(self.graph_root)))
        if not own_network:
            lease.remember(Networks(str(self.networks)))

    @property
    def init(self) -> int:
        """The process id of the cell's first process, as seen from outside."""
        if self._init is None:
            raise LabError(f"the cell in {self.directory} is not running")
        return self._init.init.pid

    def running(self) -> bool:
        return self._init is not None and self._init.init.alive()

    def start(self) -> None:
        """Returns when the cell can be entered; `LabError` with its last words otherwise. Fine when it runs."""
        if self.running():
            return
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        disk = "" if self._disk_size_bytes is None else str(self._disk_size_bytes)
        network = ("--net",) if self._own_network else ()
        namespaces = ("--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc", *network)
        script = ("bash", "-c", _INIT, "init", str(self.directory), disk, "own" if self._own_network else "")
        unshare = Child(("unshare", *namespaces, *script), self.directory / "cell.log")
        self._lease.remember(Group(unshare.identity))
        wait_for(
            lambda: ready.exists() or not unshare.running(), PATIENCE_S, f"the cell in {self.directory} to be ready"
        )
        if not unshare.running():
            raise LabError(f"the cell in {self.directory} did not start: {unshare.last_words()}")
        self._unshare = unshare
        self._init = Cell(ProcessId.of(children_of(unshare.pid)[0]))
        self._lease.remember(self._init)

    def power_off(self) -> None:
        """Kill everything in the cell at once; only what is on its disk stays. Fine when it is off."""
        if self._init is None or self._unshare is None:
            return
        for child in self._spawned:
            # One that is halted would not notice the end of its child, and the cell would wait for it.
            child.signal(signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init.init.pid, signal.SIGKILL)
        # Ends by itself as soon as its child has: the kernel lets the first process of a PID namespace go last.
        self._unshare.wait(PATIENCE_S)
        for child in self._spawned:
            child.kill()
        self._spawned.clear()
        self._lease.forget(self._init)
        self._lease.forget(Group(self._unshare.identity))
        self._init = self._unshare = None
        remove_cgroups(self.graph_root)
        if not self._own_network:
            remove_networks(self.networks)

    def command(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The command that runs `argv` inside; its working directory there is `/`."""
        return ("nsenter", f"--target={self.init}", "--mount", "--pid", "--net", "--", *argv)

    def run(self, argv: Sequence[str], timeout_s: float = 30, text: str = "") -> str:
        """Run a command inside to its end; see `process.run`."""
        return run(self.command(argv), timeout_s=timeout_s, text=text)

    def spawn(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Child:
        """Start a command inside, which goes on until it is stopped or the cell ends."""
        child = Child(self.command(argv), log, env, wrapped=True)
        self._spawned.append(child)
        return child

    def trust_registry(self, address: str) -> None:
        """Let Podman in the cell speak plain HTTP with the registry at `address` (`host:port`)."""
        with (self.directory / "etc" / "registries.conf").open("a") as file:
            file.write(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')

    def use_resolvers(self, *addresses: str) -> None:
        """Make these the DNS servers in the cell's /etc/resolv.conf; until then it has those of the machine."""
        (self.directory / "resolv.conf").write_text("".join(f"nameserver {address}\n" for address in addresses))

    def _write_configuration(self) -> None:
        etc = self.directory / "etc"
        containers = _CONTAINERS_CONF.format(
            files=_limit(resource.RLIMIT_NOFILE, 4096),
            processes=_limit(resource.RLIMIT_NPROC, 4096),
            networks=self.networks,
        )
        (etc / "containers.conf").write_text(containers)
        (etc / "storage.conf").write_text(_STORAGE_CONF.format(graph_root=self.graph_root))
        resolvers = Path("/etc/resolv.conf")
        (self.directory / "resolv.conf").write_text(resolvers.read_text() if resolvers.exists() else "")
        (etc / "policy.json").write_text(_POLICY)
        (etc / "registries.conf").write_text("unqualified-search-registries = []\n")


def _limit(kind: int, wanted: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
