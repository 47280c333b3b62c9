"""The agent's two states, as a pure function from (state, event) to (state, effects).

IDLE polls the control plane, looks at the server and compares. On drift it becomes PROCESSING, which works on a snapshot of the expected
state: it makes one change, looks again, and goes straight on, without polling, until nothing is left to do now, a change fails, or five
minutes have passed. Then it looks once more, reports, and is IDLE again.

The shell carries out the effects and answers each with one event; it decides nothing. Time (`now`, seconds of a monotonic clock) comes
in with every event. A fetch that fails leaves the last good expected state in force; a look that fails ends the round without a report,
since a listing that failed must never be taken for an empty server; names, routes and the tunnel, which need no listing, are kept up.
"""

from dataclasses import replace
from typing import TypeAlias

from core import awaiting, fetching, guard, next_look, plan, retry, saying, status
from core.containers import ContainerId
from core.events import (
    ActionDone,
    ContainersChanged,
    Effect,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchFailed,
    FetchImages,
    Finish,
    ImageFetched,
    Look,
    Looked,
    LookFailed,
    Note,
    PauseSeen,
    Perform,
    Report,
    Reported,
    StopAsked,
    Tick,
    Woken,
)
from core.liveness import STOPPING
from core.memory import (
    DEADLINE_S,
    Ending,
    Memory,
    doomed_by,
    image_fetched,
    is_doubtful,
    may_begin,
    next_poll_at,
    over,
    ready,
    record,
)
from core.pause import Pause
from core.phases import (
    AwaitingImages,
    Changing,
    Closing,
    Fetching,
    Idle,
    Looking,
    LookingAgain,
    Processing,
    State,
    Waiting,
)
from core.state import ActualState, hashes

Step: TypeAlias = tuple[State, tuple[Effect, ...]]


def start(memory: Memory, now: float) -> Step:
    """The first state: the first poll is due now."""
    return Idle(memory, Waiting(now)), ()


def step(state: State, event: Event, now: float) -> Step:
    """The one transition function; total over states and events. An event that means nothing in a state changes nothing."""
    following, effects = _step(state, event, now)
    if any(isinstance(one, Look) for one in effects):
        memory = replace(following.memory, looked_at=now, changed_at=None)
        return replace(following, memory=memory), effects
    return following, effects


def _step(state: State, event: Event, now: float) -> Step:
    match event:
        case StopAsked():
            return _stop(state)
        case PauseSeen(pause=pause):
            return _paused(state, pause, now)
        case ImageFetched():
            return _image_fetched(state, event, now)
        case ContainersChanged():
            return _again(replace(state, memory=replace(state.memory, changed_at=now)), now)
        case ActionDone(action=action) if state.memory.unfinished == retry.key(action):
            memory = replace(record(state.memory, action, event.outcome, now), unfinished=None, woken=True)
            return _noting(_again(replace(state, memory=memory), now), saying.said(memory, event, now))
        case Woken(removed=removed):
            memory = replace(state.memory, woken=True, removed=state.memory.removed | removed)
            return _again(replace(state, memory=memory), now)
        case _:
            return _idle(state, event, now) if isinstance(state, Idle) else _processing(state, event, now)


def _stop(state: State) -> Step:
    memory = replace(state.memory, stopping=True)
    if isinstance(state, Idle):
        return Idle(memory, state.phase), (Finish(),)
    return _no_longer_awaiting(replace(state, memory=memory))


def _paused(state: State, pause: Pause | None, now: float) -> Step:
    """A change in hand is finished; the next one is not begun. A pause's end is followed by a poll."""
    memory = replace(state.memory, paused=pause, woken=state.memory.woken or pause is None)
    following, effects = _again(replace(state, memory=memory), now)
    if pause is None:
        return following, (*effects, Note("warning", "resumed", (("then", "changes are made again"),)))
    facts = (("why", pause.reason or "no reason given"), ("then", "observed and reported; nothing is changed"))
    return following, (*effects, Note("warning", "paused", facts))


def _again(state: State, now: float) -> Step:
    """Bring the next poll or look forward when something woke us while waiting."""
    match state:
        case Idle(phase=Waiting(look_at=look_at)):
            return replace(state, phase=_waiting(state.memory, now, look_at)), ()
        case Processing(phase=AwaitingImages(until=until)) if not state.memory.woken:
            return replace(state, phase=AwaitingImages(next_look.with_news(state.memory, until) or until)), ()
        case _:
            return _no_longer_awaiting(state)


def _waiting(memory: Memory, now: float, look_at: float | None = None) -> Waiting:
    return Waiting(next_poll_at(memory, now), next_look.with_news(memory, look_at))


def _no_longer_awaiting(state: State) -> Step:
    """Something else is to be done than wait for images: look again and see."""
    if isinstance(state, Processing) and isinstance(state.phase, AwaitingImages):
        return replace(state, phase=LookingAgain()), (Look(),)
    return state, ()


def _image_fetched(state: State, event: ImageFetched, now: float) -> Step:
    """What waited for the image can go on: in this round, or with a look at once when it has ended."""
    memory = image_fetched(state.memory, event.request, event.failure, now)
    if memory is state.memory:
        return state, ()
    notes = saying.image_answer(memory, event, now)
    state = replace(state, memory=memory)
    if event.failure is None:
        state = awaiting.image_came(state, now)
    else:
        state = awaiting.image_stays_away(state, memory.retries[event.request.key].not_before)
    return _noting(_no_longer_awaiting(state), *notes)


def _idle(state: Idle, event: Event, now: float) -> Step:
    memory, phase = state.memory, state.phase
    match phase, event:
        case Waiting(poll_at=poll_at, look_at=look_at), Tick():
            if now >= poll_at:
                asked = replace(memory, polls=memory.polls + 1, last_poll_at=now, woken=False, removed=frozenset())
                return Idle(asked, Fetching(memory.removed)), (Fetch(),)
            if look_at is not None and now >= look_at:
                return Idle(memory, _in_force(memory) if may_begin(memory) else Looking(None)), (Look(),)
            return state, ()
        case Fetching(removed=removed), Fetched(expected=expected):
            again = Note("info", "expected state fetched again")
            news = (again,) if memory.poll_failure is not None else ()
            phase = Looking(expected, fresh=True, removed=removed)
            return Idle(replace(memory, poll_failure=None), phase), (*news, Look())
        case Fetching(removed=removed), FetchFailed(why=why):
            news = () if why == memory.poll_failure else (saying.unfetched(memory, why),)
            memory = replace(memory, poll_failure=why, removed=memory.removed | removed)  # the old state still has them
            return Idle(memory, _in_force(memory)), (*news, Look())
        case Looking(removed=removed), LookFailed(why=why, beside=beside):
            following, notes = saying.blind(replace(memory, removed=memory.removed | removed), why)
            return _noting(_beside(following, phase, beside, now), *notes)
        case Looking(), Looked(actual=actual):
            return _compare(memory, phase, actual, now)
        case _:
            return state, ()


def _in_force(memory: Memory) -> Looking:
    """A look without a poll before it; a state that came while nothing could be listed has yet to be held against a listing."""
    return Looking(memory.beside or memory.in_force, fresh=memory.beside is not None)


def _compare(memory: Memory, phase: Looking, actual: ActualState, now: float) -> Step:
    notes: tuple[Effect, ...] = ()
    if memory.look_failure is not None:
        notes = (Note("info", "containers listed again"),)
    memory = replace(memory, ever_up=status.now_up(actual.containers, memory.ever_up), look_failure=None, beside=None)
    expected = phase.expected
    if expected is not None and phase.fresh:
        doomed = doomed_by(expected, actual)
        is_doubted = bool(doomed) and (memory.doubted is None or not doomed <= memory.doubted)
        if is_doubted and expected != memory.in_force:  # one in force has been confirmed, whatever is left to do of it
            memory = replace(memory, doubted=doomed, removed=memory.removed | phase.removed)
            notes = (*notes, saying.held_back(memory))
            expected = memory.in_force
        else:
            notes = (*notes, *saying.accepted(memory.in_force, expected))
            memory = replace(memory, doubted=None, in_force=expected)
    if expected is None or memory.unfinished is not None or memory.stopping:
        return _noting(_rest(memory, actual, now), *notes)
    round_ = Processing(replace(memory, retries=retry.forget_old(memory.retries, now)), expected, now, LookingAgain())
    following, effects = _choose(round_, actual, now)
    if isinstance(following.phase, Changing | AwaitingImages):
        return following, (*notes, Note("info", "drift found", (("changes", len(following.memory.drift)),)), *effects)
    others = tuple(
        effect for effect in effects if isinstance(effect, Note | FetchImages)
    )  # all but the report, which `_rest` makes
    return _noting(_rest(following.memory, actual, now), *notes, *others)


def _beside(memory: Memory, phase: Looking, beside: ActualState | None, now: float) -> Step:
    """The containers cannot be listed: what does not need them is kept up all the same. A suspicious state has to wait for them."""
    expected = phase.expected
    if expected is not None and phase.fresh:
        if is_doubtful(expected, memory.in_force):
            expected, memory = memory.in_force, replace(memory, beside=None)
        else:
            memory = replace(memory, beside=expected, doubted=None)
    if expected is None or beside is None or memory.unfinished is not None or memory.stopping:
        return Idle(memory, _waiting(memory, now)), ()
    round_ = Processing(replace(memory, retries=retry.forget_old(memory.retries, now)), expected, now, LookingAgain())
    following, effects = _choose_beside(round_, beside, now)
    if isinstance(following.phase, Changing):
        return following, effects
    look_at = next_look.without_listing(following.memory, expected, beside, now)
    return Idle(following.memory, _waiting(following.memory, now, look_at)), ()


def _choose_beside(state: Processing, beside: ActualState, now: float) -> tuple[Processing, tuple[Effect, ...]]:
    """The next change that needs no listing of the containers; the phase stays when there is none to make now."""
    drift = plan.beside_containers(state.snapshot, beside, state.memory.node_type)
    retries = retry.seen_in_force(state.memory.retries, drift)
    memory = replace(state.memory, retries=retries, hashes=hashes(state.snapshot, beside))
    if over(memory, state.began_at, now) is None:
        for action in ready(memory, state.snapshot, drift, now):
            if guard.breach(action, state.snapshot, beside, memory.node_type) is None:
                following = replace(state, memory=replace(memory, drift=drift), phase=Changing(action))
                return following, (Perform(action, state.snapshot),)
    return replace(state, memory=memory), ()


def _rest(memory: Memory, actual: ActualState, now: float) -> tuple[Idle, tuple[Effect, ...]]:
    """Report and wait for the next poll."""
    phase = _waiting(memory, now, next_look.at(memory, memory.in_force, actual, now))
    return Idle(memory, phase), (_report(memory, actual),)


def _processing(state: Processing, event: Event, now: float) -> Step:
    match state.phase, event:
        case Changing(action=action), ActionDone(action=done) if action == done:
            return _changed(state, event, now)
        case Changing(action=action), Tick() if now >= state.began_at + DEADLINE_S:
            memory = replace(state.memory, unfinished=retry.key(action))
            return replace(state, memory=memory, phase=Closing(Ending.TIMED_OUT)), (Look(),)
        case AwaitingImages(until=until), Tick() if now >= until:
            return _no_longer_awaiting(state)
        case LookingAgain(), Looked(actual=actual):
            memory = replace(state.memory, ever_up=status.now_up(actual.containers, state.memory.ever_up))
            if memory.look_failure is not None:
                # The snapshot may never have been held against a listing: a poll comes first.
                return _close(replace(state, memory=replace(memory, woken=True)), actual, now, Ending.WAITING)
            return _choose(replace(state, memory=memory), actual, now)
        case Closing(looked=False), Looked(actual=actual):
            return _last_report(state, state.phase, actual, now)
        case ((LookingAgain() | Closing(looked=False)), LookFailed(why=why, beside=beside)):
            return _blind(state, why, beside, now)
        case Closing(looked=True), Reported():
            return _end(state, state.phase, now)
        case _:
            return state, ()


def _blind(state: Processing, why: str, beside: ActualState | None, now: float) -> Step:
    memory, notes = saying.blind(state.memory, why)
    if isinstance(state.phase, LookingAgain) and beside is not None and not memory.stopping:
        following, effects = _choose_beside(replace(state, memory=memory), beside, now)
        if isinstance(following.phase, Changing):
            return following, (*notes, *effects)
        memory = following.memory
    closing = Closing(Ending.BLIND, look_at=next_look.without_listing(memory, state.snapshot, beside, now))
    return _noting(_end(replace(state, memory=memory), closing, now), *notes)


def _choose(state: Processing, actual: ActualState, now: float) -> tuple[Processing, tuple[Effect, ...]]:
    """The next change that may be made now, or the wait for an image, or the end of this round."""
    drift = plan.outstanding(state.snapshot, actual, state.memory.node_type)
    retries = retry.seen_in_force(state.memory.retries, drift)
    images = state.memory.images.among(fetching.needed_by(drift), retries)
    seen = replace(state.memory, drift=drift, stops=_stops(actual), hashes=hashes(state.snapshot, actual))
    memory = replace(seen, retries=retries, images=images)
    state, asking = awaiting.ask(replace(state, memory=memory), now)
    memory, notes = state.memory, [*asking]
    for action in ready(memory, state.snapshot, drift, now):
        if (ending := over(memory, state.began_at, now)) is not None:
            closing, effects = _close(state, actual, now, ending)
            return closing, (*saying.idle_hands(memory), *effects)
        if plan.awaits_a_refused_one(action, state.snapshot, actual) or awaiting.is_early(state, action, now):
            continue
        fault = guard.breach(action, state.snapshot, actual, memory.node_type)
        if fault is None:
            effects = (*notes, _report(memory, actual), Perform(action, state.snapshot))
            return replace(state, memory=memory, phase=Changing(action)), effects
        memory = record(memory, action, Failed(f"refused: {fault}"), now)
        notes.append(
            Note("error", "action refused, this is a fault of the agent", (*saying.about(action), ("why", fault)))
        )
    state = replace(state, memory=memory)
    if (until := awaiting.until(state, now)) is not None:
        return replace(state, phase=AwaitingImages(until)), (*notes, _report(memory, actual))
    ended, effects = _close(state, actual, now, Ending.WAITING if drift else Ending.CONVERGED)
    return ended, (*notes, *(saying.idle_hands(memory) if drift else ()), *effects)


def _changed(state: Processing, event: ActionDone, now: float) -> Step:
    memory = record(state.memory, event.action, event.outcome, now)
    phase: LookingAgain | Closing = LookingAgain()
    if isinstance(event.outcome, Failed):
        phase = Closing(Ending.FAILED)
    elif memory.stopping:
        phase = Closing(Ending.STOPPED)
    return replace(state, memory=memory, phase=phase), (saying.said(memory, event, now), Look())


def _last_report(state: Processing, phase: Closing, actual: ActualState, now: float) -> Step:
    ever_up = status.now_up(actual.containers, state.memory.ever_up)
    drift = plan.outstanding(state.snapshot, actual, state.memory.node_type)
    seen = replace(state.memory, drift=drift, stops=_stops(actual), hashes=hashes(state.snapshot, actual))
    memory = replace(seen, ever_up=ever_up)
    return _close(replace(state, memory=memory), actual, now, phase.ending)


def _stops(actual: ActualState) -> frozenset[ContainerId]:
    return frozenset(one.id for one in actual.containers if one.state == STOPPING)


def _close(state: Processing, actual: ActualState, now: float, ending: Ending) -> tuple[Processing, tuple[Effect, ...]]:
    memory = state.memory
    phase = Closing(ending, looked=True, look_at=next_look.at(memory, state.snapshot, actual, now, ending))
    return replace(state, phase=phase), (_report(memory, actual, final=True),)


def _end(state: Processing, phase: Closing, now: float) -> Step:
    memory = replace(state.memory, idle_since=now)
    facts = (("ending", phase.ending.value), ("seconds", round(now - state.began_at, 3)), ("left", len(memory.drift)))
    said = Note("info" if phase.ending is Ending.CONVERGED else "warning", "processing ended", facts)
    finish: tuple[Effect, ...] = (Finish(),) if memory.stopping else ()
    return Idle(memory, _waiting(memory, now, phase.look_at)), (said, *finish)


def _report(memory: Memory, actual: ActualState, *, final: bool = False) -> Report:
    return Report(status.entries(actual.containers, memory.ever_up, memory.retries), final)


def _noting(result: tuple[State, tuple[Effect, ...]], *notes: Effect) -> Step:
    state, effects = result
    return state, (*notes, *effects)
