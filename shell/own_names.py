"""This server's own host names and the domains of its network, as it knows them without asking anybody: a resolver may hang, or lie."""

import socket
from pathlib import Path
from typing import Final

import psutil

_HOSTS: Final = Path("/etc/hosts")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_LARGEST_BYTES: Final = 1024 * 1024


def find(hosts: Path = _HOSTS) -> frozenset[str]:
    """Its host name, and every name that its hosts file gives to one of its own addresses; lower case, no trailing dot."""
    own = {one.address.partition("%")[0] for found in psutil.net_if_addrs().values() for one in found}
    names = [socket.gethostname()]
    for line in _read(hosts).splitlines():
        address, *rest = line.partition("#")[0].split() or ("",)
        if address in own or address.startswith("127."):
            names += rest
    return frozenset(name.lower().removesuffix(".") for name in names)


def searched(resolv_conf: Path = _RESOLV_CONF) -> frozenset[str]:
    """The search domains of resolv.conf(5); lower case, no trailing dot."""
    lines = (line.split() for line in _read(resolv_conf).splitlines())
    words = (word for line in lines if line and line[0] in ("search", "domain") for word in line[1:])
    return frozenset(word.lower().removesuffix(".") for word in words)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BYTES).decode(errors="replace")
    except OSError:
        return ""
