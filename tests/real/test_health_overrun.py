"""L51: a health check that overruns its limit has failed: it is ended, none starts beside it, and the control plane hears of it."""

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.container_processes import commands_of
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60
_TRIES = 8
_CHECK = "sleep 1000 & sleep 2000"


def running_checks(container_id: str) -> list[str]:
    """The commands of checks in a container."""
    return [one for one in commands_of(container_id) if one.startswith("sleep ") and one.endswith("000")]


def want(plane: Plane, registry: Registry) -> None:
    """A service whose check never ends, nor what it has started."""
    check = {"cmd": _CHECK, "interval": 1, "timeout": 1, "retries": 2, "start_period": 0}
    plane.want({"web": {"image": registry.offer("web"), "health_check": check}})


def container_of(store: PodmanStore) -> str:
    """The one container that there is."""
    return wait_for(lambda: store.cli("ps", "--quiet", "--no-trunc").strip(), _PATIENCE_S, "the container")


def most_until_unhealthy(plane: Plane, container_id: str) -> int:
    """The largest number of the check's commands that was seen at one time, until the control plane was told of their failure."""
    most = 0

    def is_unhealthy() -> bool:
        nonlocal most
        most = max(most, len(running_checks(container_id)))
        entries = [one for report in plane.lab("reports") for one in report["body"].get("containers", [])]
        return any(one["healthStatus"] == "unhealthy" for one in entries)

    wait_for(is_unhealthy, _PATIENCE_S, "the control plane to hear of it")
    return most


def test_a_check_that_never_ends(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """Unhealthy after as many overruns as there are retries; never more than one at a time."""
    want(plane, registry)
    agent.start(plane.token("one", store.subnet_id))
    container_id = container_of(store)
    assert most_until_unhealthy(plane, container_id) == 2, "one check is two commands"
    assert agent.stop() == 0
    wait_for(lambda: not running_checks(container_id), _PATIENCE_S, "the last check to end")


def test_an_agent_that_is_killed_within_a_check(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """What it left is ended by the next, before that one runs any."""
    want(plane, registry)
    agent.start(plane.token("one", store.subnet_id))
    container_id = container_of(store)
    for _ in range(_TRIES):  # a check has a second, which may be over before the agent is dead
        wait_for(lambda: len(running_checks(container_id)) == 2, _PATIENCE_S, "a check to run")
        agent.kill()
        store.restart()  # with it ends the call, and the command goes on
        if len(running_checks(container_id)) == 2:
            break
        agent.start()
    else:
        raise AssertionError("each check was over when the agent had been killed")
    agent.start()
    assert most_until_unhealthy(plane, container_id) == 2
