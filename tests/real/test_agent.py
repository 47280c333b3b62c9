"""The agent as a person runs it, end to end: control plane, Podman, registry, the installed command."""

import json
import urllib.request
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

_CONVERGE_S = 120


def test_services_come_change_heal_and_go(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """The life of a service: deployed, reported, image changed in place, killed and repaired, removed."""
    web = {"image": registry.offer("web", "v1"), "replicas": 2, "ports": [{"container": 80}]}
    env = {"image": registry.offer("env"), "env": {"GREETING": "hi"}, "volumes": [{"name": "data", "path": "/data"}]}
    plane.want({"web": web, "env": env})
    agent.start(plane.token("one", store.subnet_id))
    _until_all(plane, "running", 3)
    assert {_page(one["ipAddress"]).strip() for one in _rows(plane, "web")} == {"v1"}
    assert "GREETING=hi" in _page(_rows(plane, "env")[0]["ipAddress"])

    plane.want({"web": {**web, "image": registry.offer("web", "v2")}, "env": env})
    wait_for(
        lambda: {_page(one["ipAddress"]).strip() for one in _rows(plane, "web")} == {"v2"}, _CONVERGE_S, "v2 everywhere"
    )

    victim = _rows(plane, "env")[0]["containerId"]
    store.cli("kill", victim)
    wait_for(lambda: len(_running(store)) == 3, _CONVERGE_S, "the killed container to run again")
    starts = _rows(plane, "env")[0]["ipAddress"] + "/starts"
    wait_for(
        lambda: len(_page(starts).split()) == 2, _CONVERGE_S, "its page to show that its volume has seen both starts"
    )

    plane.want({})
    wait_for(lambda: not _all(store), _CONVERGE_S, "everything to be gone")
    assert agent.stop() == 0


def test_a_health_check_decides_a_rollout(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """L30: `starting` is reported from the first moment, never `none`; then what the check finds, on a host without systemd too."""
    check = {"cmd": "test -e /www/health", "interval": 1, "timeout": 2, "retries": 2, "start_period": 1}
    plane.want({"api": {"image": registry.offer("health"), "health_check": check, "ports": [{"container": 80}]}})
    agent.start(plane.token("one", store.subnet_id))
    _until_all(plane, "running", 1)
    row = _rows(plane, "api")[0]
    assert row["healthStatus"] == "healthy"
    assert store.cli("inspect", "--format", "{{.State.Health.Status}}", row["containerId"]).strip() == "healthy"
    store.cli("exec", row["containerId"], "rm", "/www/health")
    wait_for(
        lambda: _rows(plane, "api")[0]["healthStatus"] == "unhealthy", PATIENCE_S, "the report that it is unhealthy"
    )
    said = [entry["healthStatus"] for report in plane.lab("reports") for entry in _entries(report)]
    assert "none" not in said
    assert agent.stop() == 0


def test_a_bad_image_costs_the_others_nothing(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """L11: what cannot be pulled, exits at once or has a bad secret is put aside, said, and everything else runs."""
    plane.want(
        {
            "aaa": {"image": f"{registry.address}/nothing/here:1"},
            "bbb": {"image": registry.offer("exits")},
            "web": {"image": registry.offer("web"), "replicas": 3},
        }
    )
    agent.start(plane.token("one", store.subnet_id))
    _until_all(plane, "running", 3, service="web")
    wait_for(lambda: "nothing/here" in agent.log.read_text(), _CONVERGE_S, "the agent to say so")
    assert {one["status"] for one in _rows(plane, "aaa")} == {"pending"}
    assert {one["status"] for one in _rows(plane, "bbb")} == {"pending"}, (
        "what exits at once never counts as deployed (L17)"
    )
    assert agent.stop() == 0


def test_the_control_plane_comes_back(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """While it is away the last good state stays in force and is acted on; afterwards the new one is."""
    plane.want({"web": {"image": registry.offer("web"), "replicas": 2}})
    agent.start(plane.token("one", store.subnet_id))
    _until_all(plane, "running", 2)
    plane.stop()
    store.cli("kill", _running(store)[0])
    wait_for(lambda: len(_running(store)) == 2, _CONVERGE_S, "a repair without the control plane")
    plane.want({"web": {"image": registry.offer("web"), "replicas": 3}})
    plane.start()
    _until_all(plane, "running", 3)
    assert agent.stop() == 0


def test_killed_in_the_middle_of_a_deploy(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """SIGKILL at any moment: the next start converges, and nothing is left over."""
    plane.want({"web": {"image": registry.offer("web"), "replicas": 6}})
    agent.start(plane.token("one", store.subnet_id))
    for wanted in (1, 2, 4):
        wait_for(lambda wanted=wanted: len(_all(store)) >= wanted, _CONVERGE_S, f"{wanted} containers")  # type: ignore[misc]  # bound early
        agent.kill()
        agent.start()
    _until_all(plane, "running", 6)
    assert len(_all(store)) == 6
    assert agent.plan()["converged"]
    assert agent.stop() == 0


def test_podman_dies_and_comes_back(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """L3: a listing that fails makes no report and changes nothing; afterwards the agent goes on by itself."""
    plane.want({"web": {"image": registry.offer("web"), "replicas": 2}})
    agent.start(plane.token("one", store.subnet_id))
    _until_all(plane, "running", 2)
    store.kill()
    wait_for(lambda: "containers not listed" in agent.log.read_text(), _CONVERGE_S, "the agent to say so")
    assert {one["status"] for one in plane.lab("deployments")} == {"running"}, "nothing was reported as gone"
    store.start()
    plane.want({"web": {"image": registry.offer("web"), "replicas": 3}})
    _until_all(plane, "running", 3)
    assert agent.stop() == 0


def test_a_foreign_network_is_refused(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """L10: a network of our name with another subnet is said, and left alone."""
    store.cli("network", "create", "--subnet", "10.77.0.0/24", store.network)
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: "10.77.0.0/24" in agent.log.read_text(), _CONVERGE_S, "the agent to say so")
    assert not _all(store)
    assert agent.stop() == 0


def test_foreign_containers_are_not_touched(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """Only what carries a label of ours is listed, stopped or reported."""
    theirs = store.cli("run", "-d", "--name", "theirs", registry.offer("web")).strip()
    ours = store.cli("run", "-d", "--label", "techulus.service.id=x", registry.offer("web")).strip()
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: ours not in _all(store), _CONVERGE_S, "the orphan to be stopped")
    assert _all(store) == [theirs]
    assert agent.stop() == 0


def test_apply_reconciles_once(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """`agent apply` ends with 0 when the server is as expected, and with 1 when a change failed."""
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: (agent.data_dir / "config.json").exists(), _CONVERGE_S, "the registration")
    assert agent.stop() == 0
    plane.want({"web": {"image": registry.offer("web"), "replicas": 2}})
    status, said = agent.command("apply")
    assert (status, len(_running(store))) == (0, 2), said
    plane.want({"web": {"image": f"{registry.address}/no/such:1"}})
    status, said = agent.command("apply")
    assert status == 1
    assert "changes are left" in said


def _until_all(plane: Plane, status: str, count: int, service: str | None = None) -> None:
    def reached() -> bool:
        rows = _rows(plane, service)
        return len(rows) == count and {one["status"] for one in rows} == {status}

    wait_for(reached, _CONVERGE_S, f"{count} deployments {status}; {json.dumps(plane.lab('deployments'))[:1500]}")


def _rows(plane: Plane, service: str | None) -> list[dict[str, Any]]:
    return [one for one in plane.lab("deployments") if service in (None, one["service"])]


def _entries(report: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report["body"]["containers"] if report["kind"] == "status" else []
    return found


def _page(address: str) -> str:
    host, _, path = address.partition("/")
    try:
        with urllib.request.urlopen(f"http://{host}/{path}", timeout=20) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def _running(store: PodmanStore) -> list[str]:
    return store.cli("ps", "-q", "--no-trunc").split()


def _all(store: PodmanStore) -> list[str]:
    return store.cli("ps", "-aq", "--no-trunc").split()
