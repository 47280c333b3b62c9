"""`core.work`: what items ask for, and what each comes to."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import bounds, work
from core.containers import ContainerId, DeploymentId
from core.protocol import WorkItem
from core.work import (
    CleanupVolumes,
    ForceCleanup,
    Later,
    Nothing,
    Refuse,
    RemoveContainers,
    RemoveVolumes,
    Restart,
    RestartContainer,
    Stop,
    WakeUp,
)
from tests.builders import an_actual_container

ONE = an_actual_container()
DEPLOYMENT = ONE.deployment_id or DeploymentId("")


def item(kind: str, payload: object, created_at: str = "2026-01-01T00:00:00Z", name: str = "w") -> WorkItem:
    """An item with a payload as the control plane sends it."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return WorkItem(id=name, type=kind, payload=text, created_at=created_at)


@pytest.mark.parametrize(
    ("kind", "payload", "task"),
    [
        ("restart", {"deploymentId": "d", "containerId": "c"}, Restart(DeploymentId("d"))),
        ("stop", {"deploymentId": "d", "containerId": None}, Stop(DeploymentId("d"))),
        ("force_cleanup", {"serviceId": "s", "containerIds": ["c"]}, ForceCleanup("s", frozenset({ContainerId("c")}))),
        pytest.param(
            "force_cleanup",
            {"serviceId": "s", "containerIds": ["c"] * bounds.WORK_CONTAINERS},
            ForceCleanup("s", frozenset({ContainerId("c")})),
            id="as many containers as are taken",
        ),
        ("cleanup_volumes", {"serviceId": "s"}, CleanupVolumes("s")),
        ("deploy", "whatever", WakeUp("deploy")),
        ("update_wireguard", {"peers": []}, WakeUp("update_wireguard")),
        ("sync_caddy", "", WakeUp("sync_caddy")),
    ],
)
def test_a_good_item(kind: str, payload: object, task: work.Task) -> None:
    """Each type of PROTOCOL's table; a wake-up's payload is not read."""
    assert work.parse(item(kind, payload)).unwrap() == task


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("restart", "{nope"),
        ("restart", {}),
        ("stop", {"deploymentId": ""}),
        ("stop", {"deploymentId": 5}),
        ("force_cleanup", {"serviceId": "s"}),
        pytest.param(
            "force_cleanup",
            {"serviceId": "s", "containerIds": ["c"] * (bounds.WORK_CONTAINERS + 1)},
            id="too many containers",
        ),
        ("cleanup_volumes", {"serviceId": "../etc"}),
        ("cleanup_volumes", {"serviceId": "a/b"}),
        ("cleanup_volumes", {"serviceId": "."}),
        ("cleanup_volumes", {"serviceId": ""}),
        ("explode", {}),
    ],
)
def test_a_bad_item_is_refused(kind: str, payload: object) -> None:
    """L34, L35: with a reason, and never by an exception."""
    found = work.parse(item(kind, payload))
    assert not is_successful(found)
    assert found.failure()


@given(st.sampled_from(["restart", "stop", "force_cleanup", "cleanup_volumes", "x"]), st.text())
def test_any_payload_is_parsed_or_refused(kind: str, payload: str) -> None:
    """Nothing from outside raises."""
    work.parse(item(kind, payload))


def test_what_a_restart_comes_to() -> None:
    """The deployment's container, whatever id the item names; the running one of several."""
    stopped = an_actual_container(id=ContainerId("a" * 64), state="exited")
    assert work.decide(Restart(DEPLOYMENT), (stopped, ONE)) == RestartContainer(ONE.id, ONE.name, f"{ONE.id} 0")
    assert isinstance(work.decide(Restart(DeploymentId("other")), (ONE,)), Refuse)


def test_what_a_stop_comes_to() -> None:
    """All containers of the deployment; none is as good as done."""
    assert work.decide(Stop(DEPLOYMENT), (ONE,)) == RemoveContainers((ONE,), by_force=False)
    assert isinstance(work.decide(Stop(DeploymentId("other")), (ONE,)), Nothing)
    step = work.decide(Stop(DEPLOYMENT), (ONE,))
    assert isinstance(step, RemoveContainers) and work.touched(step) == {DEPLOYMENT}


def test_what_a_cleanup_comes_to() -> None:
    """L36: only containers that carry the service's label, of those that are named."""
    other = an_actual_container(id=ContainerId("b" * 64), service_id="other")
    ids = (ONE.id, other.id)
    assert work.decide(ForceCleanup(ONE.service_id, frozenset(ids)), (ONE, other)) == RemoveContainers(
        (ONE,), by_force=True
    )
    assert isinstance(work.decide(ForceCleanup(ONE.service_id, frozenset()), (ONE,)), Nothing)


def test_volumes_go_only_when_nothing_runs() -> None:
    """L35: refused while a container of the service runs that is wanted."""
    wanted = frozenset({DEPLOYMENT})
    assert isinstance(work.decide(CleanupVolumes(ONE.service_id), (ONE,), expected=wanted), Refuse)
    resting = an_actual_container(state="exited")
    assert work.decide(CleanupVolumes(ONE.service_id), (resting,), expected=wanted) == RemoveVolumes(ONE.service_id)
    assert work.decide(CleanupVolumes("another"), (ONE,)) == RemoveVolumes("another")


@pytest.mark.parametrize("expected", [None, frozenset(), frozenset({DeploymentId("other")})])
@pytest.mark.parametrize("state", ["running", "exited"])
def test_volumes_wait_for_a_container_that_is_about_to_go(expected: frozenset[DeploymentId] | None, state: str) -> None:
    """The item comes when the service is deleted, before its containers are stopped, and never again."""
    leaving = an_actual_container(state=state)
    assert isinstance(work.decide(CleanupVolumes(ONE.service_id), (leaving,), expected=expected), Later)


def test_a_restart_that_was_interrupted_is_not_done_twice() -> None:
    """L26: another process than when it was begun says that it was done; a container at rest is started in any case."""
    before, after = an_actual_container(pid=7), an_actual_container(pid=9)
    first = work.decide(Restart(DEPLOYMENT), (before,))
    assert isinstance(first, RestartContainer)
    assert work.decide(Restart(DEPLOYMENT), (before,), first.mark) == first
    assert isinstance(work.decide(Restart(DEPLOYMENT), (after,), first.mark), Nothing)
    down = an_actual_container(state="exited")
    assert isinstance(work.decide(Restart(DEPLOYMENT), (down,), first.mark), RestartContainer)


@pytest.mark.parametrize("task", [Stop(DEPLOYMENT), Restart(DEPLOYMENT), CleanupVolumes(ONE.service_id)])
def test_a_stop_under_way_is_waited_for(task: work.Task) -> None:
    """L47: a person may have given the process time; only what is asked for by force is done at once."""
    stopping = (an_actual_container(state="stopping"),)
    everything = frozenset({DEPLOYMENT})
    assert work.decide(task, stopping, expected=everything) == Later(f"container {ONE.name} is being stopped")
    forced = work.decide(ForceCleanup(ONE.service_id, frozenset({ONE.id})), stopping, expected=everything)
    assert forced == RemoveContainers(stopping, by_force=True)


@pytest.mark.parametrize("state", ["process_gone", "stop_overdue", "removing"])
def test_a_restart_of_what_is_made_anew(state: str) -> None:
    """L48: Podman could not, and the next look does more than it. One whose removal has begun would start without its network."""
    assert isinstance(work.decide(Restart(DEPLOYMENT), (an_actual_container(state=state),)), Nothing)
