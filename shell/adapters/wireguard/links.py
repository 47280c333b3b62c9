"""What an interface needs around it: a link, an address, routes, and leave to forward between the mesh and the containers.

Routes of ours carry a protocol number of ours, and rules live in a chain of ours, so that nothing else is ever taken away.
"""

import errno
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import psutil

from core import routing_table
from shell.adapters.wireguard.failures import COMPONENT, failures
from shell.adapters.wireguard.netlink import IPRoute, NetlinkError
from shell.failure import AdapterError

ROUTE_PROTOCOL: Final = 84  # not in any table of routing daemons
CHAIN: Final = "TECHULUS-FORWARD"
INPUT_CHAIN: Final = "TECHULUS-INPUT"
_ROUTES: Final = Path("/proc/thread-self/net/route")
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_LIMIT_S: Final = 5.0
_MESH: Final = "10.100.0.0/16"
_CONTAINERS: Final = "10.200.0.0/16"
_PURPOSES: Final = {CHAIN: "mesh reach the containers", INPUT_CHAIN: "containers ask for names"}


class Links:
    """The surroundings of one interface. `address` is this server's in the mesh, `containers` its containers' network."""

    def __init__(self, interface: str, address: str, containers: str, mtu: int) -> None:
        self._interface = interface
        self._address = address
        self._containers = containers
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
        """Address, MTU, up."""
        with failures(f"set up {self._interface}"), IPRoute() as route:
            found = _link(route, self._interface)
            if found is None:
                raise AdapterError(COMPONENT, f"set up {self._interface}", "the interface is missing", "tried again")
            index = found["index"]
            route.addr("replace", index=index, address=self._address, prefixlen=32)
            route.link("set", index=index, mtu=self._mtu, state="up")

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

    def allow_forwarding(self) -> None:
        """Let packets pass between the mesh and this server's containers, in both directions; idempotent."""
        with failures("switch forwarding on"):
            if _FORWARDING.read_text().strip() != "1":
                _FORWARDING.write_text("1\n")
        for parent, (chain, rules) in self._chains().items():
            _iptables("-N", chain, quiet=True)
            for rule in rules:
                if not _iptables("-C", chain, *rule, quiet=True):
                    _iptables("-A", chain, *rule)
            if not _iptables("-C", parent, "-j", chain, quiet=True):
                _iptables("-I", parent, "1", "-j", chain)

    def forwarding_fault(self) -> str | None:
        """Why packets would not pass, None when they do; starts a few processes, so it is asked now and then only."""
        for parent, (chain, rules) in self._chains().items():
            wanted = ((parent, "-j", chain), *((chain, *rule) for rule in rules))
            if not all(_iptables("-C", *rule, quiet=True) for rule in wanted):
                return f"a firewall manager has removed a rule that lets the {_PURPOSES[chain]}"
        return None

    def forbid_forwarding(self) -> None:
        """Take our chains away."""
        for parent, (chain, _) in self._chains().items():
            _iptables("-D", parent, "-j", chain, quiet=True)
            _iptables("-F", chain, quiet=True)
            _iptables("-X", chain, quiet=True)

    def _chains(self) -> dict[str, tuple[str, tuple[tuple[str, ...], ...]]]:
        """Whose chain each of ours hangs in, and its rules."""
        return {"FORWARD": (CHAIN, tuple(self._rules())), "INPUT": (INPUT_CHAIN, tuple(self._name_rules()))}

    def _rules(self) -> Iterator[tuple[str, ...]]:
        """One network each: a rule that was given with a list of them is kept as several, and not found again by its list."""
        for network in (_MESH, _CONTAINERS):
            yield ("-i", self._interface, "-s", network, "-d", self._containers, "-j", "ACCEPT")
            yield ("-o", self._interface, "-s", self._containers, "-d", network, "-j", "ACCEPT")

    def _name_rules(self) -> Iterator[tuple[str, ...]]:
        """The containers ask this server for names, also where its firewall lets nothing in."""
        gateway = str(ip_network(self._containers)[1])
        for protocol in ("udp", "tcp"):
            yield ("-s", self._containers, "-d", gateway, "-p", protocol, "--dport", "53", "-j", "ACCEPT")


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


def _iptables(*arguments: str, quiet: bool = False) -> bool:
    """Run iptables; whether it succeeded. Raises AdapterError when it must and does not."""
    what = f"run iptables {' '.join(arguments)}"
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell; words of our own and a checked interface name
            ("iptables", "-w", "2", *arguments),  # noqa: S607 - found on the agent's PATH, as administrators expect
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise AdapterError(COMPONENT, what, "it is not installed", "install the package iptables") from error
    except OSError as error:  # no process, file or memory is free
        raise AdapterError(COMPONENT, what, error.strerror or str(error), "tried again") from error
    with child:
        try:
            said, _ = child.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise AdapterError(COMPONENT, what, f"not done after {_LIMIT_S:.0f} s", "tried again") from error
    if child.returncode != 0 and not quiet:
        raise AdapterError(COMPONENT, what, " ".join(said.decode(errors="replace").split())[:300], "tried again")
    return child.returncode == 0
