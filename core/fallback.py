"""Where the state machine goes on after a transition that raised: idle, with the memory that it had before, and a poll after a pause.

The event that could not be digested is dropped, and so is the round that was under way: its snapshot may be what cannot be digested, while
the memory has served every transition so far. Nothing is lost by it, since the next poll fetches and looks anew, and images are asked for
again: the event may have been the answer to such a request. A change that still runs is remembered as unfinished, so that no second one
begins beside it; answers to what was asked before mean nothing in this state.
"""

from dataclasses import replace

from core import retry
from core.events import ActionDone, Event
from core.fetching import Images
from core.phases import Changing, Idle, State, Waiting


def after_fault(state: State, event: Event | None, now: float, pause_s: float) -> Idle:
    """The state to go on from. `event` is what the transition was for, None when it had not come to that; times in seconds."""
    memory = state.memory
    unfinished = retry.key(state.phase.action) if isinstance(state.phase, Changing) else memory.unfinished
    if isinstance(event, ActionDone) and retry.key(event.action) == unfinished:
        unfinished = None
    return Idle(replace(memory, unfinished=unfinished, images=Images()), Waiting(now + pause_s))
