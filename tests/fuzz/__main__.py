"""Feeds every parser: `python -m tests.fuzz [--seconds S | --inputs N] [--seed SEED] [PART OF A PARSER'S NAME ...]`.

Ends with the first input that raises what its parser does not say, or whose time grows faster than its length; the input is kept in
`found/`, and the seed and the number of the input are printed, which give it again.
"""

import argparse
import hashlib
import itertools
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.parsers import PARSERS
from shell import collector
from tests.fuzz.mutation import inputs, pumped

FOUND: Final = Path(__file__).parent / "found"
SLOW_S: Final = 0.02  # an input that takes longer is doubled, to see how that grows
GROWTH: Final = 3.0  # for a doubling; what is quadratic has 4
PUMPED: Final = 50  # one input of so many of each parser
_TIMES: Final = 2_000


class GrowsError(Exception):
    """The time for an input grows faster than the input."""


def feed(parser: str, raw: bytes) -> float:
    """Seconds of processor time that a parser takes for an input. Raises what the parser raises."""
    with collector.paused():
        begun = time.thread_time()
        PARSERS[parser](raw)
        return time.thread_time() - begun


def check_growth(parser: str, raw: bytes, random: Random) -> None:
    """Repeat a part of an input. Raises GrowsError."""
    make = pumped(raw, random)
    if feed(parser, make(_TIMES)) < SLOW_S:
        return
    for _ in range(3):  # a neighbour on the machine may disturb one
        before, after = (min(feed(parser, make(times)) for _ in range(2)) for times in (_TIMES, 2 * _TIMES))
        if after < GROWTH * before:
            return
    keep(parser, make(_TIMES))
    raise GrowsError(f"{parser}: {before:.3f} s, and {after:.3f} s for twice as much")


def keep(parser: str, raw: bytes) -> Path:
    """Keep an input as an example."""
    name = re.sub(r"\W+", "_", parser)
    path = FOUND / f"{name}-{hashlib.sha256(raw).hexdigest()[:12]}"
    path.write_bytes(raw)
    return path


def examples() -> Iterator[tuple[str, Path]]:
    """What was found before: the parser's name and the file."""
    names = {re.sub(r"\W+", "_", name): name for name in PARSERS}
    for path in sorted(FOUND.iterdir()):
        if path.name.partition("-")[0] in names:
            yield names[path.name.partition("-")[0]], path


def fuzz(parsers: list[str], seed: int, count: int | None, seconds: float | None) -> int:
    """Feed each parser in turn, until there were so many inputs or the time is over; how many there were."""
    random = Random(seed)
    streams = {name: inputs(name, random) for name in parsers}
    end = None if seconds is None else time.monotonic() + seconds
    for number in itertools.count():
        if number == count or (end is not None and time.monotonic() > end):
            return number
        turn, index = divmod(number, len(parsers))
        name = parsers[index]
        raw = next(streams[name])
        try:
            feed(name, raw)
            if (turn + index) % PUMPED == 0:  # the parsers in turn, whatever their number is
                check_growth(name, raw, random)
        except Exception:
            print(f"{name}: input {number} of seed {seed}; an input that is kept: {keep(name, raw)}", file=sys.stderr)
            raise
    raise AssertionError("not reached")


def main(arguments: list[str]) -> int:
    """Say how many inputs there were."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("names", nargs="*")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--inputs", type=int)
    options.add_argument("--seconds", type=float)
    told = options.parse_args(arguments)
    chosen = [name for name in PARSERS if not told.names or any(one in name for one in told.names)]
    seconds = 60.0 if told.inputs is None and told.seconds is None else told.seconds
    fed = fuzz(chosen, told.seed, told.inputs, seconds)
    print(f"{fed} inputs for {len(chosen)} parsers, seed {told.seed}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
