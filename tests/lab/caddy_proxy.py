"""A proxy under test: the adapter, the Caddy that it starts, and the ways in which clients and other people reach that Caddy.

Its ports are free ones of loopback, its files lie in one folder.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from core.caddy import Route
from core.caddy_base import Base
from core.caddy_config import Json, Object
from shell.adapters.caddy import Caddy, CaddySettings
from shell.adapters.caddy.process import Child
from tests.lab.https_client import HttpsClient
from tests.lab.ports import accepts, free_port
from tests.lab.process import run
from tests.lab.wait import PATIENCE_S, wait_for
from tests.lab.web import web_server

ALLOWED = frozenset({"app.test", "other.test", "unrouted.test"})


@dataclass(frozen=True)
class Proxy:
    """A Caddy to be, its settings and the client's side of it."""

    settings: CaddySettings

    @property
    def caddy(self) -> Caddy:
        """A new adapter, as a new agent has one."""
        return Caddy(self.settings)

    @property
    def child(self) -> Child:
        return Child(self.settings.binary, self.settings.folder)

    @property
    def root(self) -> Path:
        return self.settings.folder / "storage/pki/authorities/local/root.crt"

    def apply(self, *routes: Route) -> None:
        anyio.run(self.caddy.apply, routes)

    def fetch(self) -> tuple[Route, ...]:
        return anyio.run(self.caddy.fetch)

    def client(self, host: str = "app.test") -> HttpsClient:
        return HttpsClient(self.settings.base.https_port, host, self.root)

    def pids(self) -> list[int]:
        return [one.pid for one in self.child.find()]

    def admin(self, method: str, path: str, body: Json = None) -> Any:
        """A request of somebody else's to the admin API."""
        address = self.settings.admin
        unix = ["--unix-socket", address.removeprefix("unix/"), "-H", "Host:"] if address.startswith("unix/") else []
        url = f"http://{'caddy' if unix else address}{path}"
        data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        said = run(["curl", "-sSf", "-X", method, *unix, *data, url])
        return json.loads(said) if said else None

    def kill(self) -> None:
        """Kill Caddy the hard way."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.pids(), PATIENCE_S, "the end of Caddy")

    def start(self, config: Object) -> None:
        """Start Caddy with a person's configuration, as a person would."""
        whole: Object = {**config, "admin": {"listen": self.settings.admin, "config": {"persist": False}}}
        storage = {"module": "file_system", "root": str(self.settings.folder / "storage")}
        anyio.run(self.child.start, json.dumps({**whole, "storage": storage}).encode())
        host, _, port = self.settings.admin.rpartition(":")
        wait_for(lambda: accepts(host, int(port)), PATIENCE_S, "the admin API")


@contextmanager
def proxy_to_be(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy whose Caddy does not run yet, with a control plane that allows `ALLOWED`; whatever is started is taken away."""
    with web_server(allowed=ALLOWED) as control_plane:
        base = Base(
            control_plane=f"http://{control_plane.address}",
            issuer="internal",
            access_log=str(tmp_path / "access.log"),
            listen="127.0.0.1",
            http_port=free_port(),
            https_port=free_port(),
        )
        made = Proxy(CaddySettings(base, folder=tmp_path / "caddy", admin=f"127.0.0.1:{free_port()}", timeout_s=20))
        try:
            yield made
        finally:
            made.kill()


def route(upstreams: str | list[str], domain: str = "app.test", service: str = "s-1") -> Route:
    return Route(domain, domain, service, tuple(sorted([upstreams] if isinstance(upstreams, str) else upstreams)))
