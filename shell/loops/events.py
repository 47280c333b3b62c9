"""Podman's event stream: what happens to a container is reported at once, and not at the next look.

A stream that ends is followed anew, with growing pauses; since nobody knows what was missed, the containers are looked at when it is back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from core import podman_events
from core.containers import ActualContainer
from core.podman_events import ContainerEvent
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.log import logger

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Ear:
    """What this loop listens with: the engine, the containers last seen, and whom to tell that there is news."""

    engine: ContainerEngine
    containers: Callable[[], tuple[ActualContainer, ...]]
    stir: Callable[[], None]


async def run(ear: Ear) -> None:
    """Follow the events for ever."""
    pause_s, complaint = FIRST_PAUSE_S, ""

    def opened() -> None:
        nonlocal pause_s, complaint
        if complaint:
            logger().info("events followed again")
            ear.stir()
        pause_s, complaint = FIRST_PAUSE_S, ""

    def heard(event: ContainerEvent) -> None:
        if podman_events.is_news(event, {one.id: one for one in ear.containers()}):
            ear.stir()

    while True:
        try:
            await ear.engine.watch(opened, heard)
        except AdapterError as error:
            if not complaint:
                then = "changes of containers are seen at the next look, and the events followed again when they can be"
                logger().warning("events not followed", why=str(error), then=then)
            complaint = str(error)
        await anyio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
