"""`shell.loops.reconcile`: what nobody foresaw ends one turn, in what the loop calls and in the machine itself."""

from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from core import machine
from core.events import Event, Looked
from core.phases import State
from tests.core.simulated_server import want
from tests.shell.test_reconcile import Server, after, play


@pytest.mark.parametrize("step", ["fetch", "look", "perform", "remember", "deliver"])
def test_a_fault_of_ours_ends_one_turn_only(step: str) -> None:
    """L57: it is logged once with its trace; the loop goes on, and what failed is tried again."""

    async def wrong() -> None:
        raise KeyError("no such thing")

    server = Server(want("a"), scripts={step: wrong})
    with capture_logs() as said:
        play(server, after(60))
    (one,) = [one for one in said if one["event"] == "part failed"]
    assert "KeyError: 'no such thing'" in one["reason"]
    assert "in wrong" in one["trace"]
    assert len(server.fetched) >= 5


def test_a_fault_in_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """L57: the round is dropped, the memory stays, the next poll comes after a pause; no event is tried in a hurry."""
    step, times = machine.step, list[float]()

    def broken(state: State, event: Event, now: float) -> machine.Step:
        if isinstance(event, Looked) and now < 100:
            times.append(now)
            raise RecursionError("maximum recursion depth exceeded")
        return step(state, event, now)

    monkeypatch.setattr(machine, "step", broken)
    server = Server(want("a"))
    with capture_logs() as said:
        play(server, after(200))
    assert [later - sooner for sooner, later in pairwise(times)][:3] == pytest.approx([1, 2, 4], abs=1.5)
    events = [one["event"] for one in said]
    assert (events.count("part failed"), events.count("part works again")) == (1, 1)
    assert "applied" in events


def test_a_machine_that_takes_no_event_can_still_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """L13, L57: a stop is no event like others."""

    def broken(state: State, event: Event, now: float) -> machine.Step:
        raise AssertionError(event)

    monkeypatch.setattr(machine, "step", broken)
    play(Server(want("a")), after(30))
