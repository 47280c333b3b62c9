"""What ends is made good at once: the agent as a process, real Podman and its events, the embedded control plane."""

import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60
_TRIES = 4
_SOON_S = 1.5
_PROMPT_S = 5.0  # half of what a poll takes, and of the wait after a second attempt
_BEFORE_THE_THIRD_S = 30.0  # the agent's own waits after a first and a second attempt


@pytest.mark.parametrize(
    "how", [("kill",), ("stop", "--time=0"), ("rm", "--force", "--time=0")], ids=lambda how: how[0]
)
def test_what_ends_is_back_before_the_next_poll(
    how: tuple[str, ...], plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """L53: killed, stopped or removed; the control plane is not asked meanwhile. The best of up to four takes about a second."""
    plane.want({"web": {"image": registry.offer("web"), "replicas": _TRIES}})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: _statuses(plane) == ["running"] * _TRIES, _PATIENCE_S, "the rollout")
    _next_poll(agent)
    waits = []
    for row in plane.lab("deployments"):
        _next_poll(agent)  # the second after the rollout: the wait after its deploys is over
        (before,) = _starts(store, row["id"])
        polled, ended_at = agent.status()["poll"]["at"], time.time()
        store.cli(*how, before.container)
        again_at = _next_start(store, row["id"], before).at
        waits.append(again_at - ended_at)
        if waits[-1] <= _SOON_S and agent.status()["poll"]["at"] == polled:
            break
    else:
        raise AssertionError(f"none was back within {_SOON_S} s and without a poll, but after {waits}")
    assert agent.stop() == 0


def test_every_start_of_a_crash_loop_is_the_agents(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """One restarter: each start is seen, counted and in the log; the first restart comes at once, the others in their turn.

    L17, L30: it never reads as healthy. Without a check it is not listed, since it was never up for two seconds; with one, which passes
    whenever it runs, it is `starting`, and `unhealthy` after three attempts.
    """
    check = {"cmd": "true", "interval": 1, "timeout": 1, "retries": 1, "start_period": 0}
    image = registry.offer("crashes")
    plane.want({"bare": {"image": image}, "checked": {"image": image, "health_check": check}})
    agent.start(plane.token("one", store.subnet_id))
    patience_s = _BEFORE_THE_THIRD_S + _PATIENCE_S
    wait_for(lambda: "unhealthy" in _healths(plane), patience_s, "the loop to be reported as one")
    retries = wait_for(lambda: _all_tried(agent, 2, 3), patience_s, "both to have been started three times again")
    assert agent.stop() == 0  # only now do the lists stand still
    starts = [one for container in _ours(store) for one in _events(store, container, "start")]
    log = agent.log.read_text()
    assert [one["kind"] for one in retries] == ["start", "start"]
    assert len(starts) == 2 + log.count("container is started again")
    assert log.count("container is started again") >= sum(one["attempts"] for one in retries)
    assert log.count("attempt=3") >= 1
    assert min(_first_restart_after(store, one) for one in _ours(store)) <= _PROMPT_S
    assert set(_healths(plane)) == {"starting", "unhealthy"}, "the one without a check is never listed"
    assert _healths(plane)[0] == "starting"


def test_what_an_earlier_version_made_stays(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """A container with Podman's own restarts is no drift: it is not made anew, neither while it runs nor when it crashes."""
    image = registry.offer("crashes")
    plane.want({"web": {"image": image}})
    agent.start(plane.token("one", store.subnet_id))
    (made,) = wait_for(lambda: _ours(store), _PATIENCE_S, "the container")
    assert agent.stop() == 0
    _make_again_as_before(store, made, image)
    agent.start()
    wait_for(lambda: agent.status()["running"] and agent.status()["retries"], _PATIENCE_S, "Podman to have given up")
    (there,) = _ours(store)
    assert store.cli("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", there).strip() == "on-failure"
    wait_for(lambda: _tried(agent, 1), _PATIENCE_S, "the agent's turn")
    assert _ours(store) == [there]
    assert "container removed" not in agent.log.read_text()
    assert agent.stop() == 0


def _events(store: PodmanStore, container: str, kind: str) -> list[float]:
    """When that happened to a container, in seconds since the epoch."""
    filters = (f"--filter=container={container}", f"--filter=event={kind}")
    told = store.cli("events", "--stream=false", "--format={{.Time.UnixMilli}}", *filters)
    return [int(one) / 1000 for one in told.split()]


def _first_restart_after(store: PodmanStore, container: str) -> float:
    """Seconds from its first end to its second start."""
    return _events(store, container, "start")[1] - _events(store, container, "died")[0]


def _make_again_as_before(store: PodmanStore, made: str, image: str) -> None:
    """The same container, with the restart policy that earlier versions gave it."""
    form = "{{.Name}} {{range $key, $value := .Config.Labels}}--label {{$key}}={{$value}} {{end}}"
    name, *labels = store.cli("inspect", "--format", form, made).split()
    store.cli("rm", "--force", "--time=0", made)
    store.cli("create", "--name", name, *labels, "--network", store.network, "--restart=on-failure:5", image)


def _tried(agent: Agent, times: int) -> list[dict[str, Any]]:
    """The retries that are waiting after so many attempts."""
    return [one for one in agent.status()["retries"] if one["attempts"] >= times]


def _all_tried(agent: Agent, count: int, times: int) -> list[dict[str, Any]]:
    """The retries that are waiting after so many attempts, once there are so many of them."""
    tried = _tried(agent, times)
    return tried if len(tried) == count else []


def _ours(store: PodmanStore) -> list[str]:
    return store.cli("ps", "--all", "--quiet", "--no-trunc").split()


def _healths(plane: Plane) -> list[str]:
    """What was reported of any container's health, in order."""
    reports = plane.lab("reports?limit=1000")
    return [one["healthStatus"] for report in reports for one in report["body"].get("containers", [])]


def _next_poll(agent: Agent) -> None:
    before = agent.status()["poll"]["at"]
    wait_for(lambda: agent.status()["poll"]["at"] != before, _PATIENCE_S, "the next poll")


def _statuses(plane: Plane) -> list[str]:
    return [one["status"] for one in plane.lab("deployments")]


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a container, in seconds since the epoch."""

    container: str
    pid: int
    at: float


def _starts(store: PodmanStore, deployment: str) -> list[Start]:
    """Of the containers of a deployment that run."""
    form = "{{.Id}} {{.State.Pid}} {{.State.StartedAt.UnixMilli}}"
    ids = store.cli("ps", "--quiet", "--filter", f"label=techulus.deployment.id={deployment}").split()
    rows = [store.cli("inspect", "--format", form, one).split() for one in ids]
    return [Start(container, int(pid), int(at_ms) / 1000) for container, pid, at_ms in rows if pid != "0"]


def _next_start(store: PodmanStore, deployment: str, before: Start) -> Start:
    def found() -> list[Start]:
        return [one for one in _starts(store, deployment) if one.pid != before.pid]

    return wait_for(found, _PATIENCE_S, "it to run again")[0]
