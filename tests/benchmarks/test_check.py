"""`benchmarks.check`: what counts as worse, and how often it is looked at before it does."""

from collections.abc import Sequence

import pytest

from benchmarks import access_log, check, in_process, results
from benchmarks.figures import Figure

KEY = ("parse", 100)


def a_figure(least: float, what: str = "parse") -> Figure:
    """Of a hundred containers."""
    return Figure(what, "json.loads", 100, 1.0, 1.0, least=least)


def test_a_third_worse_is_worse_and_a_quarter_is_not() -> None:
    """30 % are taken for noise; what is better is never a fault."""
    assert check.faults({KEY: 1.0}, {KEY: 1.34}) == ["100 containers: parse: 1.340, recorded 1.000"]
    assert check.faults({KEY: 1.0}, {KEY: 1.26}) == check.faults({KEY: 1.0}, {KEY: 0.1}) == []


def test_what_stands_on_one_side_only() -> None:
    """A figure can neither vanish nor come without a record."""
    assert check.faults({KEY: 1.0}, {}) == ["100 containers: parse: recorded, and measured no longer"]
    assert check.faults({}, {KEY: 1.0}) == ["100 containers: parse: measured, and not recorded yet: run `make bench`"]


@pytest.mark.parametrize(
    ("runs", "status", "made"),
    [([1.2], 0, 1), ([2.0, 2.0, 1.1], 0, 3), ([1.4, 1.4, 1.4], 1, 3)],
)
def test_the_best_of_three_runs_counts(
    runs: list[float], status: int, made: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first good one ends it."""
    left = list(runs)

    def run(sizes: Sequence[int]) -> list[Figure]:
        assert sizes == in_process.SMALL_SIZES
        return [a_figure(left.pop(0))]

    monkeypatch.setattr(results, "recorded", lambda: {"in_process": [a_figure(1.0)]})
    monkeypatch.setattr(in_process, "run", run)
    monkeypatch.setattr(access_log, "main", list)
    assert check.main() == status
    assert len(runs) - len(left) == made
    assert capsys.readouterr().out.endswith(f"1 ratios measured, {status} not as recorded\n")


def test_a_line_of_the_access_log_has_a_goal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missed three times, it is told."""
    monkeypatch.setattr(results, "recorded", lambda: {"in_process": [a_figure(1.0)]})
    monkeypatch.setattr(in_process, "run", lambda sizes: [a_figure(1.0)])
    monkeypatch.setattr(access_log, "main", lambda: [Figure("a line", "json.loads", None, 2.1, 1.0, 2.0)])
    assert check.main() == 1
    assert "a line" in capsys.readouterr().out


def test_the_record_is_of_both_small_sizes() -> None:
    """With the ratio of the quickest rounds, which the check is of."""
    small = [one for one in results.recorded()["in_process"] if one.size in in_process.SMALL_SIZES]
    assert {one.size for one in small} == set(in_process.SMALL_SIZES)
    assert all(one.least is not None for one in small)
