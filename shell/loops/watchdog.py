"""Tells the service manager that the agent is alive, only while its loops really move; and what it is doing, in words.

A loop that is stuck stops the pings, so that the agent is restarted; containers do not notice.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from shell.log import logger
from shell.parts import Turned, no_turn
from shell.service_manager import ServiceManager

_WITHOUT_WATCHDOG_S: Final = 10.0
_AT_MOST_S: Final = 10.0


class Pulse:
    """When each loop moved last, and how long it may take to move again. Times in seconds of any one clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, tuple[float, float]] = {}

    def beat(self, name: str, limit_s: float) -> None:
        """A loop has moved, and will again within this time."""
        self._beats[name] = (self._clock(), limit_s)

    def stuck(self) -> list[str]:
        """The loops that should have moved again by now."""
        now = self._clock()
        return sorted(name for name, (at, limit_s) in self._beats.items() if now - at > limit_s)


async def run(
    manager: ServiceManager,
    pulse: Pulse,
    words: Callable[[], Awaitable[str]],
    turned: Turned = no_turn,
) -> None:
    """Ping and tell for ever."""
    if not manager.is_there:
        return
    pause_s = min(_AT_MOST_S, _WITHOUT_WATCHDOG_S if manager.watchdog_s is None else manager.watchdog_s / 3)
    complaint: list[str] = []
    while True:
        stuck = pulse.stuck()
        if stuck and stuck != complaint:
            then = "the service manager restarts the agent; containers go on"
            logger().error("a loop is stuck", loops=", ".join(stuck), then=then)
        complaint = stuck
        if not stuck:
            manager.alive()
        manager.status(f"stuck: {', '.join(stuck)}" if stuck else await words())
        turned()
        await anyio.sleep(pause_s)
