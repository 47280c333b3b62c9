"""What is measured, as values: each a ratio of two measurements of one run, with its goal where there is one.

A time alone says more about the machine than about the agent. Refuses to know how anything is measured.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

ROUNDS: Final = 7
_MOST_ROUNDS: Final = 101
_LEAST_S: Final = 0.2
FEWEST_ROUNDS: Final = 5
_LONG_S: Final = 3.0
_CACHES: Final = 64 * 2**20  # twice the largest cache of the processor that the record is of


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio: `what` in multiples of `unit`, for `size` containers (None where that is not the question).

    `measured` and `of` are the two quantities, in the same unit of measurement; `goal` is the most that the ratio may be. `least` is the
    ratio of the quickest rounds, which other programs on the machine disturb the least.
    """

    what: str
    unit: str
    size: int | None
    measured: float
    of: float
    goal: float | None = None
    least: float | None = None

    @property
    def ratio(self) -> float:
        """How many units it takes."""
        return self.measured / self.of

    @property
    def met(self) -> bool:
        """Whether the goal, if there is one, is reached."""
        return self.goal is None or self.ratio <= self.goal

    def __str__(self) -> str:
        size = "" if self.size is None else f"{self.size:>7,}  "
        goal = "" if self.goal is None else f"  goal {self.goal:g}: {'met' if self.met else 'MISSED'}"
        return f"{size:9}{self.what:<44} {self.ratio:9.3f} x {self.unit}{goal}"


@dataclass(frozen=True, slots=True)
class Times:
    """What the rounds of one measurement took, in seconds of this thread's processor time: being interrupted does not count."""

    median_s: float
    least_s: float

    def __truediv__(self, rounds: int) -> "Times":
        return Times(self.median_s / rounds, self.least_s / rounds)


def ratio(what: str, unit: str, size: int | None, ours: Times, theirs: Times, goal: float | None = None) -> Figure:
    """The figure of two measurements: their medians, and their quickest rounds."""
    return Figure(what, unit, size, ours.median_s, theirs.median_s, goal, ours.least_s / theirs.least_s)


def usual(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Of several runs of the same benchmarks, the figures of a middling one: a lucky run would be a record that no later one reaches."""
    found = []
    for same in zip(*runs, strict=True):
        middle = sorted(same, key=lambda one: one.ratio)[len(same) // 2]
        least = [one.least for one in same if one.least is not None]
        found.append(replace(middle, least=statistics.median(least) if least else None))
    return found


def timed(run: Callable[[], object], rounds: int = ROUNDS, fewest: int = FEWEST_ROUNDS) -> Times:
    """What one call takes. The collector stays on, as in the agent; what a call returns is dropped outside its time."""
    return timed_anew(lambda: run, rounds, fewest)


def timed_anew(
    prepare: Callable[[], Callable[[], object]],
    rounds: int = ROUNDS,
    fewest: int = FEWEST_ROUNDS,
    *,
    emptied: bool = False,
) -> Times:
    """What one call takes of what `prepare` returns anew each time, its own time left out.

    So many rounds; more of short calls, whose times scatter most, and `fewest` where they take long with what prepares them. `emptied`:
    each call finds nothing in the processor's caches. How much they keep of what was prepared depends on the machine's other programs, so
    the times scatter less, and more rounds than were asked for are not made.
    """
    times: list[float] = []
    end = time.monotonic() + _LONG_S
    while len(times) < rounds or (not emptied and sum(times) < _LEAST_S and len(times) < _MOST_ROUNDS):
        if len(times) >= fewest and time.monotonic() > end:
            break
        run = prepare()
        if emptied:
            _empty_caches()
        begun = time.thread_time()
        kept = run()
        times.append(time.thread_time() - begun)
        del kept
    return Times(statistics.median(times), min(times))


def _empty_caches() -> None:
    """Fill the caches with other memory: each half of it is read and written."""
    other = _other_memory()
    half = len(other) // 2
    other[:half] = other[half:]
    other[half:] = other[:half]


@cache
def _other_memory() -> memoryview:
    return memoryview(bytearray(b"x" * _CACHES))
