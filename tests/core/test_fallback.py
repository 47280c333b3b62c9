"""`core.fallback`: where the machine goes on after a transition that raised."""

import pytest

from core import machine, retry
from core.action import Deploy, NoContainer
from core.events import ActionDone, Applied, Event, Fetched, Looked, Tick
from core.fallback import after_fault
from core.memory import Memory
from core.phases import Changing, Fetching, Idle, Processing, State, Waiting
from core.state import ActualState, ExpectedState, NodeType
from tests.builders import an_expected_container

ACTION = Deploy(an_expected_container(), NoContainer())
MEMORY = Memory(NodeType.WORKER, polls=7)
CHANGING = Processing(MEMORY, ExpectedState(), 0.0, Changing(ACTION))


@pytest.mark.parametrize(
    ("state", "event", "unfinished"),
    [
        (Idle(MEMORY, Fetching()), Fetched(ExpectedState()), False),
        (CHANGING, Tick(), True),
        (CHANGING, Looked(ActualState()), True),
        (CHANGING, ActionDone(ACTION, Applied()), False),
    ],
)
def test_it_is_idle_with_its_memory(state: State, event: Event, unfinished: bool) -> None:
    """L57: a change that still runs is not begun a second time beside itself."""
    found = after_fault(state, event, 100.0, 4.0)
    assert found.phase == Waiting(104.0)
    assert found.memory.polls == 7
    assert found.memory.unfinished == (retry.key(ACTION) if unfinished else None)


def test_the_end_of_a_change_that_outlived_its_round_is_heard() -> None:
    """And then changes are made again."""
    found = after_fault(CHANGING, Tick(), 100.0, 4.0)
    following, _ = machine.step(found, ActionDone(ACTION, Applied()), 101.0)
    assert following.memory.unfinished is None
