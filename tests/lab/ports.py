"""Free ports for components that must be told theirs: each is given out once on this machine. Knows nothing of who listens."""

import errno
import itertools
import socket
from collections.abc import Iterator

from tests.lab.lease import Lease
from tests.lab.process import LabError

# Below those that the kernel gives to connections (net.ipv4.ip_local_port_range, 32768 and up): one of these would be
# taken by any client between its choice and its listener. And below the host ports of containers, 30000 and up.
_FIRST = 20_000
_BLOCK = 100
_HIGHEST_BLOCK = 100

_block: Lease | None = None
_turn: Iterator[int] = iter(())


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port at `address` that nobody listens on, given to no other caller on this machine; not for several threads at once.

    A process holds a block of ports until it ends and gives them out in turn, so that one comes again only after all
    others of its block, and only when nobody listens on it any more.
    """
    for port in itertools.islice(_own_ports(), _BLOCK):
        if not _in_use(address, port):
            return port
    raise LabError(f"all {_BLOCK} ports of this process are in use at {address}")


def accepts(address: str, port: int) -> bool:
    """Whether a TCP connection to `address`:`port` is accepted within a second."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _own_ports() -> Iterator[int]:
    """The ports of this process, beginning after the one that was given out last, for ever."""
    global _block, _turn
    if _block is None:
        _block = Lease.take("ports", _HIGHEST_BLOCK)
        first = _FIRST + (_block.number - 1) * _BLOCK
        _turn = itertools.cycle(range(first, first + _BLOCK))
    return _turn


def _in_use(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this, a connection that has ended keeps its listener's port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False
