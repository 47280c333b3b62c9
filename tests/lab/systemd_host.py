"""A server with a real systemd as its process 1, in namespaces of its own, reached over a wire of its own.

What a test installs there behaves as a service. It runs on this machine's kernel, so its WireGuard is whatever this one has, and its
Podman is told a runtime and limits that work here. Its only way out is to the test's network. Knows nothing of agents.
"""

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab import debian_tree
from tests.lab.images import Image
from tests.lab.lease import Cell, Directory, Group, Lease
from tests.lab.podman_traces import remove_cgroup
from tests.lab.process import Child, LabError, ProcessId, children_of, run
from tests.lab.wait import PATIENCE_S, wait_for

_HIGHEST: Final = 60
_BOOT_S: Final = 300
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""

# $1 the folder, $2 the tree, $3 what is seen as /mnt, $4 the control group's name. First in groups of its own, then in a namespace in
# which these are the roots: so systemd and the container runtimes find the paths that they would find on a machine. Mounts are shared with
# services that have a view of their own, which systemd does on machines and not in containers.
_GROUPS: Final = """\
set -e
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    [ -e "$procs" ] || continue
    group=${procs%/*}/$4
    [ "${procs%/*}" = /sys/fs/cgroup ] || mountpoint -q "${procs%/*}" || continue
    mkdir -p "$group"
    for name in cpuset.cpus cpuset.mems; do [ ! -e "$group/$name" ] || cat "${procs%/*}/$name" >"$group/$name"; done
    echo 0 >"$group/cgroup.procs"
done
exec unshare --cgroup sh -c "$5" sh "$@"
"""
_BOOT: Final = """\
set -e
root=$1/merged
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/lock"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mknod "$root/dev/net/tun" c 10 200
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    while read -r _ _ _ _ where _ rest; do
        case $where in /sys/fs/cgroup/*) ;; *) continue ;; esac
        kind=${rest#*- }; options=${kind##* }; kind=${kind%% *}
        mkdir "$root$where"
        case $kind in
        cgroup2) mount -t cgroup2 cgroup2 "$root$where" ;;
        cgroup) mount -t cgroup -o "${options#rw,}" cgroup "$root$where" ;;
        esac
    done </proc/self/mountinfo
fi
mkdir -p "$root/var/lib/containers"
mount --bind "$1/storage" "$root/var/lib/containers"
mkdir -p "$root/mnt"
mount --bind "$3" "$root/mnt"
mkdir -p "$root/etc/containers"
cp "$1/containers.conf" "$root/etc/containers/containers.conf"
echo "$4" >"$root/etc/hostname"
ip link set lo up
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
mount --make-rshared /
exec env -i container=podman PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
"""


class SystemdHost:
    """Booted while it is entered. `address` is its own, `host_address` the test's; `mnt` is seen in it as /mnt.

    Its files are in `directory`, which is removed with it.
    """

    def __init__(self, directory: Path, mnt: Path) -> None:
        self._lease = Lease.take("systemd-hosts", _HIGHEST)
        self._directory, self.mnt = directory, mnt
        self.name = f"lab-host-{self._lease.number}"
        self.subnet_id = 255 - self._lease.number
        first = 4 * self._lease.number
        self.host_address, self.address = f"198.51.100.{first + 1}", f"198.51.100.{first + 2}"
        self._init: ProcessId | None = None
        self._unshare: Child | None = None

    def run(self, *argv: str, timeout_s: float = 300, env: Mapping[str, str] | None = None) -> str:
        """What a command on it wrote on both streams; `LabError` with it when the command fails."""
        status, said = self.ask(*argv, timeout_s=timeout_s, env=env)
        if status != 0:
            raise LabError(f"{' '.join(argv)!r} ended with status {status}: {said[-3000:]}")
        return said

    def ask(self, *argv: str, timeout_s: float = 300, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Its exit status, and what it wrote on both streams."""
        if self._init is None:
            raise LabError(f"{self.name} does not run")
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            **(env or {}),
        }
        words = ("env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv)
        done = subprocess.run(
            (*self._inside(), *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def load(self, image: Image) -> str:
        """Put an image into its Podman; the reference to use for it."""
        (self.mnt / image.archive.name).write_bytes(image.archive.read_bytes())
        self.run("podman", "load", "--quiet", "--input", f"/mnt/{image.archive.name}")
        # Under a registry's name: the control plane completes one without.
        reference = f"lab.test/{image.name}:{image.tag}"
        self.run("podman", "tag", image.reference, reference)
        return reference

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _boot(self) -> None:
        tree, folder = debian_tree.server(), self._directory
        self._lease.remember(Directory(str(folder)))
        for name in ("upper", "work", "merged", "storage"):
            (folder / name).mkdir(parents=True)
        (folder / "containers.conf").write_text(_CONTAINERS_CONF)
        self._remove_cgroups()
        namespaces = ("--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc")
        script = ("sh", "-c", _GROUPS, "sh", str(folder), str(tree), str(self.mnt), self.name, _BOOT)
        self._unshare = Child(("unshare", *namespaces, *script), folder / "boot.log")
        self._lease.remember(Group(self._unshare.identity))
        wait_for(lambda: children_of(self._require().pid) or not self._require().running(), PATIENCE_S, "process 1")
        if not self._require().running():
            raise LabError(f"{self.name} did not start: {self._require().last_words()}")
        self._init = ProcessId.of(children_of(self._unshare.pid)[0])
        self._lease.remember(Cell(self._init))
        wait_for(self._is_up, _BOOT_S, "systemd to be up")
        self._connect(self._init.pid)

    def _is_up(self) -> bool:
        if not self._require().running():
            raise LabError(f"{self.name} did not come up: {self._require().last_words()}")
        _, said = self.ask("systemctl", "is-system-running")
        return said.strip() in ("running", "degraded")

    def _connect(self, init: int) -> None:
        wire = f"host{self._lease.number}"
        for command in (
            f"link add {wire} type veth peer name {wire}b",
            f"address add {self.host_address}/30 dev {wire}",
            f"link set {wire} up",
            f"link set {wire}b netns {init} name eth0",
        ):
            run(("ip", *command.split()))
        for command in (f"address add {self.address}/30 dev eth0", "link set eth0 up"):
            self.run("ip", *command.split())
        self.run("ip", "route", "add", "default", "via", self.host_address)

    def _end(self) -> None:
        self._init = None
        self._lease.release()
        if self._unshare is not None:
            self._unshare.kill()
            self._unshare = None
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        for folder in (_CGROUPS / self.name, *_CGROUPS.glob(f"*/{self.name}")):
            with contextlib.suppress(OSError):
                remove_cgroup(folder)

    def _inside(self) -> tuple[str, ...]:
        assert self._init is not None
        return ("nsenter", f"--target={self._init.pid}", "--all", "--")

    def _require(self) -> Child:
        assert self._unshare is not None
        return self._unshare
