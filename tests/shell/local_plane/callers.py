"""A control plane on a temporary folder with a clock of the test's choice, and servers that register with it and sign their calls."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shell.local_plane.app import create_app
from shell.local_plane.plane import Plane
from shell.local_plane.serving import new_token
from tests.shell.local_plane.asking import Asking

BASE = "/api/v1/agent"


class Cluster:
    """The control plane of one folder."""

    def __init__(self, folder: Path, now_ms: int = 1_767_500_000_000) -> None:
        self.folder = folder
        self.now_ms = now_ms
        self.restart()

    def restart(self) -> None:
        """Start anew from what is in the folder."""
        app = create_app(self.folder, clock=lambda: self.now_ms)
        self.plane: Plane = app.state.plane
        self.asking = Asking(app)

    def want(self, services: Mapping[str, Any] | str, name: str = "services.yaml", **settings: str) -> None:
        """Save the services' file: as given if it is text."""
        text = services if isinstance(services, str) else yaml.safe_dump({"services": dict(services), **settings})
        (self.folder / name).write_text(text)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One of the lab's lists."""
        found: list[dict[str, Any]] = self.asking.get(f"/lab/{name}").json()[name]
        return found

    def statuses(self, service: str = "web") -> list[tuple[str, str]]:
        """Server and status of each deployment of a service."""
        return [(row["server"], row["status"]) for row in self.rows("deployments") if row["service"] == service]

    def click(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Something that a user would ask for."""
        answer = self.asking.post(f"/lab/{path}", body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def problems(self) -> list[str]:
        """What is wrong with the files."""
        found: list[str] = self.asking.get("/lab/problems").json()["problems"]
        return found

    def server(self, name: str, **more: Any) -> "Caller":
        """A new server, registered."""
        caller = Caller(self, name)
        answer = caller.register(new_token(self.folder, name), **more)
        assert answer.status_code == 200, answer.text
        caller.id = answer.json()["serverId"]
        return caller


@dataclass
class Caller:
    """A server's agent: knows its key, signs, and reports what it is told to report."""

    cluster: Cluster
    name: str
    id: str = ""
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def register(self, token: str, **more: Any) -> httpx.Response:
        """Use a token."""
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        keys = {"wireguardPublicKey": f"wg-{self.name}", "signingPublicKey": base64.b64encode(raw).decode()}
        return self.cluster.asking.post(f"{BASE}/register", {"token": token, **keys, **more})

    def headers(self, body: bytes = b"", stamp: str | None = None) -> dict[str, str]:
        """The three headers that sign a call."""
        stamp = stamp or str(self.cluster.now_ms)
        signature = self.key.sign(stamp.encode() + b":" + body)
        encoded = base64.b64encode(signature).decode()
        return {"x-server-id": self.id, "x-timestamp": stamp, "x-signature": encoded}

    def get(self, path: str) -> Any:
        """The answer to a signed GET."""
        answer = self.cluster.asking.request("GET", f"{BASE}/{path}", self.headers())
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """A signed POST."""
        raw = json.dumps(body).encode()
        return self.cluster.asking.request("POST", f"{BASE}/{path}", self.headers(raw), raw)

    def claim(self, build: str) -> httpx.Response:
        """Claim a build; the signature covers an empty body."""
        return self.cluster.asking.request("POST", f"{BASE}/builds/{build}/claim", self.headers())

    def expected(self) -> list[dict[str, Any]]:
        """The containers that should run here."""
        found: list[dict[str, Any]] = self.get("expected-state")["containers"]
        return found

    def report(self, health: str = "none", **more: Any) -> None:
        """Report every container that should run here, as running with this health."""
        containers = [
            {
                "deploymentId": one["deploymentId"],
                "containerId": f"c-{one['deploymentId']}",
                "status": "running",
                "healthStatus": health,
            }
            for one in self.expected()
        ]
        answer = self.post("status", {"containers": containers, **more})
        assert answer.status_code == 200, answer.text
