"""When to look at this server before the next poll: what is put aside is tried when its time comes, and what has ended is made good at
once, not with the poll after it.

Knows no phase. Each time lies ahead, so that what cannot be done when its time has come never makes anybody look again and again; only
a change that failed while others are ready is followed by a look at once, and that change is put aside by then.
"""

from typing import Final

from core import plan, status
from core.memory import Ending, Memory, image_requests, may_begin, next_try_at, ready
from core.state import ActualState, ExpectedState

GATHER_S: Final = 0.2  # what ends together is looked at together, and Podman has cleaned up after it
APART_S: Final = 0.5  # from one look to another that Podman's events ask for, however many there are


def at(
    memory: Memory, expected: ExpectedState | None, actual: ActualState, now: float, ending: Ending | None = None
) -> float | None:
    """After a look that found `memory.drift` against `expected`, at the end of a round or without one; None: nothing but the poll.

    A container that has just started is looked at when it comes to count as up.
    """
    if ending is Ending.FAILED and expected is not None and _could_go_on(memory, expected, now):
        return now
    up_in_s = status.next_up_in_s(actual.containers)
    retry_at = None if expected is None else next_try_at(memory, expected, memory.drift, now)
    times = (None if up_in_s is None else now + up_in_s, retry_at)
    return min((when for when in times if when is not None), default=None)


def _could_go_on(memory: Memory, expected: ExpectedState, now: float) -> bool:
    """Whether another change could be made now, or its image asked for."""
    can_be_made = any(ready(memory, expected, memory.drift, now))
    return can_be_made or bool(image_requests(memory, expected, memory.drift, now))


def without_listing(memory: Memory, snapshot: ExpectedState, beside: ActualState | None, now: float) -> float | None:
    """After a look that could not list the containers: for names, routes and peers, as far as those were seen."""
    if beside is None:
        return None
    return next_try_at(memory, snapshot, plan.beside_containers(snapshot, beside, memory.node_type), now)


def with_news(memory: Memory, look_at: float | None) -> float | None:
    """The same, or sooner when a container has ended since the last look; when a poll is about to follow, its look will do."""
    if memory.changed_at is None or memory.woken or not may_begin(memory):
        return look_at
    news_at = max(memory.changed_at + GATHER_S, memory.looked_at + APART_S)
    return news_at if look_at is None else min(look_at, news_at)
