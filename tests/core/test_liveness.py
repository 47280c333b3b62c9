"""`core.liveness`: processes that are gone and stops that do not end."""

import pytest

from core.containers import ContainerId
from core.liveness import COMMAND_LIMIT_S, GONE, LEFT_LIMIT_S, OVERDUE, STOPPING, Stops, marked
from core.plan import STARTABLE, next_action
from core.podman import is_half_removed, original_name, removal_name
from core.state import ExpectedState, NodeType
from tests.builders import CONTAINER, NAME, actual_of, an_actual_container, an_expected_container, nothing_there

ID = ContainerId(CONTAINER)
SEEN = Stops().after_listing([an_actual_container(state=STOPPING)], 100.0)


@pytest.mark.parametrize(
    ("own_limit_s", "commanded", "limit_s"),
    [(10.0, False, LEFT_LIMIT_S), (120.0, False, 120.0), (1e9, False, COMMAND_LIMIT_S), (10.0, True, COMMAND_LIMIT_S)],
    ids=["nobody stops it any more", "its own time-out is longer", "there is a bound", "a person's command runs"],
)
def test_how_long_a_stop_of_somebody_else_is_waited_for(own_limit_s: float, commanded: bool, limit_s: float) -> None:
    """L47: from when it was first seen, however often it is seen again."""
    again = SEEN.after_listing([an_actual_container(state=STOPPING)], 110.0)
    assert again.left_s(ID, 110.0, own_limit_s, commanded) == limit_s - 10


def test_a_stop_of_the_agents_own() -> None:
    """L47: its time is known, also after Podman's service was killed within."""
    own = SEEN.begun(ID, 120.0)
    assert own.left_s(ID, 115.0, 999.0, commanded=True) == 5.0
    assert own.after_listing([], 130.0) == Stops({}, {})


def test_a_stop_of_the_agents_own_that_never_began() -> None:
    """L47: Podman did not hear of it. A person's slow stop days later has its own time, and is not overdue at once."""
    running, stopping = [an_actual_container()], [an_actual_container(state=STOPPING)]
    failed = Stops().begun(ID, 113.0).after_listing(running, 101.0)
    assert failed.own_until == {ID: 113.0}, "it may not show yet"
    later = failed.after_listing(running, 200.0).after_listing(stopping, 9_000.0)
    assert later.left_s(ID, 9_001.0, 10.0, commanded=True) == COMMAND_LIMIT_S - 1
    own = failed.after_listing(stopping, 105.0).after_listing(stopping, 120.0)
    assert own.left_s(ID, 120.0, 10.0, commanded=True) == -7.0, "one that began stays the agent's own"


def test_what_stops_no_more_is_forgotten() -> None:
    """A later stop has its own time; a listing without any costs nothing."""
    idle = Stops()
    assert SEEN.after_listing([an_actual_container()], 110.0) == idle
    assert idle.after_listing([an_actual_container()], 110.0) is idle


@pytest.mark.parametrize(
    ("gone", "overdue", "name", "state"),
    [
        (frozenset([ID]), frozenset[ContainerId](), NAME, GONE),
        (frozenset[ContainerId](), frozenset([ID]), NAME, OVERDUE),
        (frozenset[ContainerId](), frozenset[ContainerId](), removal_name(NAME), "removing"),
    ],
)
def test_such_a_container_is_replaced(
    gone: frozenset[ContainerId], overdue: frozenset[ContainerId], name: str, state: str
) -> None:
    """L47, L48: it is shown in a state that is neither startable nor running."""
    (one,) = found = marked((an_actual_container(name=name),), gone, overdue)
    assert one.state == state
    assert state not in STARTABLE
    expected = ExpectedState(containers=(an_expected_container(),))
    actual = actual_of(nothing_there())
    action = next_action(expected, type(actual)(found, actual.dns, actual.caddy, actual.wireguard), NodeType.WORKER)
    assert type(action).__name__ == "Redeploy"


def test_all_others_stay_as_they_are() -> None:
    """Nothing is made anew at each look."""
    there = (an_actual_container(),)
    assert marked(there, frozenset(), frozenset()) is there


def test_the_name_of_what_is_being_removed() -> None:
    """Given once."""
    assert removal_name(removal_name(NAME)) == removal_name(NAME) != NAME
    assert (is_half_removed(NAME), original_name(removal_name(NAME))) == (False, NAME)
