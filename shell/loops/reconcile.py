"""Runs the state machine: waits for events, hands them to the pure transition function, carries out the effects.

Decides nothing. Everything that takes time runs as a task of its own and answers with an event, so that the machine can always be told
that time has passed or that it should stop.
"""

import contextlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import anyio
import anyio.abc

from core import machine, phases, retry
from core.action import Action
from core.containers import DeploymentId
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
    Outcome,
    PauseSeen,
    Perform,
    Remember,
    Report,
    Reported,
    StopAsked,
    Tick,
    Woken,
)
from core.fallback import after_fault
from core.fetching import ImageRequest
from core.memory import Memory, is_overtaken
from core.pause import Pause
from core.phases import Idle, State, Waiting
from core.state import ActualState, ExpectedState, entries_of
from core.status import Entry
from shell import collector
from shell.beside import LARGE_ENTRIES, beside_if
from shell.failure import AdapterError
from shell.gather import NotListedError
from shell.log import logger
from shell.parts import FIRST_PAUSE_S, LONGEST_PAUSE_S, PartError, Parts
from shell.pausing import no_pause

_QUEUE = 1024  # events that wait; more than ever arise at once, and a bound all the same


@dataclass(frozen=True, slots=True)
class World:
    """What the effects need of the outside, as plain functions.

    `fetch` gives the expected state or raises AdapterError; `look` the actual one, likewise; `perform` the outcome of an action;
    `fetch_images` begins to fetch, and answers through `Reconcile.image_fetched`; `post` and `deliver` take a report; `remember` keeps the
    last fetched expected state; `pause` is the pause that is in force.
    """

    fetch: Callable[[], Awaitable[ExpectedState]]
    look: Callable[[], Awaitable[ActualState]]
    perform: Callable[[Action], Awaitable[Outcome]]
    fetch_images: Callable[[tuple[ImageRequest, ...]], None]
    post: Callable[[tuple[Entry, ...]], None]
    deliver: Callable[[tuple[Entry, ...]], Awaitable[None]]
    remember: Callable[[], Awaitable[None]]
    pause: Callable[[], Awaitable[Pause | None]] = no_pause


class Reconcile:
    """The loop. `observe` hears of every new state, for a progress display."""

    def __init__(
        self,
        memory: Memory,
        observe: Callable[[State, tuple[Effect, ...]], None] = lambda state, effects: None,
        parts: Parts | None = None,
    ) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Event](_QUEUE)
        self._state: State = Idle(memory, Waiting(-math.inf))
        self._observe = observe
        self._parts = Parts() if parts is None else parts
        self._stop_asked = anyio.Event()
        self._entries = 0 if memory.in_force is None else entries_of(memory.in_force)
        self._removed: frozenset[DeploymentId] = frozenset()
        self._removed_before: frozenset[DeploymentId] = frozenset()  # the poll that is under way

    @property
    def state(self) -> State:
        """The present state, for those who only look."""
        return self._state

    def has_many(self) -> bool:
        """Whether there is so much of everything that whatever goes through all of it takes long."""
        return self._entries > LARGE_ENTRIES

    async def wake(self, removed: frozenset[DeploymentId] = frozenset()) -> None:
        """Have the expected state polled soon; `removed` deployments are not brought back by an older one."""
        self._removed |= removed
        await self._tell(Woken(removed))

    def containers_changed(self) -> None:
        """Have the server looked at soon: a container has ended or is gone. What finds no place is heard of with the next poll."""
        with contextlib.suppress(anyio.WouldBlock, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._send.send_nowait(ContainersChanged())

    async def stop(self) -> None:
        """Have the loop end after the change in hand and a last report."""
        self._stop_asked.set()
        await self._tell(StopAsked())

    async def image_fetched(self, request: ImageRequest, failure: str | None) -> None:
        """A request for an image has been answered."""
        await self._tell(ImageFetched(request, failure))

    async def _tell(self, event: Event) -> None:
        """News from outside. What comes after the loop has ended is for nobody."""
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            await self._send.send(event)

    async def run(self, world: World) -> None:
        """Work until told to stop."""
        pause_s = FIRST_PAUSE_S
        async with self._send, self._receive, anyio.create_task_group() as tasks:
            while True:
                event = await self._next_event(world)
                effects = await self._step(event, pause_s)
                if effects is None:  # every event could meet the same fault: no faster than this, but for a stop
                    with anyio.move_on_after(pause_s):
                        await self._stop_asked.wait()
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    effects = (Finish(),) if self._stop_asked.is_set() else ()
                elif isinstance(event, Looked):  # the longest way through the machine
                    pause_s = FIRST_PAUSE_S
                for effect in effects:
                    if isinstance(effect, Finish):
                        tasks.cancel_scope.cancel()
                        return
                    self._carry_out(effect, world, tasks)

    async def _step(self, event: Event, pause_s: float) -> tuple[Effect, ...] | None:
        """The effects of one transition; None when it failed, and then the machine is idle."""
        if isinstance(event, Fetched):
            self._entries = entries_of(event.expected)
        are_many = self.has_many() or (isinstance(event, Looked) and entries_of(event.actual) > LARGE_ENTRIES)
        step = partial(machine.step, self._state, event, anyio.current_time())
        try:
            with self._parts.contained("state machine", type(event).__name__), collector.paused():
                self._state, effects = await beside_if(are_many and not isinstance(event, Tick), step)
        except PartError:
            self._state = after_fault(self._state, event, anyio.current_time(), pause_s)
            return None
        with contextlib.suppress(PartError), self._parts.contained("state machine", "observer"):
            self._observe(self._state, effects)
        return effects

    def withheld(self, action: Action) -> str | None:
        """Why an action that was chosen before must not be begun now; None when it may."""
        removed = self._removed | self._removed_before
        return "a work item has just removed this deployment" if is_overtaken(action, removed) else None

    async def _next_event(self, world: World) -> Event:
        with contextlib.suppress(PartError), self._parts.contained("state machine", "pause"):
            if (pause := await world.pause()) != self._state.memory.paused:
                return PauseSeen(pause)
        wake_at = phases.wake_at(self._state)
        wait_s = math.inf if wake_at is None else max(0.0, wake_at - anyio.current_time())
        with anyio.move_on_after(wait_s):
            return await self._receive.receive()
        return Tick()

    def _carry_out(self, effect: Effect, world: World, tasks: anyio.abc.TaskGroup) -> None:
        match effect:
            case Fetch():
                self._removed, self._removed_before = frozenset(), self._removed
                self._parts.spawn(tasks, "expected state", partial(self._fetch, world))
            case Look():
                self._parts.spawn(tasks, "inspection", partial(self._look, world))
            case Perform():
                self._parts.spawn(tasks, "changes", partial(self._perform, world, effect))
            case FetchImages(requests=requests):
                world.fetch_images(requests)
            case Report(entries=entries, final=True):
                self._parts.spawn(tasks, "reports", partial(self._deliver, world, entries), "last of a round")
            case Report(entries=entries):
                with contextlib.suppress(PartError), self._parts.contained("reports", "posted"):
                    world.post(entries)
            case Remember():
                self._parts.spawn(tasks, "state files", world.remember, "expected state")
            case Note(level=level, event=event, facts=facts):
                logger().log(_LEVELS[level], event, **dict(facts))
            case Finish():
                pass
            case _:
                assert_never(effect)

    async def _fetch(self, world: World) -> None:
        try:
            with self._parts.contained("expected state"):
                event: Event = Fetched(await world.fetch())
        except AdapterError as error:
            event = FetchFailed(str(error))
            self._removed |= self._removed_before
        self._removed_before = frozenset()
        await self._send.send(event)

    async def _look(self, world: World) -> None:
        try:
            with self._parts.contained("inspection"):
                event: Event = Looked(await world.look())
        except NotListedError as error:
            event = LookFailed(str(error), error.beside)
        except AdapterError as error:
            event = LookFailed(str(error))
        await self._send.send(event)

    async def _perform(self, world: World, effect: Perform) -> None:
        try:
            with self._parts.contained("changes", " ".join(retry.key(effect.action))):
                outcome = await world.perform(effect.action)
        except AdapterError as error:
            outcome = Failed(str(error))
        await self._send.send(ActionDone(effect.action, outcome))

    async def _deliver(self, world: World, entries: tuple[Entry, ...]) -> None:
        try:
            await world.deliver(entries)
        finally:
            await self._send.send(Reported())


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
