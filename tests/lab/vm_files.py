"""What a virtual machine starts from: a kernel of Debian's, and this machine's own files packed as its first file system.

The files keep their paths, so that the interpreter that runs here runs there. Decides what belongs to a program (links on the way to it,
the libraries that it needs); knows nothing of the machine's devices.
"""

import fcntl
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.lease import shared_directory
from tests.lab.private_network import outside
from tests.lab.process import LabError, run

_DOWNLOAD_S: Final = 900
_PACKAGE: Final = "linux-image-cloud-amd64"
# Of the kernel's modules: networks and what they are made of. All of them would be three times as much to unpack at every start.
_MODULES: Final = (
    "net",
    "drivers/net/wireguard",
    "drivers/net/dummy.ko",
    "drivers/net/veth.ko",
    "drivers/net/tun.ko",
    "crypto",
    "arch",
    "lib",
)
_NEVER: Final = frozenset(
    {"site-packages", "test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip", "turtledemo"}
)
_LIBRARY: Final = re.compile(r"(/\S+) \(0x")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's image, the modules for networks as a cpio archive, and all modules as a folder for /lib/modules."""

    image: Path
    modules: Path
    all_modules: Path


def kernel() -> Kernel:
    """Debian's kernel for virtual machines, got from this machine's package sources at the first call and kept."""
    folder = shared_directory() / "vm"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = folder / "ready-2"
        if not ready.exists():
            _get_kernel(folder)
            ready.touch()
    return Kernel(folder / "vmlinuz", folder / "modules.cpio", folder / "modules")


def pack(archive: Path, programs: Iterable[str], packages: Iterable[Path], folders: Iterable[Path]) -> None:
    """An archive with these programs (paths), this interpreter with these packages, these folders, and the libraries of all of them."""
    entries: set[str] = set()
    for program in programs:
        _add(entries, Path(program))
    for path in (Path(sys.executable), *_standard_library(), *packages, *folders):
        for file in _below(path):
            _add(entries, file)
    environment = Path(sys.prefix) / "pyvenv.cfg"
    if environment.exists():
        _add(entries, environment)
    for library in _libraries(entries):
        _add(entries, library)
    write_cpio(archive, Path("/"), sorted(entries))


def write_cpio(archive: Path, root: Path, entries: Iterable[str]) -> None:
    """An archive that the kernel takes as its first file system, of paths below `root` in an order with parents first."""
    text = "".join(f".{entry}\n" for entry in entries)
    with archive.open("wb") as output:
        done = subprocess.run(
            ("cpio", "--quiet", "-o", "-H", "newc"),
            cwd=root,
            input=text.encode(),
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    if done.returncode != 0:
        raise LabError(f"cpio made no archive: {done.stderr.decode(errors='replace')[-1000:]}")


def _get_kernel(folder: Path) -> None:
    names = re.findall(r"Depends: (linux-image-\S+)", run(("apt-cache", "depends", _PACKAGE)))
    if not names:
        raise LabError(f"the package lists know no {_PACKAGE}; run apt-get update")
    tree = folder / "tree"
    run(("rm", "-rf", str(tree)))
    tree.mkdir()
    get = f"cd '{tree}' && apt-get -q -o APT::Sandbox::User=root download {names[0]}"
    run(outside(("sh", "-c", get)), timeout_s=_DOWNLOAD_S)
    (package,) = tree.glob("*.deb")
    run(("dpkg-deb", "-x", str(package), str(tree / "usr")), timeout_s=60)
    (image,) = (tree / "usr" / "boot").glob("vmlinuz-*")
    (modules,) = (tree / "usr" / "lib" / "modules").iterdir()
    # Where Debian's own tools look: /lib is a link to /usr/lib.
    run(("depmod", "-b", str(tree / "usr"), modules.name))
    run(("sh", "-c", f"rm -rf '{folder}/modules' && cp -a '{tree}/usr/lib/modules' '{folder}/modules'"))
    run(("sh", "-c", f"cd '{modules}/kernel' && mkdir ../kept && cp -a --parents {' '.join(_MODULES)} ../kept/"))
    run(("sh", "-c", f"cd '{modules}' && rm -r kernel && mv kept kernel"))
    run(("depmod", "-b", str(tree / "usr"), modules.name))
    entries = ["/usr", *(f"/{path.relative_to(tree)}" for path in _tree(tree / "usr" / "lib"))]
    write_cpio(folder / "modules.cpio", tree, entries)
    image.rename(folder / "vmlinuz")
    run(("rm", "-rf", str(tree)))


def _tree(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.rglob("*"))]


def _standard_library() -> tuple[Path, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    return tuple(path for path in folder.iterdir() if path.name not in _NEVER)


def _below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        for folder, names, files in os.walk(path):
            names[:] = [name for name in names if name not in _NEVER]
            yield Path(folder)
            for name in files:
                yield Path(folder, name)


def _add(entries: set[str], path: Path) -> None:
    """The path with all folders and links that lead to it."""
    reached = Path("/")
    parts = list(Path(path).parts[1:])
    while parts:
        step = reached / parts.pop(0)
        entries.add(str(step))
        if step.is_symlink():
            target = Path(os.path.normpath(reached / step.readlink()))
            parts = [*target.parts[1:], *parts]
            reached = Path("/")
        else:
            reached = step


def _libraries(entries: Iterable[str]) -> set[Path]:
    """The shared libraries and the loader that programs and libraries among these files need."""
    files = [entry for entry in entries if _is_elf(Path(entry))]
    done = subprocess.run(("ldd", *files), capture_output=True, timeout=60, check=False)  # it fails on a static program
    return {Path(found) for found in _LIBRARY.findall(done.stdout.decode(errors="replace"))}


def _is_elf(path: Path) -> bool:
    if not path.is_file() or (path.suffix and ".so" not in path.name):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
