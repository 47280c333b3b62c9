"""Free ports for components that must be told theirs. Knows nothing of who listens."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port at `address` that nobody listens on now; the kernel hands them out in turn, so that two callers differ.

    Another process may still take it before its user does: whoever starts a listener checks that it is its own.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(address: str, port: int) -> bool:
    """Whether a TCP connection to `address`:`port` is accepted within a second."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
