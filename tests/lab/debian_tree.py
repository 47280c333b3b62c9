"""Debian as a folder: a clean one, and one on which the installer has put the packages that a server needs.

Both are made once on a machine, from its own package sources, and kept. Nothing is changed in them: `Overlay` is a copy that costs
nothing, in which commands run as in a server that has not been started. Knows nothing of agents.
"""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.lab.lease import shared_directory
from tests.lab.private_network import outside
from tests.lab.process import LabError, run

ROOT: Final = Path(__file__).parents[2]
_SUITE: Final = "bookworm"
_CLEAN: Final = ("systemd", "systemd-sysv", "dbus", "iproute2", "python3", "python3-venv", "ca-certificates", "procps")
# runc: the only runtime for a container in a container with control groups of both versions; openssl and curl: to look with.
_EXTRA: Final = ("runc", "openssl", "curl")
_INSTALLER: Final = ("install.sh", "common.sh")
_MAKE_S: Final = 1800

# $1 folder (lower, upper, work, merged), then the command. The mounts end with the namespace.
_ENTER: Final = """\
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
mount -t proc proc "$2/merged/proc"
mount -t tmpfs tmpfs "$2/merged/tmp"
mount --bind /dev "$2/merged/dev"
[ -z "$3" ] || { mkdir -p "$2/merged/mnt"; mount --bind "$3" "$2/merged/mnt"; }
merged=$2/merged
shift 3
exec chroot "$merged" "$@"
"""


def clean() -> Path:
    """A Debian with systemd and Python, and nothing that an agent drives."""
    return _made("clean", _make_clean, repr(_CLEAN).encode())


def server() -> Path:
    """The same after `install.sh --packages` for a proxy."""
    scripts = b"".join((ROOT / "deploy" / name).read_bytes() for name in _INSTALLER)
    return _made("server", _make_server, scripts + repr((_CLEAN, _EXTRA)).encode())


class Overlay:
    """A copy of a tree in `directory`; what commands change stays in it. `mnt` is seen inside as /mnt."""

    def __init__(self, tree: Path, directory: Path, mnt: Path | None = None) -> None:
        self._tree, self._directory, self._mnt = tree, directory, mnt
        for name in ("upper", "work", "merged"):
            (directory / name).mkdir(parents=True, exist_ok=True)

    @property
    def upper(self) -> Path:
        """What differs from the tree."""
        return self._directory / "upper"

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """What a command in the copy wrote on both streams; `LabError` with it when the command fails."""
        status, said = self.ask(*argv, env=env)
        if status != 0:
            raise LabError(f"{' '.join(argv)!r} ended with status {status}: {said[-3000:]}")
        return said

    def ask(self, *argv: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Its exit status, and what it wrote on both streams."""
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            **(env or {}),
        }
        words = ("env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv)
        inside = ("sh", "-c", 'exec "$@" 2>&1', "sh", *words)
        given = (str(self._tree), str(self._directory), str(self._mnt or ""))
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")
        done = subprocess.run(
            (*namespaces, "sh", "-c", _ENTER, "sh", *given, *inside),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_MAKE_S,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def export(self, target: Path) -> None:
        """The whole copy as a folder of its own."""
        lower, upper = str(self._tree), str(self._directory)
        mount = 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged" && cp -a "$2/merged" "$3"'
        run(
            ("unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh", lower, upper, str(target)),
            timeout_s=_MAKE_S,
        )


def _made(name: str, make: Callable[[Path], None], key: bytes) -> Path:
    folder = shared_directory() / "debian"
    folder.mkdir(exist_ok=True)
    tree = folder / f"{name}-{hashlib.sha256(key).hexdigest()[:12]}"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            for old in folder.glob(f"{name}-*"):
                shutil.rmtree(old)
            unfinished = folder / f"{name}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(tree)
    return tree


def _make_clean(tree: Path) -> None:
    run(
        outside(
            (
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io"),
                *('--aptopt=Acquire::Languages "none"', f"--include={','.join(_CLEAN)}", _SUITE, str(tree), _mirror()),
            )
        ),
        timeout_s=_MAKE_S,
    )


def _make_server(tree: Path) -> None:
    made_from = clean()
    run(("cp", "-a", "--reflink=auto", str(made_from), str(tree)), timeout_s=_MAKE_S)
    (tree / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    (tree / "root/deploy").mkdir()
    for name in _INSTALLER:
        shutil.copy(ROOT / "deploy" / name, tree / "root/deploy")
    install = (
        "/root/deploy/install.sh --packages"
        f" && apt-get -q -y install --no-install-recommends {' '.join(_EXTRA)} && apt-get clean && rm -r /root/deploy"
    )
    chroot = 'mount -t proc proc "$1/proc" && exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin IS_PROXY=true sh -ec "$2"'
    enter = ("unshare", "--mount", "--propagation=private", "sh", "-c", chroot, "sh", str(tree), install)
    run(outside(enter), timeout_s=_MAKE_S)


def _mirror() -> str:
    """Where this machine gets Debian from."""
    for file in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
            words = line.split()
            if words[:1] in (["deb"], ["URIs:"]) and len(words) > 1 and words[1].startswith("http"):
                return words[1]
    raise LabError("this machine's package sources name no mirror of Debian")
