"""What ends is made good at once: the agent as a process, real Podman and its events, the embedded control plane."""

import time
from dataclasses import dataclass

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60


def test_what_ends_is_back_before_the_next_poll(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """L53: killed, stopped or removed, just after a poll; the control plane is not asked. The best of three takes about a second."""
    ends = {"one": ("kill",), "two": ("stop", "--time=0"), "three": ("rm", "--force", "--time=0")}
    plane.want({name: {"image": registry.offer("web")} for name in ends})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: len(_running(plane)) == 3, _PATIENCE_S, "the rollout")
    waits = []
    for service, how in ends.items():
        _next_poll(agent)  # the third is long after the deploy, whose own wait is over then
        (before,) = _starts(plane, store, service)
        polled, ended_at = agent.status()["poll"]["at"], time.time()
        store.cli(*how, before.container)
        waits.append(_next_start(plane, store, service, before).at - ended_at)
        assert agent.status()["poll"]["at"] == polled
    assert min(waits) <= 1.5, waits
    assert agent.stop() == 0


def _next_poll(agent: Agent) -> None:
    before = agent.status()["poll"]["at"]
    wait_for(lambda: agent.status()["poll"]["at"] != before, _PATIENCE_S, "the next poll")


def _running(plane: Plane) -> list[str]:
    return [one["service"] for one in plane.lab("deployments") if one["status"] == "running"]


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a container, in seconds since the epoch."""

    container: str
    pid: int
    at: float


def _starts(plane: Plane, store: PodmanStore, service: str) -> list[Start]:
    """Of the containers of a service that run."""
    (row,) = [one for one in plane.lab("deployments") if one["service"] == service]
    form = "{{.Id}} {{.State.Pid}} {{.State.StartedAt.UnixMilli}}"
    ids = store.cli("ps", "--quiet", "--filter", f"label=techulus.deployment.id={row['id']}").split()
    rows = [store.cli("inspect", "--format", form, one).split() for one in ids]
    return [Start(container, int(pid), int(at_ms) / 1000) for container, pid, at_ms in rows if pid != "0"]


def _next_start(plane: Plane, store: PodmanStore, service: str, before: Start) -> Start:
    def found() -> list[Start]:
        return [one for one in _starts(plane, store, service) if one.pid != before.pid]

    return wait_for(found, _PATIENCE_S, "it to run again")[0]
