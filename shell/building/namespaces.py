"""Namespaces and mounts, as the kernel has them: a thin layer over calls that Python 3.11 does not know. Raises OSError.

namespaces(7), mount(2), pivot_root(2), prctl(2). Imports nothing of the agent.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Final

NEWNS: Final = 0x0002_0000
NEWCGROUP: Final = 0x0200_0000
NEWUTS: Final = 0x0400_0000
NEWIPC: Final = 0x0800_0000
NEWUSER: Final = 0x1000_0000
NEWPID: Final = 0x2000_0000
NEWNET: Final = 0x4000_0000

READ_ONLY: Final = 1
NO_SUID: Final = 2
NO_DEVICES: Final = 4
NO_EXEC: Final = 8
_REMOUNT: Final = 32
_BIND: Final = 4096
_RECURSIVE: Final = 16384
_PRIVATE: Final = 1 << 18
_DETACH: Final = 2
_PARENT_DEATH_SIGNAL: Final = 1
_SET_FLAGS: Final = 0x8914
_UP: Final = 1
_DUMPABLE: Final = 4

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def leave(flags: int) -> None:
    """Go into new namespaces of these kinds."""
    _check(_LIBC.unshare(flags), "unshare")


def raise_loopback() -> None:
    """Bring up `lo` of this network namespace (netdevice(7)): IPv6 can be listened on only then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        fcntl.ioctl(way, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))


def mount(kind: str, target: str, flags: int = 0, data: str = "") -> None:
    """A new file system of this kind."""
    _mount(kind, target, kind, flags, data)


def bind(source: str, target: str, *, writable: bool = False) -> None:
    """A file or folder of the host at another place, with what is mounted below it.

    What is not writable has no devices and no set-user-id programs, either. What is keeps its flags: a container runtime in a user
    namespace cannot mount a part of it anew without them (runc 1.1: "operation not permitted"), and no id inside is anybody on the host.
    """
    _mount(source, target, "", _BIND | _RECURSIVE, "")
    if not writable:
        _mount("", target, "", _REMOUNT | _BIND | NO_SUID | NO_DEVICES | READ_ONLY, "")


def bind_device(path: str, target: str) -> None:
    """A device that works at the other place, too."""
    _mount(path, target, "", _BIND, "")


def keep_mounts_private() -> None:
    """What is mounted from here on is seen in this namespace only."""
    _mount("", "/", "", _RECURSIVE | _PRIVATE, "")


def enter_root(root: str) -> None:
    """Make a mounted folder the root, and let go of what was; it has an empty folder `old`."""
    os.chdir(root)
    _check(_LIBC.pivot_root(b".", b"old"), "pivot_root")
    os.chdir("/")
    _check(_LIBC.umount2(b"/old", _DETACH), "umount /old")
    Path("/old").rmdir()


def end_with_parent() -> None:
    """Be killed when the parent ends. Every change of user clears it."""
    _check(_LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), "prctl")


def be_closed() -> None:
    """Let nobody look into this process by way of `/proc`, not even its namespace's root."""
    _check(_LIBC.prctl(_DUMPABLE, 0, 0, 0, 0), "prctl")


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    words = [text.encode() or None for text in (source, target, kind)]
    _check(_LIBC.mount(*words, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
