"""`core.machine` when Podman says that a container has ended: looked at soon, with the state in force, and no more often than that."""

import itertools

import pytest

from core.events import ContainersChanged, Fetch, Look, PauseSeen, Perform, Woken
from core.image import Image
from core.next_look import APART_S
from core.pause import Pause
from core.phases import AwaitingImages, Closing, Looking, LookingAgain
from core.state import ActualState, ExpectedState
from tests.core.simulated_server import SLOW, Server, failing, there, want

SOON_S = 0.3  # without the time that Podman takes to say it


def begun(server: Server, since: float = 0.0) -> list[float]:
    """When changes were begun."""
    return [when for when, _ in server.asked(Perform, since)]


@pytest.mark.parametrize("left", [there("a", state="exited"), ActualState()], ids=["died", "removed"])
@pytest.mark.parametrize("answered", [True, False])
def test_what_has_ended_is_planned_for_at_once(left: ActualState, *, answered: bool) -> None:
    """L53: from a fresh look and the state in force; the control plane is not asked."""
    server = Server(want("a"), there("a"))
    server.run(2.0)
    server.expected = want("a") if answered else None
    server.actual, since = left, server.now
    server.say(ContainersChanged())
    server.run(SOON_S)
    assert len(begun(server)) == 1
    server.run(1.0)
    assert server.converged if answered else {one.state for one in server.actual.containers} == {"running"}
    assert server.asked(Fetch, since) == []


def test_a_burst_is_one_look() -> None:
    """A hundred containers that end together, in whatever order that is heard of."""
    server = Server(want("a"), there("a"))
    server.run(2.0)
    since = server.now
    for number in range(100):
        server.say(ContainersChanged(), number * 0.001)
    server.run(2.0)
    assert len(server.asked(Look, since)) == 1


def test_an_endless_burst_is_two_looks_a_second_at_most() -> None:
    """L14: and it neither keeps the look off nor brings the polls closer."""
    server = Server(want("a"), there("a"))
    for number in range(3000):
        server.say(ContainersChanged(), number * 0.01)
    server.run(30.0)
    looks = [when for when, _ in server.asked(Look)]
    polls = [when for when, _ in server.asked(Fetch)]
    assert len(looks) <= 30 / APART_S + len(polls)
    assert max(later - sooner for sooner, later in itertools.pairwise(looks)) <= 1.0
    assert len(polls) <= 4


def test_a_container_that_dies_again_and_again_gains_nothing_by_it() -> None:
    """L14: its first restart is made at once, each later one when its pause is over."""
    server = Server(want("a"), there("a"))
    server.run(2.0)
    since = server.now
    for _ in range(1600):
        if server.actual.containers[0].state == "running":
            server.actual = there("a", state="exited", lived_s=0.5)
            server.say(ContainersChanged())
        server.run(0.1)
    starts = [when - since for when in begun(server, since)]
    assert starts[0] <= SOON_S
    pauses = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert len(pauses) == 4
    for pause, full in zip(pauses, [10, 20, 40, 80], strict=True):
        assert 0.9 * full <= pause <= full + 0.5


def test_a_container_that_dies_once_an_hour_is_back_at_once_each_time() -> None:
    """Ten quiet minutes have cleared its record."""
    server = Server(want("a"), there("a"))
    for _ in range(5):
        server.run(3600.0)
        server.actual, since = there("a", state="exited", lived_s=3600.0), server.now
        server.say(ContainersChanged())
        server.run(1.0)
        assert begun(server, since) == [pytest.approx(since + 0.25, abs=0.1)]


@pytest.mark.parametrize("phase", [Looking, LookingAgain, Closing])
def test_what_ends_during_a_look_is_looked_at_after_it(phase: type) -> None:
    """That look may have come too soon for it; a change that is being made is followed by a look in any case."""
    server = Server(want("a", "b"), there("b"))
    while not isinstance(server.state.phase, phase):
        server.run(0.01)
    begun_at = server.now
    server.say(ContainersChanged())
    server.run(0.02)
    server.actual = ActualState(tuple(one for one in server.actual.containers if one.name != "b"))
    server.run(2.0)
    assert server.converged
    assert len(server.asked(Fetch, begun_at)) == 0


def test_what_ends_during_a_change_needs_no_look_of_its_own() -> None:
    """What the agent itself stops is heard of while it does."""
    quiet, noisy = Server(want("a", "b"), there("z")), Server(want("a", "b"), there("z"))
    for after_s in (0.1, 0.2, 0.25):
        noisy.say(ContainersChanged(), after_s)
    for server in (quiet, noisy):
        server.run(9.0)
    assert len(noisy.asked(Look)) == len(quiet.asked(Look))


@pytest.mark.parametrize("kept", ["paused", "its image is pulled", "woken", "put aside"])
def test_where_a_plan_would_bring_nothing_none_is_made(kept: str) -> None:
    """A look for each that has ended at most, and none where a poll follows at once or nothing may be changed."""
    slow: dict[Image, tuple[float, str | None]] = {want("a").containers[0].image: (900.0, None)}
    server = Server(want("a"), there("z"), outcome=failing("a"), pulls=slow if kept == "its image is pulled" else {})
    server.expected = want("a", "z")
    server.run(15.0 if kept == "its image is pulled" else 5.0)
    if kept == "paused":
        server.say(PauseSeen(Pause(0.0, None, "")))
    elif kept == "woken":
        server.say(Woken())
        server.say(Woken(), 0.3)
    since, done = server.now, len(server.done())
    for number in range(4):
        server.say(ContainersChanged(), 0.35 + 0.01 * number)
    server.run(2.0)
    assert len(server.done()) == done
    polls, looks = len(server.asked(Fetch, since)), len(server.asked(Look, since))
    assert (polls, looks) == {"paused": (0, 0), "woken": (2, 2)}.get(kept, (0, 1))


def test_while_images_are_awaited_what_has_ended_is_made_good_at_once() -> None:
    """L53: the round waits for an image for ten seconds, and nobody else waits with it."""
    wanted = ExpectedState((*want("a", image=SLOW).containers, *want("b").containers))
    server = Server(wanted, there("b"), pulls={SLOW: (900.0, None)})
    server.run(4.0)
    assert isinstance(server.state.phase, AwaitingImages)
    server.actual = there("b", state="exited")
    server.say(ContainersChanged())
    server.run(1.0)
    assert server.done() == ["start b"]
