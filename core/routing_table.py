"""The kernel's table of IPv4 routes as it is shown in `/proc/net/route`: which networks go out through which interface.

One read and a line for each route, where netlink's answer costs fifty times as much to take apart. It does not say who made a route.
"""

from ipaddress import IPv4Address, IPv4Network
from typing import Final

_COLUMNS: Final = 8  # Iface Destination Gateway Flags RefCnt Use Metric Mask; what follows is of no interest
_UP: Final = 1


def parse(text: str, interface: str) -> frozenset[str]:
    """The networks in CIDR form whose routes through this interface are up; lines that make no sense are left out."""
    found = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < _COLUMNS or fields[0] != interface:
            continue
        try:
            if int(fields[3], 16) & _UP:
                found.add(str(IPv4Network((_address(fields[1]), str(_address(fields[7]))))))
        except ValueError:
            continue
    return frozenset(found)


def _address(field: str) -> IPv4Address:
    """Eight hex digits in the byte order of this machine, which is little endian wherever the agent runs."""
    return IPv4Address(bytes.fromhex(field)[::-1])
