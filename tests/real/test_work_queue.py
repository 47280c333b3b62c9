"""Work items end to end: the embedded control plane, the agent as a process, real Podman."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60


def test_restart_and_stop(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """What a person clicks: the container starts anew, and later is gone and stays gone."""
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    row = _running_row(plane)
    started = _started(store, row["containerId"])
    plane.lab_post(f"deployments/{row['id']}/restart")
    wait_for(lambda: _started(store, row["containerId"]) != started, _PATIENCE_S, "the restart")
    _all_completed(plane)
    plane.lab_post(f"deployments/{row['id']}/stop")
    wait_for(lambda: not store.cli("ps", "-aq").split(), _PATIENCE_S, "the container to be gone")
    wait_for(lambda: plane.lab("deployments")[0]["status"] == "stopped", _PATIENCE_S, "the plane to know")
    _all_completed(plane)
    assert agent.stop() == 0


def test_items_that_make_no_sense_hold_nothing_up(
    plane: Plane,
    agent: Agent,
    store: PodmanStore,
    registry: Registry,
) -> None:
    """Each is acknowledged as failed; the good one behind them is done."""
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    row = _running_row(plane)
    server = plane.lab("servers")[0]["id"]
    started = _started(store, row["containerId"])
    for kind, payload in (("restart", "{nope"), ("explode", "{}"), ("cleanup_volumes", '{"serviceId": "../.."}')):
        plane.lab_post("work", {"server": server, "type": kind, "payload": payload})
    good = json.dumps({"deploymentId": row["id"], "containerId": "stale"})
    plane.lab_post("work", {"server": server, "type": "restart", "payload": good})
    wait_for(lambda: _started(store, row["containerId"]) != started, _PATIENCE_S, "the good item")
    wait_for(lambda: sorted(_statuses(plane)) == ["completed"] + ["failed"] * 3, _PATIENCE_S, "all to be acknowledged")
    assert agent.stop() == 0


def test_volumes_are_removed_and_links_are_not_followed(
    plane: Plane,
    agent: Agent,
    store: PodmanStore,
    tmp_path: Path,
) -> None:
    """L35: what a link in the folder points at stays."""
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("x")
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: plane.lab("servers") and plane.lab("servers")[0]["status"] == "online", _PATIENCE_S, "the agent")
    folder = agent.data_dir / "volumes" / "service-1"
    folder.mkdir(parents=True)
    (folder / "data").symlink_to(treasure)
    (agent.data_dir / "volumes" / "service-2").symlink_to(treasure)
    server = plane.lab("servers")[0]["id"]
    for service in ("service-1", "service-2"):
        plane.lab_post(
            "work", {"server": server, "type": "cleanup_volumes", "payload": json.dumps({"serviceId": service})}
        )
    wait_for(lambda: sorted(_statuses(plane)) == ["completed", "failed"], _PATIENCE_S, "both to be acknowledged")
    assert not folder.exists()
    assert (treasure / "gold").exists()
    assert agent.stop() == 0


def test_volumes_of_a_deleted_service_go_after_its_container(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """The item may come while the container still runs, and comes once: it waits. One for a service that is wanted is refused (L35)."""
    plane.want({"web": {"image": registry.offer("web"), "volumes": [{"name": "data", "path": "/data"}]}})
    agent.start(plane.token("one", store.subnet_id))
    row = _running_row(plane)
    folder = agent.data_dir / "volumes" / row["serviceId"]
    (folder / "data" / "kept").write_text("x")
    cleanup = {
        "server": plane.lab("servers")[0]["id"],
        "type": "cleanup_volumes",
        "payload": json.dumps({"serviceId": row["serviceId"]}),
    }
    plane.lab_post("work", cleanup)
    wait_for(lambda: _statuses(plane) == ["failed"], _PATIENCE_S, "the first item to be refused")
    assert (folder / "data" / "kept").exists()
    agent.kill()
    plane.lab_post("work", cleanup)
    plane.want({})
    agent.start()
    wait_for(lambda: not folder.exists(), _PATIENCE_S, "the volumes to be removed")
    wait_for(lambda: "pending" not in _statuses(plane), _PATIENCE_S, "all to be acknowledged")
    assert _statuses(plane)[:2] == ["failed", "completed"]
    assert agent.stop() == 0


def test_done_once_when_killed_before_the_acknowledgement(
    plane: Plane,
    agent: Agent,
    store: PodmanStore,
    registry: Registry,
) -> None:
    """L26: an item that is in the ledger is only acknowledged."""
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    row = _running_row(plane)
    agent.kill()
    started = _started(store, row["containerId"])
    server = plane.lab("servers")[0]["id"]
    payload = json.dumps({"deploymentId": row["id"], "containerId": row["containerId"]})
    made = plane.lab_post("work", {"server": server, "type": "restart", "payload": payload})
    done = {"version": 1, "done": [{"id": made["id"]}]}
    (agent.data_dir / "work-done.json").write_text(json.dumps(done))
    agent.start()
    wait_for(lambda: _statuses(plane) == ["completed"], _PATIENCE_S, "the acknowledgement")
    assert _started(store, row["containerId"]) == started
    assert agent.stop() == 0


def _running_row(plane: Plane) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        rows: list[dict[str, Any]] = plane.lab("deployments")
        return rows[0] if rows and rows[0]["status"] == "running" else {}

    return wait_for(found, _PATIENCE_S, "the deployment to run")


def _started(store: PodmanStore, container: str) -> str:
    return store.cli("inspect", "--format", "{{.State.StartedAt}}", container).strip()


def _statuses(plane: Plane) -> list[str]:
    wake_ups = ("deploy", "update_wireguard")
    return [one["status"] for one in plane.lab("work") if one["type"] not in wake_ups]


def _all_completed(plane: Plane) -> None:
    wait_for(lambda: set(_statuses(plane)) == {"completed"}, _PATIENCE_S, "the items to be acknowledged")
