"""A network namespace for the calling process alone, with a loopback of its own and no way out.

Ports, bridges, addresses and firewall rules of parallel test processes then cannot meet, and vanish with the process.
Knows nothing of what runs in it.
"""

import ctypes
import os
import threading

from tests.lab.process import LabError, run

_CLONE_NEWNET = 0x40000000
_entered_by: int | None = None


def enter_private_network() -> None:
    """Move this process (threads that run already excepted) into a new network namespace. Fine twice.

    Call it from the main thread: that one stands for the process when a link is moved into its namespace.
    """
    global _entered_by
    if _entered_by == os.getpid():
        return
    if threading.current_thread() is not threading.main_thread():
        raise LabError("a private network must be entered by the main thread")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise LabError(f"no network namespace of one's own: {os.strerror(ctypes.get_errno())}; the lab needs root")
    run(("ip", "link", "set", "lo", "up"))
    _entered_by = os.getpid()
