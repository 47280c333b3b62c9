"""`core.memory`: what is remembered from one round to the next."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from core import memory, retry
from core.action import (
    Action,
    CouldNotBeRead,
    Deploy,
    Differs,
    NoContainer,
    NotExpected,
    NotRunning,
    Redeploy,
    StopOrphan,
    UpdateCaddy,
)
from core.caddy import Route
from core.containers import ContainerId, DeploymentId, Volume
from core.digest import Difference
from core.events import Applied, Failed
from core.fetching import ImageRequest
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


def requests(known: Memory, drift: tuple[Action, ...], now: float = 0.0) -> tuple[ImageRequest, ...]:
    """The images that are to be asked for."""
    return memory.image_requests(known, ExpectedState(), drift, now)


def asked(known: Memory, drift: tuple[Action, ...], now: float = 0.0) -> Memory:
    """After they have been."""
    return replace(known, images=known.images.asked(requests(known, drift, now)))


def fetched(known: Memory, drift: tuple[Action, ...], failure: str | None = None, now: float = 0.0) -> Memory:
    """After they have been answered, all alike."""
    known = asked(known, drift, now)
    for one in tuple(known.images.on_the_way.values()):
        known = memory.image_fetched(known, one, failure, now)
    return known


def ready(known: Memory, drift: tuple[Action, ...], now: float) -> tuple[Action, ...]:
    """The changes that may be made now."""
    return tuple(memory.ready(known, ExpectedState(), drift, now))


def test_what_waits_is_not_ready_and_the_rest_is() -> None:
    """L11: by its own key only."""
    drift = (deploy("a"), deploy("b"), deploy("c"))
    tried = memory.record(fetched(EMPTY, drift), drift[0], Failed("x"), 100.0)
    assert ready(tried, drift, 100.0) == drift[1:]
    assert requests(tried, drift, 100.0) == ()
    assert ready(fetched(tried, drift, now=110.0), drift, 110.0) == (*drift[1:], drift[0])


def test_nothing_is_begun_without_its_image() -> None:
    """Each is asked for once; what is here is used once, since it may be gone at the next attempt."""
    drift = (deploy("a"), deploy("b"))
    waiting = asked(EMPTY, drift)
    assert [one.deployment_id for one in requests(EMPTY, drift)] == ["a", "b"]
    assert (ready(waiting, drift, 0.0), requests(waiting, drift)) == ((), ())
    here = memory.image_fetched(waiting, waiting.images.on_the_way[DeploymentId("b")], None, 1.0)
    assert ready(here, drift, 1.0) == drift[1:]
    used = memory.record(here, drift[1], Applied(), 2.0)
    assert [one.deployment_id for one in requests(used, drift, 20.0)] == ["b"]


def test_an_image_that_cannot_be_had_waits_by_itself() -> None:
    """Backoff, with the reason; the change that needs it has not been tried."""
    failed = fetched(EMPTY, (deploy("a"),), "no such tag", 50.0)
    assert (ready(failed, (deploy("a"),), 50.0), requests(failed, (deploy("a"),), 50.0)) == ((), ())
    assert len(requests(failed, (deploy("a"),), 60.0)) == 1
    ((key, one),) = failed.retries.items()
    assert (key[:2], one.failure, one.count) == (("fetch_image", "a"), "no such tag", 1)
    assert fetched(failed, (deploy("a"),), None, 60.0).retries == {}


def test_another_image_of_the_same_deployment_is_asked_for_at_once() -> None:
    """A user who replaces a bad tag by a good one waits for nothing; the answer for the bad one is not taken for the good one's."""
    bad, good = (
        Deploy(an_expected_container(deployment_id=DeploymentId("a"), image=an_image(text)), NoContainer())
        for text in ("slow:1", "slow:2")
    )
    waiting = asked(EMPTY, (bad,))
    (wanted,) = requests(waiting, (good,))
    late = memory.image_fetched(asked(waiting, (good,)), ImageRequest(DeploymentId("a"), IMAGE), None, 1.0)
    assert wanted.image == an_image("slow:2")
    assert ready(late, (good,), 1.0) == ()


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    """The expected state has changed since."""
    assert memory.image_fetched(EMPTY, ImageRequest(DeploymentId("a"), IMAGE), "x", 1.0) == EMPTY


@pytest.mark.parametrize("outcome", [Applied(), Failed("x")])
def test_an_unfinished_action_is_finished_however_it_ended(outcome: Applied | Failed) -> None:
    """Otherwise no change would ever be made again."""
    ours, other = deploy("a"), deploy("b")
    unfinished = replace(EMPTY, unfinished=retry.key(ours))
    assert memory.record(unfinished, other, outcome, 1.0).unfinished == retry.key(ours)
    assert memory.record(unfinished, ours, outcome, 1.0).unfinished is None


def test_the_stop_that_waits_for_a_bad_image_goes_on_once_another_release_is_wanted() -> None:
    """A user who replaces a bad release by a good one does not wait for the pause of the bad one."""
    bad = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (an_expected_container(image=IMAGE),))
    waiting = fetched(EMPTY, (bad,), "no such tag", 1.0)
    good = structs.replace(bad, successors=(an_expected_container(deployment_id=DeploymentId("next")),))
    assert ready(waiting, (bad,), 2.0) == ()
    assert ready(fetched(waiting, (good,), now=2.0), (good,), 2.0) == (good,)


def test_a_successor_never_overtakes_the_stop_that_waits_for_its_image() -> None:
    """L18: both wait for the same image, which is asked for once; the old one is stopped first."""
    successor = an_expected_container(deployment_id=DeploymentId("next"), image=IMAGE)
    stop = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (successor,))
    drift = (stop, Deploy(successor, NoContainer()), deploy("other"))
    waiting = asked(EMPTY, drift)
    assert [one.deployment_id for one in requests(EMPTY, drift)] == ["next", "other"]
    here = memory.image_fetched(waiting, waiting.images.on_the_way[DeploymentId("other")], None, 1.0)
    assert ready(here, drift, 1.0) == (deploy("other"),)
    here = memory.image_fetched(here, here.images.on_the_way[DeploymentId("next")], None, 2.0)
    assert ready(here, drift, 2.0) == drift


def test_of_two_successors_none_overtakes_the_stop_that_waits_for_the_other() -> None:
    """L18: the stop waits for both images, and the container whose image is here must not run beside the old one meanwhile."""
    one, other = (an_expected_container(deployment_id=DeploymentId(name), name=name) for name in ("n1", "n2"))
    stop = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (one, other))
    drift = (stop, Deploy(one, NoContainer()), Deploy(other, NoContainer()))
    waiting = asked(EMPTY, drift)
    here = memory.image_fetched(waiting, waiting.images.on_the_way[DeploymentId("n1")], None, 1.0)
    assert ready(here, drift, 1.0) == ()


@pytest.mark.parametrize(("volumes", "goes_on"), [((), True), ((Volume("data", "/data"),), False)])
def test_after_a_stop_that_failed_only_what_has_volumes_waits(volumes: tuple[Volume, ...], *, goes_on: bool) -> None:
    """L18: two containers on the same data are worse than one that comes later."""
    successor = an_expected_container(deployment_id=DeploymentId("next"), volumes=volumes)
    stop = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (successor,))
    new = Deploy(successor, NoContainer())
    failed = memory.record(fetched(EMPTY, (stop, new)), stop, Failed("it does not stop"), 0.0)
    assert ready(failed, (stop, new), 1.0) == ((new,) if goes_on else ())
    assert ready(failed, (stop, new), 60.0) == (stop, new)


def test_a_stop_under_way_is_waited_for() -> None:
    """L47: neither is its container touched, nor comes what replaces it; everything else goes on."""
    successor = an_expected_container(deployment_id=DeploymentId("next"))
    stop = StopOrphan(DeploymentId("old"), ContainerId("old"), "n", NotExpected(), (successor,))
    again = Redeploy(an_expected_container(), ContainerId("slow"), NotRunning("stopping"))
    drift = (stop, Deploy(successor, NoContainer()), again, deploy("other"))
    stopping = replace(EMPTY, stops=frozenset([ContainerId("old"), ContainerId("slow")]))
    assert ready(fetched(stopping, drift), drift, 1.0) == (deploy("other"),)
    assert ready(fetched(EMPTY, drift), drift, 1.0) == drift


def test_route_updates_that_come_close_together_become_one() -> None:
    """A reload of Caddy ends long-lived streams; bringing Caddy up does not wait."""
    first, second = (UpdateCaddy((), Differs(Difference(added=(name,)))) for name in ("a", "b"))
    second = structs.replace(second, routes=(Route("b", "b.test", "s", ("10.200.1.2:80",)),))
    after = memory.record(EMPTY, first, Applied(), 100.0)
    assert ready(after, (second,), 104.0) == ()
    assert ready(after, (second,), 105.1) == (second,)
    unread = structs.replace(second, reason=CouldNotBeRead())
    assert ready(after, (unread,), 100.5) == (unread,)
