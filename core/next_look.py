"""When to look at this server before the next poll: what is put aside is tried when its time comes, and not with the poll after it.

Knows no phase. Each time lies ahead, so that what cannot be done when its time has come never makes anybody look again and again; only
a change that failed while others are ready is followed by a look at once, and that change is put aside by then.
"""

from core import plan, status
from core.memory import Ending, Memory, next_try_at, ready
from core.state import ActualState, ExpectedState


def at(
    memory: Memory, expected: ExpectedState | None, actual: ActualState, now: float, ending: Ending | None = None
) -> float | None:
    """After a look that found `memory.drift` against `expected`, at the end of a round or without one; None: nothing but the poll.

    A container that has just started is looked at when it comes to count as up.
    """
    if ending is Ending.FAILED and expected is not None and any(ready(memory, expected, memory.drift, now)):
        return now
    up_in_s = status.next_up_in_s(actual.containers)
    retry_at = None if expected is None else next_try_at(memory, expected, memory.drift, now)
    times = (None if up_in_s is None else now + up_in_s, retry_at)
    return min((when for when in times if when is not None), default=None)


def without_listing(memory: Memory, snapshot: ExpectedState, beside: ActualState | None, now: float) -> float | None:
    """After a look that could not list the containers: for names, routes and peers, as far as those were seen."""
    if beside is None:
        return None
    return next_try_at(memory, snapshot, plan.beside_containers(snapshot, beside, memory.node_type), now)
