"""Several servers on one machine, each with its own Podman, dnsmasq, Caddy, tunnel and agent, driven by one control plane.

The same fixture serves the tests and `make lab`. Decides what is where; what the agents make of it is theirs.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.agent import AGENT, Plane
from tests.lab.process import Child, LabError
from tests.lab.registry import Registry
from tests.lab.server import LabServer
from tests.lab.switch import Switch
from tests.lab.wait import wait_for

_START_S = 180


class Node:
    """A simulated server with an agent."""

    def __init__(self, name: str, server: LabServer, fleet: "Fleet", *, is_proxy: bool) -> None:
        self.name = name
        self.server = server
        self.is_proxy = is_proxy
        self.data_dir = server.directory / "agent"
        self.log = server.directory / "agent.log"
        self._fleet = fleet
        self._child: Child | None = None

    @property
    def subnet_id(self) -> int:
        """N of 10.100.N.1 and 10.200.N.0/24."""
        return self.server.number

    def options(self) -> tuple[str, ...]:
        """What this server's agent is told."""
        folder = self.server.directory
        return (
            *("--url", self._fleet.plane.url, "--allow-http", "--data-dir", str(self.data_dir)),
            *("--insecure-registry", self._fleet.registry.address, "--public-ip", self.server.address),
            *("--tls-issuer", "internal", "--caddy-access-log", str(folder / "access.log")),
            *(("--proxy",) if self.is_proxy else ()),
            *self._fleet.extra,
        )

    def start(self, token: str | None = None) -> None:
        """Start the agent. Returns at once."""
        env = {**os.environ, "TECHULUS_PUBLIC_IP_SERVICE": "none", **({"TECHULUS_TOKEN": token} if token else {})}
        self._child = self.server.spawn((str(AGENT), *self.options()), self.log, env)

    def kill(self) -> None:
        """End the agent with SIGKILL; what it started goes on."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def stop(self) -> None:
        """End the agent politely."""
        if self._child is not None:
            self._child.stop(12)
            self._child = None

    def run(self, *argv: str, timeout_s: float = 30) -> str:
        """Output of a command on this server."""
        return self.server.run(argv, timeout_s=timeout_s)

    def agent(self, *words: str) -> str:
        """Output of another command of the agent on this server."""
        return self.server.run((str(AGENT), *words, *self.options()), timeout_s=60)

    def exit_status(self, limit_s: float = 10) -> int:
        """Ask the agent to end; its exit status. LabError when it takes longer than `limit_s`."""
        if self._child is None:
            raise LabError("the agent is not running")
        self._child.signal(signal.SIGTERM)
        status = self._child.wait(limit_s)
        self._child = None
        return status

    def last_words(self) -> str:
        """The end of the agent's log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Fleet:
    """A switch, a control plane, a registry and so many servers. Use it as a context manager.

    The calling process must be in a network namespace of its own (`enter_private_network`); it gets the address 192.168.77.254.
    """

    def __init__(
        self, directory: Path, workers: int = 2, proxies: int = 1, first_number: int = 1, extra: Sequence[str] = ()
    ) -> None:
        self._directory = directory
        self._names = [("proxy", True, i) for i in range(1, proxies + 1)] + [
            ("worker", False, i) for i in range(1, workers + 1)
        ]
        self._first = first_number
        self.extra = tuple(extra)
        self._stack = contextlib.ExitStack()
        self.nodes: dict[str, Node] = {}

    def start(self) -> None:
        """Bring everything up; returns when every agent has reported."""
        with contextlib.ExitStack() as stack:
            switch = stack.enter_context(Switch(self._directory / "switch"))
            own = switch.plug_this_process()
            self.registry = stack.enter_context(Registry(self._directory / "registry", host=own))
            self.plane = stack.enter_context(Plane(self._directory / "plane", host=own))
            for number, (kind, is_proxy, index) in enumerate(self._names, start=self._first):
                self._add(stack, switch, f"{kind}-{index}", number, is_proxy=is_proxy)
            self._stack = stack.pop_all()
        wait_for(self._all_online, _START_S, f"every agent to report; {self._words()}")

    def want(self, services: Mapping[str, object]) -> None:
        """Replace the services."""
        self.plane.want(services)

    def node(self, name: str) -> Node:
        """A server by its name: proxy-1, worker-1, …"""
        return self.nodes[name]

    def until_running(self, count: int, timeout_s: float = 240) -> None:
        """Until so many deployments run and no others are there."""

        def reached() -> bool:
            rows = self.plane.lab("deployments")
            return len(rows) == count and all(row["status"] == "running" for row in rows)

        try:
            wait_for(reached, timeout_s, f"{count} deployments to run")
        except AssertionError as error:
            raise LabError(f"{error}; {self.plane.lab('deployments')}; {self._words()}") from error

    def cleanup(self) -> None:
        """Take everything down."""
        for node in self.nodes.values():
            node.kill()
        self._stack.close()

    def _add(self, stack: contextlib.ExitStack, switch: Switch, name: str, number: int, *, is_proxy: bool) -> None:
        server = stack.enter_context(LabServer(self._directory / name, switch, number))
        server.trust_registry(self.registry.address)
        node = self.nodes[name] = Node(name, server, self, is_proxy=is_proxy)
        stack.callback(node.kill)
        node.start(self.plane.token(name, number))

    def _all_online(self) -> bool:
        servers = self.plane.lab("servers")
        return len(servers) == len(self.nodes) and all(server["status"] == "online" for server in servers)

    def _words(self) -> str:
        return "; ".join(f"{node.name}: {node.last_words()[-800:]}" for node in self.nodes.values())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.cleanup()
