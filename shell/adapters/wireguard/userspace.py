"""The userspace WireGuard, over its socket. Its process is found, started and ended in `process`."""

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from core import wireguard_uapi as uapi
from core.wireguard import Peer
from core.wireguard_uapi import Device
from shell.adapters.wireguard.failures import COMPONENT, failures
from shell.failure import understood

SOCKETS: Final = Path("/var/run/wireguard")
_LIMIT_S: Final = 3.0
_LARGEST: Final = 4 * 1024**2


def listens(interface: str) -> bool:
    """Whether a wireguard-go takes connections for this interface. Its socket is there a moment before, and wg(8) would remove that."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_LIMIT_S)
        connection.connect(str(SOCKETS / f"{interface}.sock"))
        return True
    return False


class Userspace:
    """One interface that `wireguard-go` serves."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._path = SOCKETS / f"{interface}.sock"

    def read(self) -> Device:
        """What the interface has now."""
        what = f"read {self._interface}"
        found = uapi.parse_device(self._ask(what, uapi.GET))
        return understood(found, COMPONENT, what)

    def configure(self, private_key: bytes, listen_port: int) -> None:
        """Give the interface its key and port."""
        self._tell(f"configure {self._interface}", uapi.render_interface(private_key, listen_port))

    def change(self, upsert: Iterable[Peer], remove: Iterable[str]) -> None:
        """Remove and set these peers, and touch no other."""
        self._tell(f"set peers of {self._interface}", uapi.render_peers(upsert, remove))

    def _tell(self, what: str, request: str) -> None:
        understood(uapi.parse_errno(self._ask(what, request)), COMPONENT, what, "what it has now is read again")

    def _ask(self, what: str, request: str) -> str:
        with failures(what), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_LIMIT_S)
            connection.connect(str(self._path))
            connection.sendall(request.encode("ascii"))
            answer = b""
            while not answer.endswith(b"\n\n") and len(answer) < _LARGEST:
                part = connection.recv(65_536)
                if not part:
                    break
                answer += part
        return answer.decode("ascii", errors="replace")
