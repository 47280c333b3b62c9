"""`benchmarks.figures`: ratios, goals and which of several runs is recorded."""

from collections.abc import Callable

import pytest

from benchmarks.figures import Figure, Times, ratio, timed_anew, usual


def test_a_goal_is_the_most_that_a_ratio_may_be() -> None:
    """Reaching it exactly is enough; without a goal nothing is missed."""
    assert Figure("a", "b", None, 4.0, 2.0, 2.0).met
    assert not Figure("a", "b", None, 4.1, 2.0, 2.0).met
    assert Figure("a", "b", None, 4.1, 2.0).met


def test_a_ratio_is_of_medians_and_knows_that_of_the_quickest_rounds() -> None:
    """Both stand in the results."""
    found = ratio("a", "b", 10, Times(6.0, 2.0), Times(3.0, 0.5))
    assert (found.ratio, found.least) == (2.0, 4.0)


def test_a_middling_run_is_recorded() -> None:
    """Neither the lucky nor the unlucky one, of the medians and of the quickest rounds each."""
    runs = [
        [Figure("a", "b", 10, measured, 1.0, least=least)] for measured, least in ((9.0, 1.0), (1.0, 2.0), (5.0, 3.0))
    ]
    assert usual(runs) == [Figure("a", "b", 10, 5.0, 1.0, least=2.0)]


@pytest.mark.parametrize("emptied", [False, True])
def test_every_round_is_prepared_anew(*, emptied: bool) -> None:
    """And nothing of it is timed twice."""
    prepared: list[list[int]] = []

    def prepare() -> Callable[[], None]:
        mine: list[int] = []
        prepared.append(mine)
        return lambda: mine.append(1)

    took = timed_anew(prepare, rounds=3, emptied=emptied)
    assert len(prepared) >= 3 and all(mine == [1] for mine in prepared)
    assert 0.0 <= took.least_s <= took.median_s
