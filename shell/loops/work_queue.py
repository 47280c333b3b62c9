"""The work queue: asks for items, has the core decide what each comes to, does it, acknowledges.

Independent of the state machine, but never changing the server at the same moment: both hold the same writer. An item that cannot be done
is acknowledged as failed, and never holds up the next. An item that is done is remembered before it is acknowledged.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

import anyio
from returns.pipeline import is_successful
from structlog.contextvars import bound_contextvars

from core import protocol, work
from core.containers import DeploymentId
from core.protocol import WorkItem, WorkQueue
from core.work import Nothing, Refuse, RemoveContainers, RemoveVolumes, RestartContainer, Step
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.ledger import Ledger
from shell.log import logger

POLL_S: Final = 5.0
_LISTING_S: Final = 30.0


class Queue(Protocol):
    """What this loop asks of the control plane."""

    async def fetch_work(self) -> bytes:
        """The pending items."""

    async def complete_work(self, item_id: str, error: str | None = None) -> None:
        """Acknowledge an item as done or failed."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What the loop works with. `wake` has the expected state polled soon; `paused` says that nothing may be changed now.

    `heard` is told how each reading of the queue went: why it failed, or None.
    """

    queue: Queue
    engine: ContainerEngine
    ledger: Ledger
    writer: anyio.Lock
    wake: Callable[[frozenset[DeploymentId]], Awaitable[None]]
    wall_clock: Callable[[], float]
    paused: Callable[[], bool] = lambda: False
    heard: Callable[[str | None], None] = lambda failure: None


async def run(hands: Hands) -> None:
    """Ask for work every few seconds. While the agent is paused, items wait where they are."""
    complaint: str | None = None
    while True:
        if not hands.paused():
            complaint = await _round(hands, complaint)
        await anyio.sleep(POLL_S)


async def _round(hands: Hands, complaint: str | None) -> str | None:
    """Why the queue could not be read, said when it is news; None when it could."""
    try:
        await once(hands)
    except AdapterError as error:
        if str(error) != complaint:
            logger().warning("work queue not read", why=str(error), then="asked again")
        hands.heard(str(error))
        return str(error)
    hands.heard(None)
    return None


async def once(hands: Hands) -> None:
    """Do and acknowledge everything that waits. Raises AdapterError when the queue cannot be read."""
    raw = await hands.queue.fetch_work()
    found = protocol.parse(raw, WorkQueue)
    if not is_successful(found):
        raise AdapterError("control plane", "use the work queue", found.failure())
    for item in work.in_order(found.unwrap().items):
        try:
            await _item(hands, item)
        except (AdapterError, OSError) as error:
            logger().warning("work item left for later", item=item.id, kind=item.type, why=str(error))


async def _item(hands: Hands, item: WorkItem) -> None:
    """One item; AdapterError when it is to be tried again, since nothing is known of what it would touch."""
    if item.id not in hands.ledger:
        error = await _do(hands, item)
        hands.ledger.add(item.id, error)
    await hands.queue.complete_work(item.id, hands.ledger.error_of(item.id))


async def _do(hands: Hands, item: WorkItem) -> str | None:
    """Do one item; why it failed, or None."""
    parsed = work.parse(item)
    if not is_successful(parsed):
        logger().error("work item refused", item=item.id, kind=item.type, why=parsed.failure())
        return parsed.failure()
    task = parsed.unwrap()
    if isinstance(task, work.WakeUp):
        await hands.wake(frozenset())
        return None
    async with hands.writer:
        with anyio.fail_after(_LISTING_S):
            step = work.decide(task, await hands.engine.containers(hands.wall_clock()))
        with bound_contextvars(source="work item", item=item.id, why=f"{item.type} was asked for"):
            error = await _carry_out(hands, step)
        await hands.wake(work.touched(step))  # before another writer could bring it back
    return error


async def _carry_out(hands: Hands, step: Step) -> str | None:
    said = logger()
    try:
        match step:
            case RestartContainer(container_id=container_id, name=name):
                await hands.engine.restart(container_id)
                said.info("restarted", container=name)
            case RemoveContainers(containers=containers, by_force=by_force):
                for one in containers:
                    await (hands.engine.remove_forced(one.id) if by_force else hands.engine.stop_and_remove(one.id))
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
