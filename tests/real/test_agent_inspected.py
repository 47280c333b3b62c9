"""The person at the server's terminal: `agent status`, `agent pause`, `agent resume`, and the log of a crash loop."""

import time
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60
_PAUSE_S = 8


def test_hands_off_and_on_again(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """A paused agent sees, says and reports; changes nothing, also after a crash; and goes on when it may."""
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: [one["status"] for one in plane.lab("deployments")] == ["running"], _PATIENCE_S, "the rollout")
    code, text = agent.inspect("pause", "--reason", "moving the disk")
    assert (code, "until `agent resume`" in text) == (0, True)
    reports = len(plane.lab("reports?limit=1000"))
    victim = store.cli("ps", "-q").strip()
    store.cli("kill", victim)
    wait_for(lambda: (agent.status()["paused"] or {}).get("reason") == "moving the disk", _PATIENCE_S, "the pause")
    wait_for(lambda: agent.status().get("drift"), _PATIENCE_S, "the drift to be seen")
    wait_for(lambda: "moving the disk" in agent.log.read_text(), _PATIENCE_S, "the log to say so")
    agent.kill()
    agent.start()
    wait_for(lambda: agent.status().get("drift"), _PATIENCE_S, "the drift to be seen again")
    code, text = agent.inspect("status")
    assert code == 0
    assert "PAUSED" in text
    wait_for(lambda: len(plane.lab("reports?limit=1000")) > reports, _PATIENCE_S, "a report: it goes on with them")
    assert store.cli("ps", "-q").strip() == ""
    assert agent.inspect("resume")[0] == 0
    wait_for(lambda: store.cli("ps", "-q").strip() == victim, _PATIENCE_S, "the container to run again")
    assert agent.stop() == 0
    code, text = agent.inspect("status")
    assert (code, "no agent runs" in text) == (3, True)


def test_a_pause_that_ends_by_itself(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """Set before the agent starts, with an end: nothing is made before it, however slow this machine is; then it goes on."""
    agent.data_dir.mkdir(mode=0o700, parents=True)
    begun = time.time()
    code, text = agent.inspect("pause", "--for", f"{_PAUSE_S}s")
    assert code == 0, text
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: [one["status"] for one in plane.lab("deployments")] == ["running"], _PATIENCE_S, "the rollout")
    assert float(store.cli("ps", "--format", "{{.Created.Unix}}")) >= int(begun + _PAUSE_S)
    wait_for(lambda: agent.status()["paused"] is None, _PATIENCE_S, "the end of the pause to be shown")
    assert agent.stop() == 0


def test_a_crash_loop(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """Started with growing pauses: `failed` for the control plane; the reason, the next try and the last words for a person."""
    plane.want({"bad": {"image": registry.offer("mortal")}})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: "container is started again" in agent.log.read_text(), _PATIENCE_S, "the second start")

    def a_retry() -> dict[str, Any]:
        found: list[dict[str, Any]] = [one for one in agent.status().get("retries", ()) if one["nextInS"] > 0]
        return found[0] if found and found[0]["kind"] == "start" else {}

    retry = wait_for(a_retry, _PATIENCE_S, "the next start to be shown with its time")
    assert "exited" in retry["why"]
    wait_for(lambda: "failed" in _statuses(plane), _PATIENCE_S, "the control plane to know")
    # Only now do the two lists stand still: an attempt is logged before it is made.
    assert agent.stop() == 0
    starts = store.cli("events", "--stream=false", "--filter=event=start", "--format={{.Status}}").split()
    attempts = [line for line in agent.log.read_text().splitlines() if "container is started again" in line]
    assert len(attempts) == len(starts) - 1 >= 1, "each but the first"
    assert all("starting\\ndying" in line for line in attempts)


def _statuses(plane: Plane) -> set[str]:
    """All that was ever said of a container."""
    reports = [one for one in plane.lab("reports?limit=1000") if one["kind"] == "status"]
    return {one["status"] for report in reports for one in report["body"].get("containers", [])}
