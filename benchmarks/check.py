"""Whether anything has become slower: the small sizes, held against the ratios that are recorded in `results.json`.

Machines are shared and small figures are noisy. So what is held against the record is the ratio of the quickest rounds, in processor time:
a median moves by half when another program takes the caches. The best of three runs counts, and it may be 30 % worse than what is recorded.
"""

import math
from typing import Final, TypeAlias

from benchmarks import in_process, results
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
    for _ in range(_RUNS):
        for one in in_process.run(in_process.SMALL_SIZES):
            best[_key(one)] = min(_least(one), best.get(_key(one), math.inf))
        worse = {key: least for key, least in best.items() if least > recorded.get(key, math.inf) * _TOLERANCE}
        if not worse:
            break
    missing = recorded.keys() - best.keys()
    for (what, size), least in worse.items():
        print(f"{size} containers: {what}: {least:.3f}, recorded {recorded[what, size]:.3f}")
    for what, size in sorted(missing, key=str):
        print(f"{size} containers: {what}: recorded, and measured no longer")
    print(f"{len(best) - len(worse)} ratios as recorded, {len(worse) + len(missing)} worse")
    return 1 if worse or missing else 0


def _key(one: Figure) -> _Key:
    return one.what, one.size


def _least(one: Figure) -> float:
    if one.least is None:
        raise ValueError(f"{one.what} stands without its quickest rounds in {results.RESULTS.name}: run `make bench`")
    return one.least
