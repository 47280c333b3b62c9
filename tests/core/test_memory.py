"""`core.memory`: what is remembered from one round to the next."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from core import memory, retry
from core.action import Action, CouldNotBeRead, Deploy, Differs, NoContainer, NotExpected, StopOrphan, UpdateCaddy
from core.caddy import Route
from core.containers import ContainerId, DeploymentId, Volume
from core.digest import Difference
from core.events import Applied, Deferred, Failed
from core.memory import Memory
from core.state import ActualState, ExpectedState, NodeType
from tests.builders import an_actual_container, an_expected_container, an_image

EMPTY = Memory(NodeType.WORKER, seed="s")
IMAGE = an_image("slow:1")


def deploy(name: str) -> Action:
    """A deploy of the deployment of that name."""
    return Deploy(an_expected_container(deployment_id=DeploymentId(name), name=name), NoContainer())


def running(count: int, *, state: str = "running") -> tuple[ActualState, ExpectedState]:
    """That many containers and an expected state that wants all of them."""
    ids = [DeploymentId(f"d{n}") for n in range(count)]
    there = tuple(an_actual_container(id=ContainerId(key), deployment_id=key, state=state) for key in ids)
    return ActualState(there), ExpectedState(tuple(an_expected_container(deployment_id=key) for key in ids))


@given(st.text(max_size=5), st.integers(0, 1000), st.floats(0, 1e6), st.floats(0, 30))
def test_polls_are_ten_seconds_apart(seed: str, polls: int, last: float, waited: float) -> None:
    """Spread by half a second at most, never within a second of the last (L14)."""
    asleep = replace(EMPTY, seed=seed, polls=polls, last_poll_at=last)
    now = last + waited
    assert max(now, last + 9.5) <= memory.next_poll_at(asleep, now) <= max(now, last + 10.0)
    assert memory.next_poll_at(replace(asleep, woken=True), now) == max(now, last + 1.0)


def test_agents_do_not_poll_in_step() -> None:
    """The jitter depends on the agent and on the poll."""
    times = {
        memory.next_poll_at(replace(EMPTY, seed=s, polls=p, last_poll_at=0.0), 0.0) for s in "abc" for p in range(3)
    }
    assert len(times) > 6


@pytest.mark.parametrize(
    ("there", "wanted", "doomed"),
    [
        (2, 0, 0),
        (3, 0, 3),
        (3, 1, 0),
        (4, 1, 3),
        (5, 2, 3),
        (6, 3, 0),
        (6, 2, 4),
        (7, 3, 4),
        (100, 50, 0),
        (100, 49, 51),
    ],
)
def test_which_removals_are_suspicious(there: int, wanted: int, doomed: int) -> None:
    """L2: more than half of the containers that run, and at least three."""
    actual, expected = running(there)
    fewer = replace(expected, containers=expected.containers[:wanted])
    assert len(memory.doomed_by(fewer, actual)) == doomed


def test_containers_that_do_not_run_are_not_missed() -> None:
    """L2 counts those that run."""
    assert memory.doomed_by(ExpectedState(), running(5, state="exited")[0]) == frozenset()


def test_what_waits_is_not_ready_and_the_rest_is() -> None:
    """L11: by its own key only."""
    drift = (deploy("a"), deploy("b"), deploy("c"))
    tried = memory.record(EMPTY, drift[0], Failed("x"), 100.0)
    tried = memory.record(tried, drift[1], Deferred(IMAGE), 100.0)
    assert tuple(memory.ready(tried, drift, 100.0)) == drift[2:]
    assert tuple(memory.ready(tried, drift, 110.0)) == (drift[2], drift[0])


def test_a_pull_that_ends_frees_what_waited_for_it() -> None:
    """At once when the image is here; and the next poll follows soon."""
    drift = (deploy("a"), deploy("b"))
    waiting = memory.record(EMPTY, drift[0], Deferred(IMAGE), 0.0)
    waiting = memory.record(waiting, drift[1], Deferred(an_image("other:1")), 0.0)
    freed = memory.pull_ended(waiting, IMAGE, None, 50.0)
    assert (tuple(memory.ready(freed, drift, 50.0)), freed.woken) == (drift[:1], True)


def test_a_pull_that_fails_counts_as_an_attempt_of_what_waited_for_it() -> None:
    """Backoff, with the reason."""
    waiting = memory.record(EMPTY, deploy("a"), Deferred(IMAGE), 0.0)
    failed = memory.pull_ended(waiting, IMAGE, "no such tag", 50.0)
    assert tuple(memory.ready(failed, (deploy("a"),), 50.0)) == ()
    assert tuple(memory.ready(failed, (deploy("a"),), 60.0)) == (deploy("a"),)
    assert failed.retries[retry.key(deploy("a"))].failure == "no such tag"


def test_a_pull_that_nothing_waits_for_wakes_nobody() -> None:
    """It is only remembered, for a change that gave up waiting in the very moment in which the pull ended."""
    heard = memory.pull_ended(EMPTY, IMAGE, "x", 1.0)
    assert heard == replace(EMPTY, ended_early=frozenset({IMAGE}))
    after = memory.record(heard, deploy("a"), Deferred(IMAGE), 2.0)
    assert not after.pulling
    assert not after.ended_early
    assert after.woken


@pytest.mark.parametrize("outcome", [Applied(), Failed("x"), Deferred(IMAGE)])
def test_an_unfinished_action_is_finished_however_it_ended(outcome: Applied | Failed | Deferred) -> None:
    """Otherwise no change would ever be made again."""
    ours, other = deploy("a"), deploy("b")
    unfinished = replace(EMPTY, unfinished=retry.key(ours))
    assert memory.record(unfinished, other, outcome, 1.0).unfinished == retry.key(ours)
    assert memory.record(unfinished, ours, outcome, 1.0).unfinished is None


def test_the_stop_that_waits_for_a_bad_image_goes_on_once_another_release_is_wanted() -> None:
    """A user who replaces a bad release by a good one does not wait for the pause of the bad one."""
    bad = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (an_expected_container(image=IMAGE),))
    waiting = memory.pull_ended(memory.record(EMPTY, bad, Deferred(IMAGE), 0.0), IMAGE, "no such tag", 1.0)
    good = structs.replace(bad, successors=(an_expected_container(deployment_id=DeploymentId("next")),))
    assert tuple(memory.ready(waiting, (bad,), 2.0)) == ()
    assert tuple(memory.ready(waiting, (good,), 2.0)) == (good,)


def test_a_successor_never_overtakes_the_stop_that_waits_for_its_image() -> None:
    """L18: both wait for the same pull; the old one is stopped first, even when only its own patience has run out."""
    successor = an_expected_container(deployment_id=DeploymentId("next"), image=IMAGE)
    stop = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (successor,))
    drift = (stop, Deploy(successor, NoContainer()), deploy("other"))
    waiting = memory.record(EMPTY, stop, Deferred(IMAGE), 0.0)
    assert tuple(memory.ready(waiting, drift, 1.0)) == (deploy("other"),)
    here = memory.pull_ended(waiting, IMAGE, None, 2.0)
    assert tuple(memory.ready(here, drift, 2.0)) == drift


@pytest.mark.parametrize(("volumes", "goes_on"), [((), True), ((Volume("data", "/data"),), False)])
def test_after_a_stop_that_failed_only_what_has_volumes_waits(volumes: tuple[Volume, ...], *, goes_on: bool) -> None:
    """L18: two containers on the same data are worse than one that comes later."""
    successor = an_expected_container(deployment_id=DeploymentId("next"), volumes=volumes)
    stop = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (successor,))
    new = Deploy(successor, NoContainer())
    failed = memory.record(EMPTY, stop, Failed("it does not stop"), 0.0)
    assert tuple(memory.ready(failed, (stop, new), 1.0)) == ((new,) if goes_on else ())
    assert tuple(memory.ready(failed, (stop, new), 60.0)) == (stop, new)


def test_a_pull_that_brings_nothing_counts_as_a_failure() -> None:
    """L14: pulled, and still not here; another image of the same change may still be waited for."""
    pulled = memory.pull_ended(memory.record(EMPTY, deploy("a"), Deferred(IMAGE), 0.0), IMAGE, None, 1.0)
    again = memory.record(pulled, deploy("a"), Deferred(IMAGE), 2.0)
    assert (again.pulling, tuple(memory.ready(again, (deploy("a"),), 3.0))) == ({}, ())
    other = memory.record(pulled, deploy("a"), Deferred(an_image("other:1")), 2.0)
    assert (list(other.pulling.values()), dict(other.retries)) == ([an_image("other:1")], {})
    assert memory.record(pulled, deploy("a"), Applied(), 2.0).pulled == frozenset()


def test_route_updates_that_come_close_together_become_one() -> None:
    """A reload of Caddy ends long-lived streams; bringing Caddy up does not wait."""
    first, second = (UpdateCaddy((), Differs(Difference(added=(name,)))) for name in ("a", "b"))
    second = structs.replace(second, routes=(Route("b", "b.test", "s", ("10.200.1.2:80",)),))
    after = memory.record(EMPTY, first, Applied(), 100.0)
    assert list(memory.ready(after, (second,), 104.0)) == []
    assert list(memory.ready(after, (second,), 105.1)) == [second]
    unread = structs.replace(second, reason=CouldNotBeRead())
    assert list(memory.ready(after, (unread,), 100.5)) == [unread]
