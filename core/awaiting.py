"""How a round asks for the images that its changes need, and how long it waits for them."""

import math
from dataclasses import replace
from typing import Final

from core import retry
from core.action import Action, Update
from core.events import Effect, FetchImages
from core.memory import DEADLINE_S, image_requests, over
from core.phases import Closing, Idle, Processing, State, Waiting

# Names, routes and peers wait so long for containers whose images are about to come: most come within a second.
IN_ORDER_S: Final = 2.0
# From one look to another: images that come together are looked at together.
TOGETHER_S: Final = 0.1
# Since the last image came: a round that goes on costs less than the next poll and its round.
IMAGE_PATIENCE_S: Final = 10.0


def ask(state: Processing, now: float) -> tuple[Processing, tuple[Effect, ...]]:
    """All that are missing at once, so that none waits for a change that it has nothing to do with."""
    memory = state.memory
    if over(memory, state.began_at, now) is not None:
        return state, ()
    requests = image_requests(memory, state.snapshot, memory.drift, now)
    if not requests:
        return state, ()
    # What failed before must not make names and routes wait again with each attempt.
    tried = retry.attempts(memory.retries)
    is_first = math.isinf(state.asked_at) and any(one.deployment_id not in tried for one in requests)
    asked_at = now if is_first else state.asked_at
    asked = replace(memory, images=memory.images.asked(requests))
    return replace(state, memory=asked, asked_at=asked_at, image_at=now), (FetchImages(requests),)


def is_early(state: Processing, action: Action, now: float) -> bool:
    """Whether containers come first whose images are about to come."""
    is_later_kind = isinstance(action, Update)
    return is_later_kind and bool(state.memory.images.on_the_way) and now < state.asked_at + IN_ORDER_S


def until(state: Processing, now: float) -> float | None:
    """How long this round waits for images, None when it does not."""
    memory = state.memory
    if not memory.images.on_the_way or memory.woken or over(memory, state.began_at, now) is not None:
        return None
    in_order = state.asked_at + IN_ORDER_S
    latest = in_order if now < in_order else min(state.image_at + IMAGE_PATIENCE_S, state.began_at + DEADLINE_S)
    return latest if now < latest else None


def image_came(state: State, now: float) -> State:
    """What waited for an image goes on: in this round, or with a look at once when it has ended."""
    look_at = max(now, state.memory.looked_at + TOGETHER_S)
    match state:
        case Idle(phase=Waiting() as waiting):
            return replace(state, phase=replace(waiting, look_at=look_at))
        case Processing(phase=Closing() as closing):
            return replace(state, phase=replace(closing, look_at=look_at))
        case Processing():
            return replace(state, image_at=now)
        case _:  # a look follows anyway
            return state


def image_stays_away(state: State, again_at: float) -> State:
    """A round that has ended looks again when the image may be asked for again: its look took the request for one under way."""
    match state:
        case Idle(phase=Waiting(look_at=look_at) as waiting):
            sooner = again_at if look_at is None else min(look_at, again_at)
            return replace(state, phase=replace(waiting, look_at=sooner))
        case Processing(phase=Closing(looked=True, look_at=look_at) as closing):
            sooner = again_at if look_at is None else min(look_at, again_at)
            return replace(state, phase=replace(closing, look_at=sooner))
        case _:  # a look follows anyway, and finds out
            return state
