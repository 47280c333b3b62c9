"""Figures that people watch: counted where things happen, read when somebody asks. What each means stands in `shell.metrics` and
docs/metrics.md. One set for the process, since it is one agent."""

from collections import Counter
from typing import Final

Labels = tuple[tuple[str, str], ...]
BUCKETS: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Figures:
    """Counters and durations by name and labels."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Labels]] = Counter()
        self.durations: dict[tuple[str, Labels], list[float]] = {}

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Count."""
        self.counts[name, tuple(sorted(labels.items()))] += amount

    def took(self, name: str, seconds: float, **labels: str) -> None:
        """Note how long something took: for each bucket how often it was no longer, then how often, then the sum."""
        found = self.durations.setdefault((name, tuple(sorted(labels.items()))), [0.0] * (len(BUCKETS) + 2))
        for index, limit in enumerate(BUCKETS):
            found[index] += seconds <= limit
        found[-2] += 1
        found[-1] += seconds


FIGURES: Final = Figures()
