"""What an interface needs around it: a link, an address, routes, and a kernel that forwards.

Routes of ours carry a protocol number of ours, so that nothing else is ever taken away.
"""

import errno
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import psutil

from core import routing_table
from shell.adapters.wireguard.failures import COMPONENT, failures
from shell.adapters.wireguard.netlink import IPRoute, NetlinkError
from shell.failure import AdapterError

ROUTE_PROTOCOL: Final = 84  # not in any table of routing daemons
_ROUTES: Final = Path("/proc/thread-self/net/route")
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")


class Links:
    """The surroundings of one interface. `address` is this server's in the mesh."""

    def __init__(self, interface: str, address: str, mtu: int) -> None:
        self._interface = interface
        self._address = address
        self._mtu = mtu

    def kind(self) -> str | None:
        """The kind of the link (`wireguard`, `tun`, …), None when there is no such link."""
        with failures(f"look at {self._interface}"), IPRoute() as route:
            found = _link(route, self._interface)
            if found is None:
                return None
            information = found.get_attr("IFLA_LINKINFO")
            return str(information.get_attr("IFLA_INFO_KIND")) if information else "unknown"

    def add_kernel_link(self) -> bool:
        """Make a link of the kernel's WireGuard; False when the kernel has none."""
        with failures(f"make {self._interface}"), IPRoute() as route:
            try:
                route.link("add", ifname=self._interface, kind="wireguard")
            except NetlinkError as error:
                if error.code in (errno.EOPNOTSUPP, errno.ENODEV, errno.ENOENT):
                    return False
                raise
        return True

    def remove_link(self) -> None:
        """Take the link away; fine when there is none."""
        with failures(f"remove {self._interface}"), IPRoute() as route:
            found = _link(route, self._interface)
            if found is not None:
                route.link("del", index=found["index"])

    def fault(self, networks: Iterable[str]) -> str | None:
        """What is missing around the interface, in words; None when all is there."""
        with failures(f"look at {self._interface}"), IPRoute() as route:
            found = _link(route, self._interface)
            if found is None:
                return "the interface is missing"
            if not found["flags"] & 1:  # IFF_UP
                return "the interface is down"
            if found.get_attr("IFLA_MTU") != self._mtu:
                return f"its MTU is {found.get_attr('IFLA_MTU')}, expected {self._mtu}"
            if self._address not in _addresses(self._interface):
                return f"it lacks the address {self._address}"
            missing = set(networks) - routing_table.parse(_ROUTES.read_text(), self._interface)
            if missing:
                return f"there is no route to {min(missing)}"
            if _FORWARDING.read_text().strip() != "1":
                return "forwarding is off"
        return None

    def set_up(self) -> None:
        """Address, MTU, up; and a kernel that forwards between it and the containers."""
        with failures(f"set up {self._interface}"), IPRoute() as route:
            found = _link(route, self._interface)
            if found is None:
                raise AdapterError(COMPONENT, f"set up {self._interface}", "the interface is missing", "tried again")
            index = found["index"]
            route.addr("replace", index=index, address=self._address, prefixlen=32)
            route.link("set", index=index, mtu=self._mtu, state="up")
            if _FORWARDING.read_text().strip() != "1":
                _FORWARDING.write_text("1\n")

    def set_routes(self, networks: Iterable[str]) -> None:
        """Exactly these networks through the interface, among the routes of ours."""
        wanted = set(networks)
        with failures(f"set routes of {self._interface}"), IPRoute() as route:
            found = _link(route, self._interface)
            if found is None:
                return
            there = _routes(route, found["index"])
            for network in sorted(wanted - there.keys()):
                route.route("replace", dst=network, oif=found["index"], proto=ROUTE_PROTOCOL, prefsrc=self._address)
            for network in sorted(there.keys() - wanted):
                _delete_route(route, network, found["index"])


def _delete_route(route: IPRoute, network: str, index: int) -> None:
    """Fine when somebody else has just done it."""
    try:
        route.route("del", dst=network, oif=index, proto=ROUTE_PROTOCOL)
    except NetlinkError as error:
        if error.code != errno.ESRCH:
            raise


def _link(route: IPRoute, interface: str) -> Any | None:
    """The one link, without a list of all (a server has one for each of its containers)."""
    try:
        return next(iter(route.link("get", ifname=interface)))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def _addresses(interface: str) -> set[str]:
    return {one.address for one in psutil.net_if_addrs().get(interface, ())}


def _routes(route: IPRoute, index: int) -> dict[str, Any]:
    found = {}
    for one in route.get_routes(oif=index):
        destination = one.get_attr("RTA_DST")
        if one["proto"] == ROUTE_PROTOCOL and destination is not None:
            found[str(ip_network(f"{destination}/{one['dst_len']}"))] = one
    return found
