"""Whether anything has become slower: the small sizes, held against the ratios that are recorded in `results.json`.

Machines are shared and small figures are noisy. So what is held against the record is the ratio of the quickest rounds, in processor time:
a median moves by half when another program takes the caches. The best of three runs counts, and it may be 30 % worse than what is recorded.
A line of Caddy's access log is held against its goals.
"""

import math
from collections.abc import Mapping
from typing import Final, TypeAlias

from benchmarks import access_log, in_process, results
from benchmarks.figures import Figure

_RUNS: Final = 3
_TOLERANCE: Final = 1.3
_Key: TypeAlias = tuple[str, int | None]


def main() -> int:
    """Print what is worse; the exit status is 1 when something is."""
    recorded = {
        _key(one): _least(one) for one in results.recorded()["in_process"] if one.size in in_process.SMALL_SIZES
    }
    best: dict[_Key, float] = {}
    wrong: list[str] = []
    for _ in range(_RUNS):
        for one in in_process.run(in_process.SMALL_SIZES):
            best[_key(one)] = min(_least(one), best.get(_key(one), math.inf))
        missed = (str(one) for one in access_log.main() if not one.met)
        wrong = [*faults(recorded, best), *missed]
        if not wrong:
            break
    print(*wrong, f"{len(best)} ratios measured, {len(wrong)} not as recorded", sep="\n")
    return 1 if wrong else 0


def faults(recorded: Mapping[_Key, float], best: Mapping[_Key, float]) -> list[str]:
    """A line for each ratio that is worse than its record, or that has a record or a measurement only."""
    found = []
    for key in sorted(recorded.keys() | best.keys(), key=lambda key: (key[1] or 0, key[0])):
        what, was, now = f"{key[1]} containers: {key[0]}", recorded.get(key), best.get(key)
        if now is None:
            found.append(f"{what}: recorded, and measured no longer")
        elif was is None:
            found.append(f"{what}: measured, and not recorded yet: run `make bench`")
        elif now > was * _TOLERANCE:
            found.append(f"{what}: {now:.3f}, recorded {was:.3f}")
    return found


def _key(one: Figure) -> _Key:
    return one.what, one.size


def _least(one: Figure) -> float:
    if one.least is None:
        raise ValueError(f"{one.what} stands without its quickest rounds in {results.RESULTS.name}: run `make bench`")
    return one.least
