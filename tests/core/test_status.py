"""`core.status`: truth in reports (L30, L31, L32)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import retry, status
from core.containers import ActualContainer, ContainerId, DeploymentId
from core.retry import Retries
from core.status import Entry, Resources
from tests.builders import CONTAINER, DEPLOYMENT, an_actual_container

STATES = (
    "running",
    "created",
    "configured",
    "initialized",
    "paused",
    "stopping",
    "stopped",
    "exited",
    "removing",
    "dead",
    "damaged",
    "unknown",
)
UP = frozenset({ContainerId(CONTAINER)})


def entries(*containers: ActualContainer, up: bool = True, attempts: int = 0) -> tuple[Entry, ...]:
    """The report about some containers of the healthy deployment."""
    retries: Retries = {}
    for _ in range(attempts):
        retries = retry.after_attempt(retries, ("start", DEPLOYMENT, "x"), 0.0, "x")
    return status.entries(containers, UP if up else frozenset(), retries)


def only(health: str, state: str, **facts: Any) -> tuple[str, str] | None:
    """Status and health of the one entry, or None."""
    found = entries(an_actual_container(health=health, state=state), **facts)
    return (found[0].status, found[0].health) if found else None


@pytest.mark.parametrize(
    ("state", "word"),
    [("running", "running"), ("dead", "failed"), ("damaged", "failed"), ("unknown", "failed"), ("a new word", "failed"),
     *((state, "stopped") for state in STATES[1:9])],
)  # fmt: skip
def test_every_state_has_a_word(state: str, word: str) -> None:
    """L31: mapped explicitly, and what has run is never left out."""
    assert only("none", state) == (word, "none" if state == "running" else "starting")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("health", ["starting", "healthy", "unhealthy"])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("attempts", [0, 2, 3])
def test_with_a_health_check(state: str, health: str, up: bool, attempts: int) -> None:
    """L30: always listed, never `none`; healthy only while it runs; `unhealthy` after three attempts."""
    found = only(health, state, up=up, attempts=attempts)
    assert found is not None
    if state == "running":
        assert found[1] == (health if up else "starting")
    else:
        assert found[1] == ("unhealthy" if attempts == 3 else "starting")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("attempts", [0, 3])
def test_one_that_has_never_run_is_left_out(state: str, attempts: int) -> None:
    """L30: without a health check, presence alone would read as healthy."""
    assert only("none", state, up=False, attempts=attempts) is None


@pytest.mark.parametrize("state", STATES[1:])
@pytest.mark.parametrize("health", ["none", "starting", "healthy", "unhealthy", "", "odd"])
@pytest.mark.parametrize("attempts", [0, 1, 5])
def test_what_does_not_run_never_reads_as_healthy(state: str, health: str, attempts: int) -> None:
    """L30: neither `healthy` nor `none`, whatever Podman remembers."""
    found = only(health, state, attempts=attempts)
    assert found is not None
    assert found[1] in ("starting", "unhealthy")


def test_a_bad_end_is_said() -> None:
    """By the exit code or by failed attempts."""
    assert entries(an_actual_container(state="exited", exit_code=1))[0].status == "failed"
    assert entries(an_actual_container(state="exited"))[0].status == "stopped"
    assert entries(an_actual_container(state="exited"), attempts=1)[0].status == "failed"


def test_without_a_deployment_id_nothing_is_sent() -> None:
    """L32: the control plane would attach it to any deployment."""
    assert entries(an_actual_container(deployment_id=None)) == ()


@pytest.mark.parametrize(
    ("facts", "up"),
    [
        ({"state": "running"}, True),
        ({"state": "running", "running_for_s": 2.0}, True),
        ({"state": "running", "running_for_s": 1.9}, False),
        ({"state": "running", "running_for_s": -5.0}, False),
        ({"state": "exited"}, False),
        ({"state": "exited", "lived_s": 1.0}, False),
        ({"state": "exited", "lived_s": 2.0}, True),
        ({"state": "created", "lived_s": None}, False),
        ({"state": "paused"}, True),
        ({"state": "stopping"}, True),
    ],
)
def test_when_a_container_counts_as_having_been_up(facts: dict[str, Any], up: bool) -> None:
    """L17: one that dies a second after its start does not count as deployed."""
    one = an_actual_container(**facts)
    assert (one.id in status.now_up((one,), frozenset())) is up


def test_having_been_up_is_remembered_as_long_as_the_container_exists() -> None:
    """L31; ids that are gone are forgotten, which bounds the memory."""
    one = an_actual_container(state="exited", lived_s=0.1)
    assert status.now_up((one,), frozenset({one.id, ContainerId("gone")})) == {one.id}


@pytest.mark.parametrize(
    ("facts", "wait"),
    [
        ({"running_for_s": 0.5}, 1.5),
        ({"running_for_s": 2.0}, None),
        ({"running_for_s": None}, None),
        ({"state": "exited", "running_for_s": 0.5}, None),
    ],
)
def test_when_the_next_container_counts_as_up(facts: dict[str, Any], wait: float | None) -> None:
    """So that a look can be made then, and the report goes out."""
    assert status.next_up_in_s((an_actual_container(**facts),)) == wait


def test_one_entry_a_deployment_the_running_one_first() -> None:
    """Then the newest; by deployment id."""
    old = an_actual_container(id=ContainerId("old"), state="exited", created=2_000_000_000)
    other = an_actual_container(id=ContainerId("b"), deployment_id=DeploymentId("0"))
    ids = frozenset({ContainerId(CONTAINER), ContainerId("old"), ContainerId("b")})
    found = status.entries((old, an_actual_container(), other), ids, {})
    assert [(one.deployment_id, one.container_id) for one in found] == [("0", "b"), (DEPLOYMENT, CONTAINER)]


def test_a_spare_that_is_not_up_yet_does_not_hide_the_one_that_is() -> None:
    """L31: a container of ours that has run is never left out."""
    young = an_actual_container(id=ContainerId("young"), created=2_000_000_000, running_for_s=0.1)
    assert [one.container_id for one in entries(young, an_actual_container())] == [CONTAINER]


@given(st.permutations([(1, "b"), (1, "c"), (2, "a"), (3, "d"), (3, "e")]))
def test_the_oldest_container_first(listed: list[tuple[int, str]]) -> None:
    """However they are listed."""
    there = [
        an_actual_container(id=ContainerId(key), deployment_id=DeploymentId(key), created=created)
        for created, key in listed
    ]
    found = status.entries(tuple(there), frozenset(one.id for one in there), {})
    assert [one.container_id for one in found] == ["b", "c", "a", "d", "e"]


@given(st.permutations([an_actual_container(id=ContainerId(str(n)), state=state) for n, state in enumerate(STATES)]))
def test_the_order_of_the_listing_means_nothing(containers: list[ActualContainer]) -> None:
    """The same report for every order."""
    ids = frozenset(one.id for one in containers)
    assert status.entries(tuple(containers), ids, {}) == status.entries(tuple(reversed(containers)), ids, {})


def test_the_body_of_a_report() -> None:
    """Field names of PROTOCOL §5; `containers` is always there, the rest may be left out."""
    found = status.encode(entries(an_actual_container()), Resources(4, 7821, 79), "203.0.113.7")
    assert json.loads(found) == {
        "resources": {"cpuCores": 4, "memoryMb": 7821, "diskGb": 79},
        "publicIp": "203.0.113.7",
        "containers": [
            {"deploymentId": DEPLOYMENT, "containerId": CONTAINER, "status": "running", "healthStatus": "none"}
        ],
    }
    assert status.encode((), None, None) == status.encode((), None, "") == b'{"containers":[]}'
