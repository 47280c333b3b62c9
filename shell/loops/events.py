"""Podman's event stream: what happens to a container is reported at once and, when it has ended, planned for; not at the next poll.

A stream that ends is followed anew, with growing pauses; since nobody knows what was missed, the containers are looked at when it is back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import TaskGroup

from core import podman_events
from core.containers import ActualContainer
from core.podman_events import ContainerEvent
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.log import logger
from shell.parts import Turned, no_turn

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
LASTS_S: Final = 5.0  # a Podman that keeps no events opens a stream, too, and ends it at once


@dataclass(frozen=True, slots=True)
class Ear:
    """What this loop listens with: the engine, the containers last seen, and whom to tell that there is news.

    `looked_at_s` is when the planner's last look began, in seconds since the epoch; `replan` has it look again.
    """

    engine: ContainerEngine
    containers: Callable[[], tuple[ActualContainer, ...]]
    stir: Callable[[], None]
    looked_at_s: Callable[[], float]
    replan: Callable[[], None]


async def run(ear: Ear, turned: Turned = no_turn) -> None:
    """Follow the events for ever."""
    following = _Following(ear, turned)
    while True:
        await following.once()
        turned()
        await anyio.sleep(following.pause_s)
        following.pause_s = min(2 * following.pause_s, LONGEST_PAUSE_S)


class _Following:
    """Well is a stream that has brought an event, or has lasted; one that only opens is not."""

    def __init__(self, ear: Ear, turned: Turned) -> None:
        self._turned = turned
        self.pause_s = FIRST_PAUSE_S
        self._ear = ear
        self._complaint = ""

    async def once(self) -> None:
        """Follow one stream to its end."""
        failure = ""
        async with anyio.create_task_group() as tasks:
            try:
                await self._ear.engine.watch(lambda: self._opened(tasks), self._heard)
            except AdapterError as error:
                failure = str(error)
            tasks.cancel_scope.cancel()
        if failure and not self._complaint:
            then = "changes of containers are seen at the next look, and the events followed again when they can be"
            logger().warning("events not followed", why=failure, then=then)
        self._complaint = failure or self._complaint

    def _opened(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._well_after_a_while)

    async def _well_after_a_while(self) -> None:
        await anyio.sleep(LASTS_S)
        self._well()

    def _heard(self, event: ContainerEvent) -> None:
        self._well()
        if podman_events.is_news(event, {one.id: one for one in self._ear.containers()}):
            self._ear.stir()
        if podman_events.asks_for_a_plan(event, self._ear.looked_at_s()):
            self._ear.replan()

    def _well(self) -> None:
        self._turned()
        if self._complaint:
            logger().info("events followed again")
            self._ear.stir()
            self._ear.replan()
        self.pause_s, self._complaint = FIRST_PAUSE_S, ""
