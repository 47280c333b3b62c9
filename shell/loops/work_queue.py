"""The work queue: asks for items, has the core decide what each comes to, does it, acknowledges.

Independent of the state machine, but never changing the server at the same moment: both hold the same writer. An item that cannot be done
is acknowledged as failed, and never holds up the next. An item that is done is remembered before it is acknowledged.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, assert_never

import anyio
from returns.pipeline import is_successful

from core import work, work_queue
from core.containers import ActualContainer, DeploymentId
from core.protocol import WorkItem
from core.saying import MOST_LINES
from core.work import Later, Nothing, Now, Refuse, RemoveContainers, RemoveVolumes, RestartContainer, Task
from core.work_queue import Pending
from shell.adapters.control_plane import ControlPlaneError
from shell.beside import LARGE_BYTES, beside_if
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.figures import FIGURES
from shell.ledger import Ledger
from shell.log import bound_contextvars, logger
from shell.parts import PartError, Parts, Turned, no_turn
from shell.pausing import never_paused
from shell.turns import Turns

POLL_S: Final = 5.0
_LISTING_S: Final = 30.0
_QUEUE: Final = "the queue"
_TYPES: Final = work.WAKE_UPS | {"restart", "stop", "force_cleanup", "cleanup_volumes"}


class Queue(Protocol):
    """What this loop asks of the control plane."""

    async def fetch_work(self) -> bytes:
        """The pending items."""

    async def complete_work(self, item_id: str, error: str | None = None) -> None:
        """Acknowledge an item as done or failed."""


@dataclass(slots=True)
class Complained:
    """How many lines the list that was read last was worth."""

    lines: int = 0


@dataclass(frozen=True, slots=True)
class Hands:
    """What the loop works with. `wake` has the expected state polled soon; `paused` says that nothing may be changed now.

    `heard` is told how each reading of the queue went: why it failed, or None. `complaints` are what was said last of each item, so that
    what stays wrong is said once. `expected` tells the deployments of an expected state that was asked for after a time of the loop's
    clock, None when there is none yet; `seen` is when each pending item was first seen.
    """

    queue: Queue
    engine: ContainerEngine
    ledger: Ledger
    turns: Turns
    wake: Callable[[frozenset[DeploymentId]], Awaitable[None]]
    wall_clock: Callable[[], float]
    paused: Callable[[], Awaitable[bool]] = never_paused
    heard: Callable[[str | None], None] = lambda failure: None
    expected: Callable[[float], frozenset[DeploymentId] | None] = lambda since: None
    complaints: dict[str, str] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    beat: Callable[[], None] = lambda: None
    complained: Complained = field(default_factory=Complained)
    parts: Parts = field(default_factory=Parts)


async def run(hands: Hands, turned: Turned = no_turn) -> None:
    """Ask for work every few seconds. While the agent is paused, items wait where they are."""
    while True:
        hands.beat()
        if not await hands.paused():
            try:
                await once(hands)
                hands.heard(None)
            except AdapterError as error:
                _complain(hands, _QUEUE, "work queue not read", str(error))
                hands.heard(str(error))
        turned()
        await anyio.sleep(POLL_S)


async def once(hands: Hands) -> None:
    """Do and acknowledge everything that waits. Raises AdapterError when the queue cannot be read."""
    raw = await hands.queue.fetch_work()
    found = await beside_if(len(raw) > LARGE_BYTES, partial(work_queue.parse, raw))
    if not is_successful(found):
        raise AdapterError("control plane", "use the work queue", found.failure(), "it is asked for again")
    pending = found.unwrap()
    hands.complained.lines = 0
    _forget_all_but(hands, pending)
    if pending.unread:
        _complain(hands, _QUEUE, "work queue too long", "the others wait until these are done")
    try:
        await _each(hands, pending)
    finally:
        if hands.complained.lines > MOST_LINES:
            logger().warning("more work items like these", count=hands.complained.lines - MOST_LINES)


async def _each(hands: Hands, pending: Pending) -> None:
    for why in pending.nameless:
        _complain(hands, why, "work item passed over", why)
    heard = True  # once an acknowledgement was not, the others of this round wait for the next: each would take as long
    for bad in pending.ill_shaped:
        hands.beat()
        heard = await _guarded(hands, bad.id, partial(_refuse, hands, bad.id, bad.why, heard)) and heard
    for item in pending.items:
        hands.beat()
        if await hands.paused():
            return
        hands.seen.setdefault(item.id, anyio.current_time())
        heard = await _guarded(hands, item.id, partial(_item, hands, item, heard)) and heard


class _UnheardError(Exception):
    """Nobody answered an acknowledgement; one that was answered with a refusal says nothing of the others."""


async def _guarded(hands: Hands, item_id: str, work_on: Callable[[], Awaitable[None]]) -> bool:
    """One item; what goes wrong with it is said, and the next one has its turn. Whether acknowledgements are heard, as far as known."""
    try:
        with hands.parts.contained("work queue", item_id, (AdapterError, TimeoutError, _UnheardError)):
            await work_on()
    except (AdapterError, TimeoutError) as error:
        why = str(error) or "Podman has not said in time which containers there are"
        _complain(hands, item_id, "work item left for later", why)
    except _UnheardError as error:
        _complain(hands, item_id, "work item left for later", str(error))
        return False
    return True


async def _refuse(hands: Hands, item_id: str, why: str, acknowledge: bool) -> None:
    _complain(hands, item_id, "work item refused", why)
    if acknowledge:
        await _acknowledge(hands, item_id, why)


async def _item(hands: Hands, item: WorkItem, acknowledge: bool) -> None:
    """One item; AdapterError when it is to be tried again: nothing is known of what it would touch."""
    if item.id not in hands.ledger:
        try:
            with hands.parts.contained("work queue", item.id, (AdapterError, TimeoutError)):
                error = await _do(hands, item)
        except PartError as failure:  # nobody knows how far it came: not done again, and said
            error = str(failure)
        with suppress(
            OSError
        ):  # a disk that does not take it holds nothing up: the agent knows by itself for as long as it lives
            await hands.ledger.add(item.id, error)
        known = item.type if item.type in _TYPES else "other"
        FIGURES.add("techulus_work_items", type=known, outcome="completed" if error is None else "failed")
    if acknowledge:
        await _acknowledge(hands, item.id, hands.ledger.error_of(item.id))


async def _acknowledge(hands: Hands, item_id: str, error: str | None) -> None:
    try:
        await hands.queue.complete_work(item_id, error)
    except AdapterError as failure:
        if isinstance(failure, ControlPlaneError) and failure.status is not None:
            raise
        raise _UnheardError(str(failure)) from failure


async def _do(hands: Hands, item: WorkItem) -> str | None:
    """Do one item; why it failed, or None."""
    parsed = work.parse(item)
    if not is_successful(parsed):
        if _may_say(hands):
            logger().error("work item refused", item=item.id, kind=item.type, why=parsed.failure())
        return parsed.failure()
    task = parsed.unwrap()
    if isinstance(task, work.WakeUp):
        await hands.wake(frozenset())
        return None
    async with hands.turns.lock:
        step = await _decided(hands, item, task)
        with hands.turns.changing():
            return await _change(hands, item, step)


async def _decided(hands: Hands, item: WorkItem, task: Task) -> Now:
    """What to do now. Raises AdapterError when its time has not come; nothing has been changed then, and nobody has to look again."""
    begun = hands.ledger.mark_of(item.id)
    with anyio.fail_after(_LISTING_S):
        containers = await hands.engine.containers(hands.wall_clock())
    expected = hands.expected(hands.seen[item.id])
    step = work.decide(task, containers, begun, expected)
    if isinstance(step, Later):
        if expected is None:
            await hands.wake(frozenset())
        raise AdapterError("work queue", f"carry out {item.type}", step.why, "done once it is gone")
    return step


async def _change(hands: Hands, item: WorkItem, step: Now) -> str | None:
    if isinstance(step, RestartContainer):
        with suppress(OSError):
            await hands.ledger.begin(item.id, step.mark)
    with bound_contextvars(source="work item", item=item.id, why=f"{item.type} was asked for"):
        error = await _carry_out(hands, step)
    await hands.wake(work.touched(step))  # before another writer could bring it back
    return error


async def _carry_out(hands: Hands, step: Now) -> str | None:
    said = logger()
    try:
        match step:
            case RestartContainer(container_id=container_id, name=name):
                await hands.engine.restart(container_id)
                said.info("restarted", container=name)
            case RemoveContainers(containers=containers, by_force=by_force):
                return await _remove(hands, containers, by_force)
            case RemoveVolumes(service_id=service_id):
                await hands.engine.remove_volumes(service_id)
                said.info("volumes removed", service=service_id)
            case Nothing(why=why):
                said.info("nothing to do", because=why)
            case Refuse(why=why):
                said.error("work item refused", because=why)
                return why
            case _:
                assert_never(step)
    except AdapterError as error:
        said.error("work item failed", because=str(error))
        return str(error)
    return None


async def _remove(hands: Hands, containers: tuple[ActualContainer, ...], by_force: bool) -> str | None:
    """Remove each, whatever becomes of the others; why some are still there, or None."""
    failures: list[str] = []
    for one in containers:
        try:
            await (hands.engine.remove_forced(one.id) if by_force else hands.engine.stop_and_remove(one.id))
        except AdapterError as error:
            logger().error("work item failed", because=str(error))
            failures.append(str(error))
    return "; ".join(failures) or None


def _complain(hands: Hands, about: str, event: str, why: str) -> None:
    if hands.complaints.get(about) != why:
        hands.complaints[about] = why
        if _may_say(hands):
            logger().warning(event, item=about, why=why, then="tried again")


def _may_say(hands: Hands) -> bool:
    """Whether one more line may be written about this list; all are counted (L59)."""
    hands.complained.lines += 1
    return hands.complained.lines <= MOST_LINES


def _forget_all_but(hands: Hands, pending: Pending) -> None:
    """What is done stays known for as long as it is asked for; what was said and seen, of what is read now: that is bounded."""
    hands.ledger.still_pending(pending.ids)
    read = pending.read()
    said = {*read, *pending.nameless, *((_QUEUE,) if pending.unread else ())}
    for about in hands.complaints.keys() - said:
        del hands.complaints[about]
    for gone in hands.seen.keys() - read:
        del hands.seen[gone]
