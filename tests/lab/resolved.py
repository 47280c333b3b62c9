"""A systemd-resolved of one's own on a cloud's server: the real program in a mount namespace, with a link whose resolver is the cloud's.

The program is Debian's, got once from this machine's package sources; it needs no systemd and no D-Bus for what is asked over its stub.
What `systemctl` would do with it is done by `restart`. Knows nothing of agents. The caller is in a network namespace of its own.
"""

import fcntl
import re
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.lease import shared_directory
from tests.lab.private_network import outside
from tests.lab.process import Child, LabError, run
from tests.lab.wait import PATIENCE_S, wait_for

STUB: Final = "127.0.0.53"
_PACKAGE: Final = "systemd-resolved"
_USER: Final = "systemd-resolve:x:987:987::/:/usr/sbin/nologin\n"
_GROUP: Final = "systemd-resolve:x:987:\n"

# $1 folder with passwd, group, drop-ins (resolved.conf.d) and what is seen of /run/systemd/resolve, $2 the link's number, $3 its resolver,
# $4 the program
_START: Final = """\
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d /run/systemd/netif/links
mount --bind "$1/resolve" /run/systemd/resolve
mount --bind "$1/resolved.conf.d" /run/systemd/resolved.conf.d
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
# Servers in this machine's own file would count for more than the link's; on a server it is resolved's own, which it leaves out.
mount --bind /dev/null /etc/resolv.conf
chown 987:987 /run/systemd/resolve
printf 'ADMIN_STATE=configured\\nOPER_STATE=routable\\nDNS=%s\\n' "$3" >"/run/systemd/netif/links/$2"
exec "$4"
"""


class SystemdResolved:
    """Runs while it is entered, and answers at `STUB`. `link` is an interface of this network, `resolver` what its DHCP would have told.

    `directory` and `drop_ins` are its /run/systemd/resolve and /run/systemd/resolved.conf.d, as seen from outside.
    """

    def __init__(self, folder: Path, link: str, resolver: str) -> None:
        self.directory, self.drop_ins = folder / "resolve", folder / "resolved.conf.d"
        for one in (self.directory, self.drop_ins):
            one.mkdir(parents=True)
        (folder / "passwd").write_text(Path("/etc/passwd").read_text() + _USER)
        (folder / "group").write_text(Path("/etc/group").read_text() + _GROUP)
        self._folder, self._resolver = folder, resolver
        (self._number,) = re.findall(r"^(\d+):", run(("ip", "-o", "link", "show", link)))
        self._child: Child | None = None
        self.starts = 0

    @property
    def log(self) -> str:
        """What it has written."""
        return (self._folder / "resolved.log").read_text(errors="replace")

    def restart(self) -> None:
        """As systemd would; returns when it listens."""
        self.stop()
        script = ("sh", "-c", _START, "sh", str(self._folder), self._number, self._resolver, str(_program()))
        child = Child(
            ("unshare", "--mount", "--propagation=private", *script),
            self._folder / "resolved.log",
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self._child = child
        self.starts += 1
        wait_for(lambda: self._is_up() or not child.running(), PATIENCE_S, "systemd-resolved to know its link")
        if not child.running():
            raise LabError(f"systemd-resolved did not start: {child.last_words()}")

    def _is_up(self) -> bool:
        known = self.directory / "resolv.conf"
        return f"{STUB}%lo:53" in run(("ss", "-lunH")) and known.exists() and self._resolver in known.read_text()

    def stop(self) -> None:
        """End it. Fine when it does not run."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()


def _program() -> Path:
    folder = shared_directory() / "resolved"
    folder.mkdir(exist_ok=True)
    program = folder / "tree/lib/systemd/systemd-resolved"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            get = f"cd '{folder}' && apt-get -q -o APT::Sandbox::User=root download {_PACKAGE}"
            run(outside(("sh", "-c", get)), timeout_s=300)
            (package,) = folder.glob("*.deb")
            run(("dpkg-deb", "-x", str(package), str(folder / "new")))
            (folder / "new").rename(folder / "tree")
    return program
