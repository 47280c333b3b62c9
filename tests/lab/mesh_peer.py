"""A server of the mesh that has nothing but its end of the tunnels: it registers, and learns its peers as an agent would.

It is in this process's network. What goes through its tunnels is the test's.
"""

import base64
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from core import signing
from shell.adapters.wireguard.userspace import listens
from tests.lab.agent import Plane
from tests.lab.lease import Group, Lease
from tests.lab.process import Child, run
from tests.lab.wait import PATIENCE_S, wait_for

PORT: Final = 51_820
_HIGHEST: Final = 9


class MeshPeer:
    """Registered and reachable at `public_ip` while it is entered."""

    def __init__(self, plane: Plane, folder: Path, subnet_id: int, public_ip: str) -> None:
        self._plane, self._folder, self._subnet_id, self._public_ip = plane, folder, subnet_id, public_ip
        self._key, self._signing_key = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self._lease = Lease.take("mesh-peers", _HIGHEST)
        self._interface = f"lab-peer{self._lease.number}"
        self._server_id = ""
        self._device: Child | None = None

    def learn(self) -> None:
        """Accept the peers that the control plane names now. They have to speak first."""
        headers = signing.headers(self._server_id, self._signing_key.private_bytes_raw(), int(time.time() * 1000))
        answer = httpx.get(f"{self._plane.url}/api/v1/agent/expected-state", headers=headers, timeout=PATIENCE_S)
        answer.raise_for_status()
        for peer in answer.json()["wireguard"]["peers"]:
            networks = peer["allowedIps"]
            run(("wg", "set", self._interface, "peer", peer["publicKey"], "allowed-ips", networks))
            for network in networks.split(","):
                run(("ip", "route", "replace", network, "dev", self._interface))

    def __enter__(self) -> Self:
        self._register()
        try:
            self._bring_up()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._device is not None:
            self._device.kill()
        self._lease.release()

    def _register(self) -> None:
        public, verifying = (
            base64.b64encode(one.public_key().public_bytes_raw()).decode() for one in (self._key, self._signing_key)
        )
        keys = {"wireguardPublicKey": public, "signingPublicKey": verifying, "publicIp": self._public_ip}
        token = self._plane.token(self._interface, self._subnet_id)
        answer = httpx.post(
            f"{self._plane.url}/api/v1/agent/register",
            json={"token": token, "isProxy": False, **keys},
            timeout=PATIENCE_S,
        )
        answer.raise_for_status()
        self._server_id = answer.json()["serverId"]

    def _bring_up(self) -> None:
        environment = {**os.environ, "WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        log = self._folder / f"{self._interface}.log"
        socket = Path("/var/run/wireguard") / f"{self._interface}.sock"
        socket.unlink(missing_ok=True)  # of one that was killed; the name is this lease's
        self._device = device = Child(("wireguard-go", "-f", self._interface), log, environment)
        self._lease.remember(Group(device.identity))
        wait_for(
            lambda: listens(self._interface) or not device.running(),
            PATIENCE_S,
            f"{self._interface}; {device.last_words()}",
        )
        key = self._folder / f"{self._interface}.key"
        key.write_text(base64.b64encode(self._key.private_bytes_raw()).decode())
        run(("wg", "set", self._interface, "listen-port", str(PORT), "private-key", str(key)))
        run(("ip", "address", "add", f"10.100.{self._subnet_id}.1/32", "dev", self._interface))
        run(("ip", "link", "set", self._interface, "mtu", "1420", "up"))
