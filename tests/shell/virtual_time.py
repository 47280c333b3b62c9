"""An event loop whose clock jumps to whatever is due next, so that minutes of waiting take no time and always come out the same.

For code that waits for its own tasks and timers, and for short work in threads of the default limiter (the disk), during which the
clock stands: real sockets, children and threads of other limiters do not know it. Nothing here waits for the real world but for the
disk, which may stand still for a while on a busy machine; a test that does would hang.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from tests.lab.wait import PATIENCE_S

T = TypeVar("T")


class Clock(selectors.DefaultSelector):
    """Instead of waiting, moves the clock."""

    now = 0.0
    threads: anyio.CapacityLimiter | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waits = timeout is None or (timeout > 0 and self.threads is not None and self.threads.borrowed_tokens > 0)
        ready = super().select(PATIENCE_S if waits else 0)
        if waits and not ready:
            raise AssertionError("a thread that never ends, or every task waits for another and no timer is set")
        if not ready:
            self.now += max(0.0, timeout or 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(main: Callable[[], Awaitable[T]], clock: Clock | None = None) -> T:
    """The answer of `main`, run from second 0 of a clock of its own, or of one that also does something else."""

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        loop.clock.threads = anyio.to_thread.current_default_thread_limiter()
        return await main()

    return anyio.run(watched, backend_options={"loop_factory": partial(_Loop, Clock() if clock is None else clock)})
