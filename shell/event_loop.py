"""The daemon's event loop, which tells when something holds it up: a turn that takes long keeps heartbeat, status and signals waiting.

A turn is what happens between two waits of the selector. When one takes longer than `SLOW_S`, an alarm of the system notes what the main
thread is at, so that the log names the task and the place. A wait that ends late is told, too: another thread has kept the interpreter,
or the machine was busy.
"""

import asyncio
import selectors
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

import anyio

from shell.figures import FIGURES
from shell.log import logger

T = TypeVar("T")

SLOW_S: Final = 0.5
AGAIN_S: Final = 60.0  # what holds it up at the same place again is counted, and logged no more often than this
METRIC: Final = "techulus_loop_slow_turns"
_FRAMES: Final = 4  # of the stack, innermost first


class WatchedSelector(selectors.DefaultSelector):
    """Measures the time between two waits, and how late a wait ends. For the main thread only, which the alarm interrupts."""

    def __init__(self) -> None:
        super().__init__()
        self._turn_began_at = time.monotonic()
        self._told: dict[str, float] = {}
        self.place = ""
        signal.signal(signal.SIGALRM, self._note)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, as the loop asks."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        began_at = time.monotonic()
        self._tell(began_at - self._turn_began_at, self.place or "nothing was seen of it")
        ready = super().select(timeout)
        self._turn_began_at = time.monotonic()
        if timeout is not None:
            self._tell(self._turn_began_at - began_at - max(0.0, timeout), "another thread, or the machine")
        self.place = ""
        signal.setitimer(signal.ITIMER_REAL, SLOW_S)
        return ready

    def close(self) -> None:
        """No alarm comes any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        task = asyncio.current_task()
        frames: list[str] = []
        while frame is not None and len(frames) < _FRAMES:
            code = frame.f_code
            frames.append(f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})")
            frame = frame.f_back
        self.place = f"{'no task' if task is None else task.get_name()}: {' < '.join(frames)}"

    def _tell(self, seconds: float, place: str) -> None:
        if seconds <= SLOW_S:
            return
        FIGURES.add(METRIC)
        now = time.monotonic()
        if now - self._told.get(place, -AGAIN_S) >= AGAIN_S:
            self._told = {one: at for one, at in self._told.items() if now - at < AGAIN_S} | {place: now}
            then = "meanwhile nothing else had a turn; this is a fault of the agent unless the machine was busy"
            logger().warning("event loop held up", seconds=round(seconds, 2), by=place, then=then)


def run(main: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run `main` on a loop that is watched, in the main thread."""
    FIGURES.add(METRIC, 0)
    options = {"loop_factory": lambda: asyncio.SelectorEventLoop(WatchedSelector())}
    return anyio.run(main, *arguments, backend_options=options)
