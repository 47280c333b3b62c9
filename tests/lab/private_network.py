"""A network namespace for the calling process alone, with a loopback of its own and no way out.

Ports, bridges, addresses and firewall rules of parallel test processes then cannot meet, and vanish with the process.
Knows nothing of what runs in it.
"""

import ctypes
import os
import threading
from collections.abc import Sequence

from tests.lab.process import LabError, run

_CLONE_NEWNET = 0x40000000
_entered_by: int | None = None
_way_out: int | None = None


def enter_private_network() -> None:
    """Move this process (threads that run already excepted) into a new network namespace. Fine twice.

    Call it from the main thread: that one stands for the process when a link is moved into its namespace.
    """
    global _entered_by, _way_out
    if _entered_by == os.getpid():
        return
    if threading.current_thread() is not threading.main_thread():
        raise LabError("a private network must be entered by the main thread")
    _way_out = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise LabError(f"no network namespace of one's own: {os.strerror(ctypes.get_errno())}; the lab needs root")
    run(("ip", "link", "set", "lo", "up"))
    _entered_by = os.getpid()


def outside(argv: Sequence[str]) -> tuple[str, ...]:
    """The command with the machine's own network: for what the lab gets from package sources, and nothing else."""
    if _entered_by != os.getpid() or _way_out is None:
        return tuple(argv)
    return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{_way_out}", "--", *argv)
