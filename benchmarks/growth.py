"""How the time of every parser grows with its input: `python -m benchmarks.growth [--largest N] [PART OF A NAME ...]`.

Each family of inputs is doubled from a thousand elements or bytes to a million. A doubling may cost 2.4 times: twice the work, and a little
for memory that is in no cache any more. What takes less than `LEAST_S` counts as that, since nobody notices it and it scatters.

A doubling that costs more is measured again, both sizes in turn, as a neighbour on the machine may have disturbed it; what grows too
fast does so each time.
"""

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.families import FAMILIES, Family
from benchmarks.parsers import PARSERS
from shell import collector

SMALLEST: Final = 1_000
LARGEST: Final = 1_000_000
GOAL: Final = 2.4
LEAST_S: Final = 0.005
_ROUNDS: Final = 3
_AGAIN: Final = 5
_LONGEST_S: Final = 30.0  # a family that has become so slow has failed


@dataclass(frozen=True, slots=True)
class Growth:
    """The worst doubling of a family: to this size, what it cost, and how long the largest input took in seconds."""

    family: Family
    size: int
    ratio: float
    seconds: float
    goal: float = GOAL

    @property
    def met(self) -> bool:
        """Whether it grows as it may."""
        return self.ratio <= self.goal

    def __str__(self) -> str:
        about = f"{self.family.parser}: {self.family.name}"
        return (
            f"{about:<72} {self.ratio:5.2f} at {self.size:>9,}  {self.seconds:8.3f} s{'' if self.met else '  MISSED'}"
        )


def measure(family: Family, largest: int = LARGEST, smallest: int = SMALLEST, goal: float = GOAL) -> Growth:
    """Double the input until it is so large."""
    worst, size = Growth(family, smallest, 0.0, 0.0), smallest
    before_s = seconds = _time(family, size)
    while 2 * size <= largest and seconds < _LONGEST_S:
        size *= 2
        seconds = _time(family, size)
        ratio = _ratio(before_s, seconds)
        for _ in range(_AGAIN):
            if ratio <= goal:
                break
            before_s, seconds = min(before_s, _time(family, size // 2)), min(seconds, _time(family, size))
            ratio = _ratio(before_s, seconds)
        if ratio > worst.ratio:
            worst = Growth(family, size, ratio, seconds)
        before_s = seconds
    return Growth(family, worst.size, worst.ratio, seconds, goal)


def _ratio(before_s: float, after_s: float) -> float:
    return max(after_s, LEAST_S) / max(before_s, LEAST_S)


def _time(family: Family, size: int) -> float:
    """The quickest of some rounds, in seconds of this thread's processor time; one round of what takes long."""
    read, given = PARSERS[family.parser], family.make(size)
    times: list[float] = []
    while len(times) < _ROUNDS and sum(times) < 1.0:
        with collector.paused():
            begun = time.thread_time()
            kept = read(given)
            times.append(time.thread_time() - begun)
        del kept
    gc.collect()
    return min(times)


def main(arguments: list[str]) -> int:
    """1 when a family grows too fast."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only families whose parser's or own name has this in it"
    )
    parser.add_argument("--largest", type=int, default=LARGEST, help="elements or bytes of the largest input")
    told = parser.parse_args(arguments)
    met = True
    for family in FAMILIES:
        if not told.names or any(one in f"{family.parser}: {family.name}" for one in told.names):
            found = measure(family, told.largest)
            print(found, flush=True)
            met = met and found.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
