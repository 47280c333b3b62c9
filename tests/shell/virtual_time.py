"""An event loop whose clock jumps to whatever is due next, so that minutes of waiting take no time and always come out the same.

Only for code that waits for its own tasks and timers: real sockets, threads and children do not know this clock.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

_REAL_LIMIT_S = 10.0  # nothing here waits for the real world; a test that does would hang


class _Clock(selectors.DefaultSelector):
    """Instead of waiting, moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else _REAL_LIMIT_S)
        if timeout is None and not ready:
            raise AssertionError("every task waits for another, and no timer is set")
        if not ready:
            self.now += max(0.0, timeout or 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(main: Callable[[], Awaitable[T]]) -> T:
    """The answer of `main`, run from second 0 of a clock of its own."""
    return anyio.run(main, backend_options={"loop_factory": _Loop})


async def settle() -> None:
    """Let every other task run until it waits for something."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
