"""Work items and an agent that is killed between doing and acknowledging; and many of them."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.relay import Relay
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60
_ACKNOWLEDGEMENT = b"POST /api/v1/agent/work-queue"


class Killer:
    """Kills the agent at the first acknowledgement of each item, before the control plane hears of it; lets the second pass."""

    def __init__(self) -> None:
        self.agent: Agent | None = None
        self.armed = True
        self.passed = 0
        self.killed = threading.Event()

    def trips(self, chunk: bytes) -> bool:
        """What a relay asks."""
        if _ACKNOWLEDGEMENT not in chunk:
            return False
        if not self.armed:
            self.passed += 1
            self.armed = True
            return False
        self.armed = False
        assert self.agent is not None
        self.agent.kill()
        self.killed.set()
        return True


@pytest.fixture
def killer() -> Killer:
    """One per test."""
    return Killer()


@pytest.fixture
def doomed(plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path, killer: Killer) -> Iterator[Agent]:
    """An agent whose control plane is behind the killer."""
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    options = ("--podman-socket", str(store.socket_path), "--insecure-registry", registry.address, *unmanaged)
    with Relay((plane.host, plane.port), trips=killer.trips) as relay:
        made = Agent(tmp_path / "agent", f"http://{relay.address}", options)
        killer.agent = made
        yield made
        made.kill()


def test_killed_before_each_acknowledgement(
    plane: Plane, doomed: Agent, store: PodmanStore, registry: Registry, killer: Killer
) -> None:
    """L26, for every type: done once, acknowledged once."""
    killer.armed = False  # the items of the deployment itself are none of this test's
    plane.want({"web": {"image": registry.offer("web")}})
    doomed.start(plane.token("one", store.subnet_id))
    row = _running_row(plane)
    wait_for(lambda: not _pending(plane), _PATIENCE_S, "the deployment's own items")
    doomed.stop()
    killer.armed, killer.passed = True, 0

    volume = doomed.data_dir / "volumes" / "gone" / "data"
    volume.mkdir(parents=True)
    started = _started(store, row["containerId"])
    orders: tuple[tuple[str, dict[str, Any]], ...] = (
        ("restart", {"deploymentId": row["id"], "containerId": "stale"}),
        ("cleanup_volumes", {"serviceId": "gone"}),
        ("deploy", {"deploymentId": row["id"]}),
        ("update_wireguard", {"peers": []}),
        ("sync_caddy", {}),
        ("explode", {}),
        ("force_cleanup", {"serviceId": row["serviceId"], "containerIds": [row["containerId"]]}),
        ("stop", {"deploymentId": "no such", "containerId": None}),
    )
    server = plane.lab("servers")[0]["id"]
    ordered = [_order(plane, server, kind, payload) for kind, payload in orders]
    starts: list[str] = []
    for number in range(len(orders)):
        killer.killed.clear()
        doomed.start()
        assert killer.killed.wait(_PATIENCE_S), doomed.last_words()
        assert killer.passed == number
        if number == 0:
            starts.append(_started(store, row["containerId"]))
        if number == 1:
            assert not volume.exists()
            volume.mkdir(parents=True)  # new data, which an item done twice would delete
        if number == 5:
            starts.append(_started(store, row["containerId"]))
    doomed.start()
    wait_for(lambda: not _pending(plane), _PATIENCE_S, "the last acknowledgement")
    assert starts[0] == starts[1] != started
    assert volume.exists()
    assert killer.passed == len(orders)
    assert sorted(_statuses(plane, ordered)) == ["completed"] * 7 + ["failed"]
    assert row["containerId"] not in store.cli("ps", "-aq", "--no-trunc").split()


def test_two_hundred_items(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """Every kind of item, good and bad, drained; the server is as it should be."""
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    row = _running_row(plane)
    agent.kill()
    before = _started(store, row["containerId"])
    kinds: tuple[tuple[str, Any], ...] = (
        ("deploy", {}),
        ("update_wireguard", {"peers": [{}]}),
        ("sync_caddy", "not even JSON"),
        ("stop", {"deploymentId": "no such"}),
        ("force_cleanup", {"serviceId": "no such", "containerIds": ["x"]}),
        ("cleanup_volumes", {"serviceId": "none"}),
        ("restart", {"deploymentId": "no such"}),  # fails
        ("cleanup_volumes", {"serviceId": ""}),  # fails
        ("stop", "{"),  # fails
        ("\N{SNOWMAN}", {}),  # fails
    )
    server = plane.lab("servers")[0]["id"]
    ordered = [_order(plane, server, *kinds[number % len(kinds)]) for number in range(190)]
    ordered += [_order(plane, server, "restart", {"deploymentId": row["id"]}) for _ in range(10)]
    agent.start()
    wait_for(lambda: not _pending(plane), 4 * _PATIENCE_S, "all items to be acknowledged")
    found = _statuses(plane, ordered)
    assert (found.count("completed"), found.count("failed")) == (124, 76)
    assert _started(store, row["containerId"]) != before
    assert "Traceback" not in agent.log.read_text()
    wait_for(lambda: plane.lab("deployments")[0]["status"] == "running", _PATIENCE_S, "the container to run")
    assert agent.stop() == 0


def _order(plane: Plane, server: str, kind: str, payload: Any) -> str:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    made = plane.lab_post("work", {"server": server, "type": kind, "payload": text})
    return str(made["id"])


def _pending(plane: Plane) -> list[Any]:
    return [one for one in plane.lab("work") if one["status"] == "pending"]


def _statuses(plane: Plane, ordered: list[str]) -> list[str]:
    """Of these items."""
    return [one["status"] for one in plane.lab("work") if one["id"] in ordered]


def _running_row(plane: Plane) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        rows: list[dict[str, Any]] = plane.lab("deployments")
        return rows[0] if rows and rows[0]["status"] == "running" else {}

    return wait_for(found, _PATIENCE_S, "the deployment to run")


def _started(store: PodmanStore, container: str) -> str:
    return store.cli("inspect", "--format", "{{.State.StartedAt}}", container).strip()
