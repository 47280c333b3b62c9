"""The addresses of this server on which dnsmasq can answer. Knows nothing of DNS."""

import fcntl
import socket
import struct
from typing import Final

import psutil

from shell.adapters.dnsmasq import process

_LOOPBACK_INTERFACE = "lo"
_HOST_MASK = "255.255.255.255"
_LIMIT_S = 2.0
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
_IFREQ_BYTES: Final = 40


def is_up(address: str) -> bool:
    """Whether an interface that is up has this address."""
    holders = (nic for nic, found in psutil.net_if_addrs().items() if any(one.address == address for one in found))
    return any(_flags(nic) & _IFF_UP for nic in holders)


def _flags(nic: str) -> int:
    """Of this interface alone: psutil would ask each of the server's for all that can be asked (netdevice(7))."""
    request = struct.pack("16sH", nic.encode(), 0).ljust(_IFREQ_BYTES, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, request)
        except OSError:  # it has just gone
            return 0
    flags: int = struct.unpack_from("H", answer, 16)[0]
    return flags


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
