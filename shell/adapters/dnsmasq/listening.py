"""The addresses of this server on which dnsmasq can answer. Knows nothing of DNS."""

import fcntl
import socket
import struct
from array import array
from collections.abc import Iterator
from typing import Final

import psutil

from shell.adapters.dnsmasq import process

_LOOPBACK_INTERFACE = "lo"
_HOST_MASK = "255.255.255.255"
_LIMIT_S = 2.0
_SIOCGIFCONF: Final = 0x8912
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
# The name of an interface and, at the fifth byte of a union whose largest member is `struct ifmap`, its IPv4 address (netdevice(7)); the
# union has 24 bytes on a 64-bit machine and 16 on a 32-bit one.
_IFREQ: Final = struct.Struct(f"16s4x4s{struct.calcsize('LLHBBB0L') - 8}x")
_IFCONF: Final = struct.Struct("iP")
_FIRST_ROOM: Final = 32


def is_up(address: str) -> bool:
    """Whether an interface that is up has this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        return any(_flags(asker, nic) & _IFF_UP for nic, found in _with_address(asker) if found == address)


def _with_address(asker: socket.socket) -> Iterator[tuple[bytes, str]]:
    """The interfaces that have an IPv4 address, each with it. A container's has none on this side: asking for all would list every one."""
    room = _FIRST_ROOM * _IFREQ.size
    while True:
        buffer = array("B", bytes(room))
        answer = fcntl.ioctl(asker, _SIOCGIFCONF, _IFCONF.pack(room, buffer.buffer_info()[0]))
        filled: int = _IFCONF.unpack(answer)[0]
        if filled < room:  # else there may be more
            break
        room *= 2
    for name, address in _IFREQ.iter_unpack(buffer[:filled].tobytes()):
        yield name, socket.inet_ntoa(address)


def _flags(asker: socket.socket, nic: bytes) -> int:
    try:
        answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, nic.ljust(_IFREQ.size, b"\0"))
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
