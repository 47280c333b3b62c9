"""A proxy whose control plane is somebody else's: a simulated server with an agent that listens to a `HostilePlane`.

It begins with one service that is as it should be, which must go on being served whatever else it is told.
"""

import copy
import json
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.lab.agent import AGENT
from tests.lab.hostile_plane import HostilePlane, expected_state
from tests.lab.https_client import HttpsClient
from tests.lab.process import Child
from tests.lab.registry import Registry
from tests.lab.server import LabServer
from tests.lab.switch import Switch
from tests.lab.wait import wait_for

NUMBER: Final = 1
SERVICE: Final = "honest"
DOMAIN: Final = "app.test"
_PATIENCE_S: Final = 120


class CapturedServer:
    """Runs while it is entered. The calling process is in a private network; `plane` is what its agent obeys.

    Log and status are read as a person reads them. Its agent builds nothing, unless `options` say with what; `env` is added to the
    agent's environment.
    """

    def __init__(
        self, directory: Path, options: tuple[str, ...] = ("--no-builds",), env: Mapping[str, str] | None = None
    ) -> None:
        self._directory, self._options, self._env = directory, options, env or {}
        self._agent: Child | None = None
        self._stack = ExitStack()

    def honest(self) -> dict[str, Any]:
        """A document with the honest service alone: a container, its name and its route."""
        address = f"10.200.{NUMBER}.2"
        entry = container(SERVICE, self.image, address, 30_000)
        record = {"name": f"{SERVICE}.internal", "ips": [address]}
        route = {"id": DOMAIN, "domain": DOMAIN, "upstreams": [f"{address}:80"], "serviceId": SERVICE}
        return expected_state([entry], [record], [route])

    def told(self, *more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        """The honest document with these entries after its own; the first of each is the list, as in its path (`caddy.routes`)."""
        document = copy.deepcopy(self.honest())
        for name, entry in more:
            outer, _, inner = name.partition(".")
            (document[outer][inner] if inner else document[outer]).append(entry)
        return document

    def is_served(self) -> bool:
        """Whether the honest service answers over HTTPS and by its name."""
        return self.get(DOMAIN) == "v1" and self.addresses(f"{SERVICE}.internal") == [f"10.200.{NUMBER}.2"]

    def addresses(self, name: str) -> list[str]:
        """What its dnsmasq answers for a name; nothing when it does not answer."""
        ask = f"dig +short +tries=1 @127.0.0.153 {name} 2>&1 || true"
        return [line for line in self.server.run(("sh", "-c", ask)).splitlines() if not line.startswith(";")]

    def get(self, domain: str, path: str = "/") -> str | None:
        """What somebody on the internet gets for a domain: the body, None without a certificate or an answer of 200."""
        root = self.data_dir / "caddy/storage/pki/authorities/local/root.crt"
        try:
            with HttpsClient(443, domain, root, self.server.address) as client:
                reply = client.get(path)
        except OSError:
            return None
        return reply.body.strip() if reply.status == 200 else None

    def status(self) -> dict[str, Any]:
        """`agent status` as JSON."""
        words = ("status", "--output", "json", "--data-dir", str(self.data_dir))
        found: dict[str, Any] = json.loads(self.server.run((str(AGENT), *words)))
        return found

    def lines(self) -> list[dict[str, Any]]:
        """The agent's log."""
        found = (line for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [json.loads(line) for line in found]

    def words(self) -> str:
        """The end of the agent's log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def start_agent(self) -> None:
        """Start it as it was started before. Returns at once."""
        options = (
            *("--url", self.plane.url, "--allow-http", "--data-dir", str(self.data_dir), "--proxy"),
            *("--insecure-registry", self.registry.address, "--public-ip", self.server.address),
            *("--tls-issuer", "internal", "--caddy-access-log", str(self.server.directory / "access.log")),
            *("--log-format", "json", *self._options),
        )
        token = {"TECHULUS_TOKEN": self.plane.token(NUMBER), "TECHULUS_PUBLIC_IP_SERVICE": "none"}
        self._agent = self.server.spawn((str(AGENT), *options), self.log, {**os.environ, **token, **self._env})

    def is_running(self) -> bool:
        """Whether its agent runs."""
        return self._agent is not None and self._agent.running()

    def stop_agent(self, limit_s: float) -> int:
        """End it by SIGTERM; its exit status. LabError when it takes longer than that many seconds."""
        assert self._agent is not None
        self._agent.signal(signal.SIGTERM)
        return self._agent.wait(limit_s)

    def kill_agent(self) -> None:
        """End it by SIGKILL. Fine when it does not run."""
        if self._agent is not None:
            self._agent.kill()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            switch = stack.enter_context(Switch(self._directory / "switch"))
            own = switch.plug_this_process()
            registry = stack.enter_context(Registry(self._directory / "registry", host=own))
            self.image = registry.offer("web", "v1")
            self.plane = stack.enter_context(HostilePlane(own))
            self.plane.document = self.honest()
            self.server = stack.enter_context(LabServer(self._directory / "server", switch, NUMBER))
            self.server.trust_registry(registry.address)
            self.data_dir, self.log = self.server.directory / "agent", self.server.directory / "agent.log"
            self.registry = registry
            stack.callback(self.kill_agent)
            self.start_agent()
            wait_for(lambda: self.is_served() or not self.is_running(), _PATIENCE_S, f"the service; {self.words()}")
            assert self.is_running(), self.words()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()


def container(name: str, image: str, address: str | None, host_port: int, **changes: Any) -> dict[str, Any]:
    """An entry of `containers` whose ids are all made of a name."""
    return {
        "deploymentId": f"d-{name}",
        "serviceId": name,
        "serviceName": name,
        "name": f"{name}-1",
        "image": image,
        "ipAddress": address,
        "ports": [{"containerPort": 80, "hostPort": host_port}],
        "env": {},
        "healthCheck": None,
        "volumes": [],
    } | changes
