"""Whether anything has become slower: the small sizes, held against the ratios that are recorded in `results.json`.

Machines are shared and small figures are noisy: the best of three runs counts, and it may be 30 % worse than what is recorded.
"""

from typing import Final

from benchmarks import in_process, results

SIZES: Final = (100, 1_000)
_RUNS: Final = 3
_TOLERANCE: Final = 1.3


def main() -> int:
    """Print what is worse; the exit status is 1 when something is."""
    limits: dict[tuple[str, int | None], float] = {
        (one.what, one.size): one.ratio * _TOLERANCE for one in results.recorded()["in_process"] if one.size in SIZES
    }
    best: dict[tuple[str, int | None], float] = {}
    for _ in range(_RUNS):
        for one in in_process.main(SIZES):
            key = (one.what, one.size)
            best[key] = min(one.ratio, best.get(key, one.ratio))
        worse = {key: ratio for key, ratio in best.items() if ratio > limits.get(key, ratio)}
        if not worse:
            break
    missing = limits.keys() - best.keys()
    for (what, size), ratio in worse.items():
        print(f"{size} containers: {what}: {ratio:.3f}, recorded {limits[what, size] / _TOLERANCE:.3f}")
    for what, size in sorted(missing, key=str):
        print(f"{size} containers: {what}: recorded, and measured no longer")
    print(f"{len(best) - len(worse)} ratios as recorded, {len(worse) + len(missing)} worse")
    return 1 if worse or missing else 0
