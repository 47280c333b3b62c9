"""The one place where an exception that nobody foresaw is caught: it ends one turn of one part of the daemon, and never the daemon.

A part is a loop or a background task. What goes wrong as adapters foresee (AdapterError) is handled where it happens; anything else
arrives here: it is logged once with its trace, counted, shown by `agent status`, the metrics and `agent doctor`, and the part is tried
again with growing pauses. The same failure is not logged again before it changes or the part has worked in between.

What ends a process (KeyboardInterrupt, SystemExit) and what ends a task (cancellation) passes, also inside an exception group.

Everything that the daemon runs beside its main task is started by `start` or `spawn`; a test walks the source for others.
"""

import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, get_args

import anyio
import anyio.abc

from core.overview import FailingPart
from shell.failure import AdapterError
from shell.figures import FIGURES, Figures
from shell.log import logger

Part = Literal[
    "state machine",
    "expected state",
    "inspection",
    "changes",
    "pulls",
    "reports",
    "events",
    "work queue",
    "health checks",
    "builds",
    "build logs",
    "image clean-up",
    "logs",
    "log sender",
    "own log",
    "public address",
    "firewall",
    "state files",
    "status",
    "watchdog",
    "metrics",
    "examination",
    "signals",
]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
METRIC: Final = "techulus_part_failures"
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0  # well below the time after which the watchdog takes a loop for stuck
_FORGOTTEN_S: Final = 1800.0  # a change or an image that failed and was not tried again for so long is no longer wanted
_MOST: Final = 200  # failing things that are remembered, the latest
_LONGEST_TRACE: Final = 8000
_LONGEST_REASON: Final = 300
_NOT_SHIPPED: Final = ("logs", "log sender", "own log")  # what they log about themselves must not go through them

Turned = Callable[[], None]
"""A loop calls it after each turn that has worked: the part is well."""


def no_turn() -> None:
    """For a loop that nobody watches."""


def once(work: Callable[[], Awaitable[None]]) -> Callable[[Turned], Awaitable[None]]:
    """Something that ends by itself, as a loop of one turn."""
    return lambda turned: work()


class PartError(AdapterError):
    """An unforeseen failure, as one that every caller handles. It has been logged and counted."""


@dataclass
class _Failing:
    place: str
    since_s: float
    last_s: float
    count: int
    reason: str

    def is_forgotten(self, about: str, oldest_s: float) -> bool:
        """Whether it was about one thing, which nobody has tried again since then."""
        return bool(about) and self.last_s < oldest_s


class Parts:
    """The parts of one daemon. `wall_clock` gives seconds since the epoch."""

    def __init__(self, figures: Figures = FIGURES, wall_clock: Callable[[], float] = time.time) -> None:
        self._figures = figures
        self._wall_clock = wall_clock
        self._failing: dict[tuple[Part, str], _Failing] = {}
        for part in PARTS:
            figures.add(METRIC, 0, part=part)

    @property
    def failing(self) -> tuple[FailingPart, ...]:
        """What fails now, by part and by what it was about. Changes nothing: it may be asked for in a thread beside the loop."""
        oldest_s = self._wall_clock() - _FORGOTTEN_S
        return tuple(
            FailingPart(part, about, one.since_s, one.count, one.reason)
            for (part, about), one in sorted(self._failing.copy().items())
            if not one.is_forgotten(about, oldest_s)
        )

    @contextmanager
    def contained(
        self, part: Part, about: str = "", passes: tuple[type[Exception], ...] = (AdapterError,)
    ) -> Iterator[None]:
        """Within, what is foreseen (`passes`) goes its way, and whatever else is raised becomes a PartError.

        `about` is what the turn was about (an image, a container), when others of the same part may go well.
        """
        before = self._failing.get((part, about))
        try:
            yield
        except Exception as error:
            if (foreseen := _foreseen(error, passes)) is None:
                raise self._failed(part, about, error) from error
            self._worked(part, about, before)
            raise foreseen from error.__cause__
        self._worked(part, about, before)

    def start(
        self, tasks: anyio.abc.TaskGroup, part: Part, run: Callable[[Turned], Awaitable[None]], about: str = ""
    ) -> None:
        """Run a loop in the group until it returns; one that fails is begun anew after a pause."""
        tasks.start_soon(self.keep, part, run, about, name=f"{part} {about}".strip())

    def spawn(
        self, tasks: anyio.abc.TaskGroup, part: Part, work: Callable[[], Awaitable[None]], about: str = ""
    ) -> None:
        """Run something once in the group; trying again is its owner's business."""
        tasks.start_soon(self._once, part, work, about, name=f"{part} {about}".strip())

    async def keep(self, part: Part, run: Callable[[Turned], Awaitable[None]], about: str = "") -> None:
        """Run a loop until it returns, whatever it raises."""
        pause_s = FIRST_PAUSE_S

        def turned() -> None:
            nonlocal pause_s
            pause_s = FIRST_PAUSE_S
            self._worked(part, about, self._failing.get((part, about)))

        while True:
            try:
                with self.contained(part, about, ()):
                    await run(turned)
                return
            except PartError:
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _once(self, part: Part, work: Callable[[], Awaitable[None]], about: str) -> None:
        try:
            with self.contained(part, about, ()):
                await work()
        except PartError:
            return

    def _failed(self, part: Part, about: str, error: Exception) -> PartError:
        self._figures.add(METRIC, part=part)
        cause = _innermost(error)
        place, reason = _place(cause), traceback.format_exception_only(cause)[-1].strip()[:_LONGEST_REASON]
        now_s = self._wall_clock()
        self._forget(now_s - _FORGOTTEN_S)
        before = self._failing.pop((part, about), None)
        since_s, count = (now_s, 0) if before is None else (before.since_s, before.count)
        self._failing[part, about] = _Failing(place, since_s, now_s, count + 1, reason)
        if before is None or before.place != place:
            logger().error(
                "part failed",
                part=part,
                about=about or None,
                reason=reason,
                then="this is a fault of the agent: everything else goes on, and this is tried again",
                trace="".join(traceback.format_exception(error))[-_LONGEST_TRACE:],
                ship=part not in _NOT_SHIPPED,
            )
        if len(self._failing) > _MOST:
            del self._failing[next(iter(self._failing))]
        return PartError("agent", f"go on with {part}", reason, "this is a fault of the agent; its log has the trace")

    def _worked(self, part: Part, about: str, before: _Failing | None) -> None:
        """It has recovered from the failure before, unless another has come meanwhile, of a turn within this one."""
        if before is not None and self._failing.get((part, about)) is before:
            del self._failing[part, about]
            ship = part not in _NOT_SHIPPED
            logger().info("part works again", part=part, about=about or None, failures=before.count, ship=ship)

    def _forget(self, oldest_s: float) -> None:
        for key in [key for key, one in self._failing.items() if one.is_forgotten(key[1], oldest_s)]:
            del self._failing[key]


def _foreseen(error: Exception, passes: tuple[type[Exception], ...]) -> Exception | None:
    """The foreseen error that this is, or that a task group has wrapped; None when there is anything else in it."""
    if isinstance(error, passes):
        return error
    if not isinstance(error, ExceptionGroup):
        return None
    foreseen = [_foreseen(one, passes) for one in error.exceptions]
    return None if None in foreseen else foreseen[0]


def _innermost(error: Exception) -> Exception:
    """The first real error in nested groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(error: Exception) -> str:
    """What tells one failure from another: the kind of the exception, and where it was raised. (Its text may differ each time.)"""
    if isinstance(error, RecursionError | MemoryError):  # raised wherever the last straw was
        return type(error).__name__
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__} {where}"
