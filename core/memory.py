"""What the state machine remembers from one round to the next, and the questions asked of it.

Refuses to know in which phase the machine is.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, assert_never

from core import bounds, fetching, retry
from core.action import KINDS, Action, CouldNotBeRead, Deploy, Redeploy, Start, StopOrphan, UpdateCaddy
from core.containers import ContainerId, DeploymentId
from core.events import Applied, Failed, Outcome, Withheld
from core.fetching import ImageRequest, Images
from core.pause import Pause
from core.plan import orphans
from core.retry import Retries, RetryKey
from core.state import ActualState, Component, ExpectedState, Hashes, NodeType

POLL_S: Final = 10.0
LEAST_DELAY_S: Final = 1.0  # between two polls, whatever the answers
DEADLINE_S: Final = 300.0  # of one PROCESSING
ROUTES_SETTLE_S: Final = 5.0  # between two updates of routes; a component that has to be brought up does not wait
_JITTER: Final = 0.05
_FEW: Final = 3  # removing fewer running containers than this is never held back


class Ending(Enum):
    """How a PROCESSING ended."""

    CONVERGED = "converged"
    WAITING = "waiting"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    STOPPED = "stopped"
    PAUSED = "paused"
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Memory:
    """Survives both states.

    `in_force` is the last good expected state; `beside` a later one that could not yet be held against a listing of the containers, and
    counts for what needs none; `retries` and `images` say what is put aside; `doubted` holds the containers that a
    suspicious expected state would remove, until the next poll says the same; `unfinished` is the key of an action that still ran when
    its PROCESSING ended; `drift` is what the last look found to be done, put aside or not;
    `stops` are the containers of which that look found a stop under way; `hashes` those of names, routes and peers, by which it told drift;
    `removed` are deployments that work items took away since the last answered poll; `poll_failure` says why the last poll failed and
    `look_failure` why the last look did; `idle_since` is when the last PROCESSING ended; `looked_at` is when the last look was asked for,
    and `changed_at` when it was last heard since then that a container has ended.
    """

    node_type: NodeType
    in_force: ExpectedState | None = None
    beside: ExpectedState | None = None
    retries: Retries = field(default_factory=dict)
    images: Images = field(default_factory=Images)
    doubted: frozenset[ContainerId] | None = None
    unfinished: RetryKey | None = None
    ever_up: frozenset[ContainerId] = frozenset()
    drift: tuple[Action, ...] = ()
    stops: frozenset[ContainerId] = frozenset()
    hashes: Mapping[Component, Hashes] = field(default_factory=dict)
    woken: bool = False
    stopping: bool = False
    removed: frozenset[DeploymentId] = frozenset()
    polls: int = 0
    last_poll_at: float = float("-inf")
    seed: str = ""
    paused: Pause | None = None
    poll_failure: str | None = None
    look_failure: str | None = None
    idle_since: float = float("-inf")
    looked_at: float = float("-inf")
    changed_at: float | None = None


def next_poll_at(memory: Memory, now: float) -> float:
    """When to poll next: every 10 s, spread a little, at once when something woke us, never within a second of the last."""
    soonest = max(now, memory.last_poll_at + LEAST_DELAY_S)
    if memory.woken:
        return soonest
    spread = hashlib.sha256(f"{memory.seed}:{memory.polls}".encode()).digest()[0] / 255
    return max(soonest, memory.last_poll_at + POLL_S * (1 - _JITTER * spread))


def doomed_by(expected: ExpectedState, actual: ActualState) -> frozenset[ContainerId]:
    """The running containers that an expected state would remove, when they are suspiciously many; else empty.

    Suspicious are three or more that make up over half of what runs: an emptied database looks exactly like that.
    """
    unwanted = {one.id for one in orphans(expected, actual)}
    if len(unwanted) < _FEW:
        return frozenset()
    running = {one.id for one in actual.containers if one.state == "running"}
    doomed = frozenset(unwanted & running)
    return doomed if len(doomed) >= _FEW and 2 * len(doomed) > len(running) else frozenset()


def is_doubtful(expected: ExpectedState, before: ExpectedState | None) -> bool:
    """The same suspicion against the last good state, for a server whose containers cannot be listed; without one, nothing is certain."""
    if before is None:
        return True
    kept = {one.deployment_id for one in expected.containers} | expected.held.containers
    dropped = sum(one.deployment_id not in kept for one in before.containers)
    return dropped >= _FEW and 2 * dropped > len(before.containers)


def ready(memory: Memory, expected: ExpectedState, drift: tuple[Action, ...], now: float) -> Iterator[Action]:
    """Those changes that are not put aside, in their order; what replaces a container is put aside with the stop of that container.

    Both wait for the same image, and whichever comes first must not run beside what it replaces. After a stop that has failed, that holds
    for containers with volumes only: no two may ever write to the same data, and any other is better there than not. A container that
    is being stopped already is waited for.
    """
    awaited: set[DeploymentId] = set()
    found: list[Action] = []
    doubted = fetching.doubted(memory.retries)
    for action in drift:
        if is_overtaken(action, memory.removed):
            continue
        if isinstance(action, StopOrphan | Redeploy) and action.container_id in memory.stops:
            awaited.update(one.deployment_id for one in (action.successors if isinstance(action, StopOrphan) else ()))
            continue
        needed = memory.images.needs(action, expected, doubted)
        if needed or due_at(memory, action) > now:
            if isinstance(action, StopOrphan):
                coming = memory.images.are_on_the_way(needed)
                awaited.update(one.deployment_id for one in action.successors if coming or one.volumes)
        elif not (isinstance(action, Deploy) and action.container.deployment_id in awaited):
            found.append(action)
    return _fewest_attempts_first(memory, found)


def _fewest_attempts_first(memory: Memory, actions: list[Action]) -> Iterator[Action]:
    """What fails again and again stands behind what has not been tried, or it would take every turn; else in the planner's order.

    What replaces a container never overtakes the stop of that container.
    """
    stops: dict[DeploymentId, int] = {}

    def attempts(action: Action) -> int:
        one = memory.retries.get(retry.key(action))
        count = 0 if one is None else one.count
        if isinstance(action, StopOrphan):
            for successor in action.successors:
                stops[successor.deployment_id] = max(count, stops.get(successor.deployment_id, 0))
        elif isinstance(action, Deploy):
            count = max(count, stops.get(action.container.deployment_id, 0))
        return count

    return iter(sorted(actions, key=attempts) if memory.retries else actions)


def due_at(memory: Memory, action: Action) -> float:
    """When an action may be tried again, in seconds of the machine's clock; minus infinity for one that is not put aside.

    A reload of Caddy ends long-lived streams, so updates of routes that come close together become one.
    """
    last = memory.retries.get(retry.key(action))
    due = float("-inf") if last is None else last.not_before
    if isinstance(action, UpdateCaddy) and not isinstance(action.reason, CouldNotBeRead):
        kind = KINDS[UpdateCaddy]
        return max([due, *(one.last_at + ROUTES_SETTLE_S for key, one in memory.retries.items() if key[0] == kind)])
    return due


def next_try_at(memory: Memory, expected: ExpectedState, drift: tuple[Action, ...], now: float) -> float | None:
    """The earliest time to come at which something that is put aside may be tried again; None when no time brings it nearer.

    A time that has come never counts: whatever keeps a change from being made then (an image on its way, a pause, a stop), looking again
    and again does not end it, and its own end is heard of.
    """
    if not memory.retries or not may_begin(memory):
        return None
    times: list[float] = []
    doubted = fetching.doubted(memory.retries)
    for action in drift:
        needed = memory.images.needs(action, expected, doubted)
        if not is_overtaken(action, memory.removed) and not memory.images.are_on_the_way(needed):
            waits = [memory.retries[one.key].not_before for one in needed if one.key in memory.retries]
            times.append(max([due_at(memory, action), *waits]))
    return min((when for when in times if when > now), default=None)


def over(memory: Memory, began_at: float, now: float) -> Ending | None:
    """Why no further change is begun, None when one may be."""
    if memory.stopping:
        return Ending.STOPPED
    if memory.paused is not None:
        return Ending.PAUSED
    return Ending.TIMED_OUT if now >= began_at + DEADLINE_S else None


def may_begin(memory: Memory) -> bool:
    """Whether a change could be begun, had its time come: nobody has paused or stopped the agent, and no earlier change still runs."""
    return memory.paused is None and memory.unfinished is None and not memory.stopping


def is_overtaken(action: Action, removed: frozenset[DeploymentId]) -> bool:
    """Whether an action would bring back what a work item has taken away since the expected state was fetched."""
    return isinstance(action, Start | Deploy | Redeploy) and retry.key(action)[1] in removed


def image_requests(
    memory: Memory, expected: ExpectedState, drift: tuple[Action, ...], now: float
) -> tuple[ImageRequest, ...]:
    """The images that are to be asked for now, in the order of the changes that need them: all at once, whichever is made first.

    Of very many, the first ones; each answer is followed by a look, which asks for others.
    """
    found: dict[DeploymentId, ImageRequest] = {}
    doubted = fetching.doubted(memory.retries)
    room = bounds.IMAGE_REQUESTS - len(memory.images.on_the_way)
    for action in drift:
        if len(found) >= room:
            break
        if is_overtaken(action, memory.removed) or retry.is_waiting(memory.retries, retry.key(action), now):
            continue
        for one in memory.images.needs(action, expected, doubted):
            underway = memory.images.on_the_way.get(one.deployment_id)
            is_asked_for = underway is not None and underway.image == one.image
            if not is_asked_for and not retry.is_waiting(memory.retries, one.key, now):
                found.setdefault(one.deployment_id, one)
    return tuple(found.values())


def record(memory: Memory, action: Action, outcome: Outcome, now: float) -> Memory:
    """The memory after an action has ended."""
    key = retry.key(action)
    unfinished = None if memory.unfinished == key else memory.unfinished
    failure: str | None = None
    match outcome:
        case Withheld():
            return replace(memory, unfinished=unfinished, woken=True)
        case Applied():
            pass
        case Failed(why=why):
            failure = why
        case _:
            assert_never(outcome)
    retries = retry.after_attempt(memory.retries, key, now, failure)
    return replace(memory, retries=retries, unfinished=unfinished, images=memory.images.after(action))


def image_fetched(memory: Memory, request: ImageRequest, failure: str | None, now: float) -> Memory:
    """The memory after a request for an image has been answered; one that is not awaited any more changes nothing."""
    if memory.images.on_the_way.get(request.deployment_id) != request:
        return memory
    images = memory.images.answered(request, is_here=failure is None)
    if failure is None:
        retries = {key: one for key, one in memory.retries.items() if key != request.key}
    else:
        retries = dict(retry.after_attempt(memory.retries, request.key, now, failure))
    return replace(memory, images=images, retries=retries)
