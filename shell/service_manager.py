"""The service manager's side of a daemon (sd_notify(3)): readiness, state in words, and the watchdog. Without systemd nothing is said.

A datagram of a few lines to a socket; the libraries for it are untyped or bring all of systemd with them.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

_LONGEST_STATUS = 500
_PATIENCE_S = 0.2


class ServiceManager:
    """Whoever started this process, as the environment tells."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        own = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        microseconds = environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(microseconds) / 1e6 if own and microseconds.isdecimal() and self._address else None

    @property
    def is_there(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Everything that was to come up has."""
        self._tell("READY=1")

    def starting(self, seconds: float) -> None:
        """It is not ready, and that is no reason to end it for so long."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """What goes on, on one line."""
        self._tell(f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}")

    def alive(self) -> None:
        """The loops move."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_PATIENCE_S)  # a queue that is full must not hold the agent up
            sender.connect(address)
            sender.send("\n".join(lines).encode())


def of_this_process() -> ServiceManager:
    """The one that started this very process."""
    return ServiceManager(os.environ, os.getpid())
