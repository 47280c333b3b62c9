"""The addresses of this server on which dnsmasq can answer. Knows nothing of DNS."""

import psutil

from shell.adapters.dnsmasq import process

_LOOPBACK_INTERFACE = "lo"
_HOST_MASK = "255.255.255.255"
_LIMIT_S = 2.0


def is_up(address: str) -> bool:
    """Whether an interface that is up has this address."""
    holders = [nic for nic, found in psutil.net_if_addrs().items() if any(one.address == address for one in found)]
    states = psutil.net_if_stats() if holders else {}
    return any(nic in states and states[nic].isup for nic in holders)


def assign(address: str) -> None:
    """Give the loopback interface this address. Fine when it has it.

    All of 127.0.0.0/8 is answered without it, but with `bind-dynamic` dnsmasq then closes every TCP connection, for want of an interface
    that it may be coming from; and an answer that does not fit in a datagram comes over TCP.
    """
    if not is_up(address):
        _address("replace", address)


def release(address: str) -> None:
    """Take back what `assign` gave, and nothing else."""
    found = psutil.net_if_addrs().get(_LOOPBACK_INTERFACE, [])
    if any(one.address == address and one.netmask == _HOST_MASK for one in found):
        _address("delete", address)


def _address(verb: str, address: str) -> None:
    command = ("ip", "address", verb, f"{address}/32", "dev", _LOOPBACK_INTERFACE)
    process.run(command, f"{verb} the address {address}", _LIMIT_S)
