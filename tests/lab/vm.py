"""A virtual machine with a kernel of its own, for what this machine's kernel lacks: one Python program runs in it, as its only user.

It has no disk, no network and no way out; its file system is a copy in memory, made of this machine's files at their own paths. The
processor is emulated (nested virtualisation is often there and broken), some ten times slower than the real one.
"""

import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.process import Child, LabError
from tests.lab.vm_files import kernel, pack, write_cpio

_MEMORY_MB: Final = 1000
_TOOLS: Final = ("busybox", "modprobe", "qemu-system-x86_64", "cpio", "depmod")
# Where the kernel and the C library look, whatever the path to the tools is: modules are loaded by /sbin/modprobe from /lib/modules.
_FIXED: Final = ("/bin/sh", "/sbin/modprobe", "/lib")
_STATUS: Final = "the program ended with status "

# Its own port for the program's words: the first one has the kernel's.
_INIT: Final = """\
#!{busybox} sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
for name in proc sys dev run tmp root etc var; do {busybox} mkdir -p /$name; done
{busybox} mount -t proc proc /proc
{busybox} mount -t sysfs sysfs /sys
{busybox} mount -t devtmpfs devtmpfs /dev
{busybox} chmod 1777 /tmp
{busybox} stty -F /dev/ttyS1 -opost
ip link set lo up
modprobe tun
cd {directory}
{command} >/dev/ttyS1 2>&1 </dev/null
echo "{status}$?" >/dev/ttyS1
{busybox} sync
echo o >/proc/sysrq-trigger
{busybox} sleep 60
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """What the machine has beside the interpreter: programs by name, Python packages (folders or files) and other folders."""

    programs: Sequence[str]
    packages: Sequence[Path]
    folders: Sequence[Path]


def run_module(guest: Guest, module: str, timeout_s: float) -> str:
    """What `python -m module`, started in this process's directory, said on both streams. `LabError` when it failed or took too long."""
    if platform.machine() != "x86_64":
        raise LabError("the lab's virtual machine is made for x86_64 alone")
    with tempfile.TemporaryDirectory(prefix="vm-") as name:
        directory = Path(name)
        _write_files(directory, guest, (sys.executable, "-m", module))
        return _boot(directory, timeout_s)


def _write_files(directory: Path, guest: Guest, command: Sequence[str]) -> None:
    tools = {name: shutil.which(name) for name in (*_TOOLS, *guest.programs)}
    missing = [name for name, path in tools.items() if path is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}")
    inside = [str(tools[name]) for name in ("busybox", "modprobe", *guest.programs)]
    pack(directory / "files.cpio", [*inside, *_FIXED], guest.packages, guest.folders)
    start = directory / "init"
    start.write_text(
        _INIT.format(busybox=tools["busybox"], directory=Path.cwd(), command=" ".join(command), status=_STATUS)
    )
    start.chmod(0o755)
    write_cpio(directory / "init.cpio", directory, ["/init"])


def _boot(directory: Path, timeout_s: float) -> str:
    system = kernel()
    with (directory / "initrd").open("wb") as whole:
        for archive in (directory / "files.cpio", system.modules, directory / "init.cpio"):
            with archive.open("rb") as part:
                shutil.copyfileobj(part, whole)
    said, console = directory / "said", directory / "console"
    machine = Child(
        (
            *(
                "qemu-system-x86_64",
                "-accel",
                "tcg",
                "-m",
                str(_MEMORY_MB),
                "-display",
                "none",
                "-nic",
                "none",
                "-no-reboot",
            ),
            *("-monitor", "none", "-serial", f"file:{console}", "-serial", f"file:{said}"),
            *("-kernel", str(system.image), "-initrd", str(directory / "initrd")),
            *("-append", "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off random.trust_cpu=on"),
        ),
        directory / "qemu.log",
    )
    try:
        machine.wait(timeout_s)
    finally:
        machine.kill()
    words = said.read_text(errors="replace") if said.exists() else ""
    output, ended, status = words.rpartition(_STATUS)
    if not ended or status.strip() != "0":
        raise LabError(f"in the virtual machine: {words[-3000:]}; console: {_end(console)}; {_end(machine.log)}")
    return output


def _end(path: Path) -> str:
    return path.read_text(errors="replace")[-1500:] if path.exists() else ""
