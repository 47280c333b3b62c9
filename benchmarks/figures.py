"""What is measured, as values: each a ratio of two measurements of one run, with its goal where there is one.

A time alone says more about the machine than about the agent. Refuses to know how anything is measured.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 7
_MOST_ROUNDS: Final = 51
_LEAST_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio: `what` in multiples of `unit`, for `size` containers (None where that is not the question).

    `measured` and `of` are the two quantities, in the same unit of measurement; `goal` is the most that the ratio may be.
    """

    what: str
    unit: str
    size: int | None
    measured: float
    of: float
    goal: float | None = None

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


def median_s(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median time of one call. The collector stays on, as in the agent; what a call returns is dropped outside its time."""
    return median_of_s(lambda: run, rounds)


def median_of_s(prepare: Callable[[], Callable[[], object]], rounds: int = ROUNDS) -> float:
    """The median time of one call of what `prepare` returns anew each time, its own time left out.

    At least so many rounds; short calls, whose times scatter most, are made more often.
    """
    times: list[float] = []
    while len(times) < rounds or (sum(times) < _LEAST_S and len(times) < _MOST_ROUNDS):
        run = prepare()
        begun = time.perf_counter()
        kept = run()
        times.append(time.perf_counter() - begun)
        del kept
    return statistics.median(times)
