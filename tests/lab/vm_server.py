"""A whole server in a virtual machine: a kernel of its own, systemd, one control group hierarchy, a disk that survives a reset.

It starts from a Debian folder. Its network is emulated in user mode: this process's loopback is 10.0.2.2 to it, and one of its ports is
forwarded to this process. Commands go over a serial line. The processor is emulated, some ten times slower than the real one.
"""

import itertools
import platform
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.lease import Directory, Group, Lease
from tests.lab.ports import free_port
from tests.lab.process import Child, LabError, run
from tests.lab.vm_files import kernel, write_cpio
from tests.lab.wait import PATIENCE_S, wait_for

HOST: Final = "10.0.2.2"
_ADDRESS: Final = "10.0.2.15"
_HIGHEST: Final = 9
_DISK: Final = "4G"
_MEMORY_MB: Final = 2500
_BOOT_S: Final = 900
_ANSWER_S: Final = 5
_COMMAND_S: Final = 600
_ROOT_MODULES: Final = ("virtio_pci", "virtio_blk")
# What a server in a machine room has no use for here, and what would wait for a terminal.
_MASKED: Final = (
    *("getty@tty1.service", "serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "e2scrub_all.timer", "dpkg-db-backup.timer", "systemd-pstore.service"),
    *("podman-auto-update.service", "podman-auto-update.timer", "networking.service"),
)
_INIT: Final = """\
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs devtmpfs /dev
{insmod}
/busybox mount -t ext4 -o rw /dev/vda /root
/busybox umount /proc
/busybox mount --move /dev /root/dev
exec /busybox switch_root /root /sbin/init
"""
_UNITS: Final = {
    "lab-network.service": f"""\
[Unit]
DefaultDependencies=no
Before=network.target network-online.target
Wants=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe virtio_net
ExecStart=/bin/sh -c 'while ! ip link show eth0; do :; done; ip address add {_ADDRESS}/24 dev eth0'
ExecStart=/bin/sh -c 'ip link set eth0 up; ip route add default via {HOST}'
[Install]
WantedBy=multi-user.target
""",
    "lab-shell.service": """\
[Service]
ExecStart=/bin/sh -c 'stty -F /dev/ttyS1 raw -echo; cat </dev/ttyS1 | bash --norc >/dev/ttyS1 2>&1'
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Restart=always
RestartSec=0
[Install]
WantedBy=multi-user.target
""",
}


class VmServer:
    """Made in `directory` of the Debian in the folder `root`; booted while it is entered. `port` here is its port 443."""

    def __init__(self, directory: Path, root: Path) -> None:
        if platform.machine() != "x86_64":
            raise LabError("the lab's virtual machine is made for x86_64 alone")
        self._directory = directory
        self._lease = Lease.take("vm-servers", _HIGHEST)
        self._lease.remember(Directory(str(directory)))
        directory.mkdir(parents=True)
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._machine: Child | None = None
        self._line: socket.socket | None = None
        _prepare(root)
        run(("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(directory / "disk.img"), _DISK), timeout_s=_COMMAND_S)
        self._write_first_files()

    def run(self, command: str, timeout_s: float = _COMMAND_S, env: Mapping[str, str] | None = None) -> str:
        """What a shell command wrote on both streams; `LabError` with it when the command fails."""
        status, said = self.ask(command, timeout_s, env)
        if status != 0:
            raise LabError(f"{command!r} ended with status {status}: {said[-3000:]}")
        return said

    def ask(self, command: str, timeout_s: float = _COMMAND_S, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Its exit status, and what it wrote on both streams."""
        mark = f"lab-mark-{next(self._numbers)}"
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in (env or {}).items())
        line = f"( {f'export {variables}; ' if variables else ''}{command}\n) </dev/null 2>&1; status=$?; echo; echo {mark} $status\n"
        assert self._line is not None
        self._line.sendall(line.encode())
        said = self._until(f"\n{mark} ", timeout_s, command)
        output, _, status = said.rpartition(f"\n{mark} ")
        return int(status), output.removesuffix("\n").replace("\r", "")

    def cut_power(self) -> None:
        """As if the plug had been pulled and put in again; returns when commands are taken."""
        assert self._line is not None
        self._line.sendall(b"echo b >/proc/sysrq-trigger\n")
        self._connect()

    def console(self) -> str:
        """The end of what the kernel and systemd wrote."""
        path = self._directory / "console"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def __enter__(self) -> Self:
        folder = self._directory
        self._machine = Child(
            (
                *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", str(_MEMORY_MB)),
                *("-display", "none", "-monitor", "none", "-serial", f"file:{folder / 'console'}"),
                *("-serial", f"unix:{folder / 'line'},server=on,wait=off"),
                *("-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.port}-:443"),
                *("-drive", f"file={folder / 'disk.img'},format=raw,if=virtio,cache=unsafe"),
                *("-kernel", str(kernel().image), "-initrd", str(folder / "initrd")),
                *(
                    "-append",
                    "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off net.ifnames=0 random.trust_cpu=on",
                ),
            ),
            folder / "qemu.log",
        )
        try:
            self._lease.remember(Group(self._machine.identity))
            wait_for(lambda: (folder / "line").exists(), PATIENCE_S, "the machine's serial line")
            self._connect()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._machine is not None:
            self._machine.kill()
        self._lease.release()

    def _connect(self) -> None:
        """Ask until the shell of the boot that is under way answers."""
        if self._line is None:
            self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._line.connect(str(self._directory / "line"))
        deadline = time.monotonic() + _BOOT_S
        while True:
            mark = f"lab-boot-{next(self._numbers)}"
            self._line.sendall(f"\necho; echo {mark} 0\n".encode())
            try:
                self._until(f"\n{mark} ", _ANSWER_S, "boot")
                return
            except LabError:
                if time.monotonic() > deadline:
                    raise

    def _until(self, mark: str, timeout_s: float, what: str) -> str:
        assert self._line is not None
        said, deadline = "", time.monotonic() + timeout_s
        while not (mark in said and said.endswith("\n")):
            self._line.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                part = self._line.recv(65_536)
            except TimeoutError as error:
                raise LabError(
                    f"{what!r} took longer than {timeout_s} s: {said[-1000:]}; console: {self.console()}"
                ) from error
            if not part:
                raise LabError(f"the machine has ended during {what!r}; console: {self.console()}")
            said += part.decode(errors="replace")
        return said

    def _write_first_files(self) -> None:
        first = self._directory / "first"
        for name in ("proc", "dev", "root"):
            (first / name).mkdir(parents=True)
        busybox = shutil.which("busybox")
        if busybox is None:
            raise LabError("busybox is not installed; the package busybox-static has it")
        shutil.copy(busybox, first / "busybox")
        modules = _needed_modules()
        for module in modules:
            shutil.copy(module, first)
        init = first / "init"
        init.write_text(_INIT.format(insmod="\n".join(f"/busybox insmod /{module.name}" for module in modules)))
        init.chmod(0o755)
        write_cpio(
            self._directory / "initrd", first, [f"/{path.relative_to(first)}" for path in sorted(first.rglob("*"))]
        )


def _prepare(root: Path) -> None:
    """What makes a server of the folder: the kernel's modules, a network, a shell on the serial line, a fresh identity."""
    shutil.copytree(kernel().all_modules, root / "usr/lib/modules", symlinks=True, dirs_exist_ok=True)
    for name, text in _UNITS.items():
        (root / "etc/systemd/system" / name).write_text(text)
        wanted = root / "etc/systemd/system/multi-user.target.wants"
        wanted.mkdir(exist_ok=True)
        (wanted / name).symlink_to(f"/etc/systemd/system/{name}")
    for name in _MASKED:
        (root / "etc/systemd/system" / name).unlink(missing_ok=True)
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    (root / "etc/hostname").write_text("lab-server\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/fstab").write_text("")


def _needed_modules() -> list[Path]:
    """The files of what reaches the disk, each after what it needs."""
    (version,) = [path.name for path in kernel().all_modules.iterdir()]
    found: list[Path] = []
    for name in _ROOT_MODULES:
        said = subprocess.run(
            ("modprobe", "--show-depends", "--set-version", version, "--dirname", str(_as_root(version)), name),
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
        for line in said.splitlines():
            path = Path(line.split()[1])
            if line.startswith("insmod") and path not in found:
                found.append(path)
    return found


def _as_root(version: str) -> Path:
    """A folder in which the modules lie where modprobe looks."""
    root = kernel().all_modules.parent / "root"
    (root / "lib").mkdir(parents=True, exist_ok=True)
    link = root / "lib/modules"
    if not link.exists():
        link.symlink_to(kernel().all_modules)
    return root
