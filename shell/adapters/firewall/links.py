"""What the links of this server are called: the containers' bridge, and the one to the outside."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import psutil

from core import address

_ROUTES: Final = Path("/proc/thread-self/net/route")


def indexes() -> dict[str, int]:
    """The kernel's number of each link, by name."""
    return {name: number for number, name in socket.if_nameindex()}


def bridge(gateway: str) -> str | None:
    """The link with the address of the containers' gateway; None while no container runs."""
    return next((name for name, found in _addresses() if str(found) == gateway), None)


def outside() -> str | None:
    """The link that the default route leaves by; without one, the first that has an address of neither the mesh nor the containers."""
    rows = [line.split() for line in _ROUTES.read_text().splitlines()[1:]]
    found = [row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    return next(iter(found), None) or next((name for name, one in _addresses() if _is_outside(one)), None)


def _addresses() -> Iterator[tuple[str, IPv4Address]]:
    for name, found in sorted(psutil.net_if_addrs().items()):
        yield from ((name, IPv4Address(one.address)) for one in found if one.family == socket.AF_INET)


def _is_outside(found: IPv4Address) -> bool:
    return not found.is_loopback and not any(found in one for one in (address.MESH_NETWORK, address.CONTAINER_NETWORK))
