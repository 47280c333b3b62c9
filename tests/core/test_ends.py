"""`core.ends`: what two lists have in common at both ends."""

from hypothesis import given
from hypothesis import strategies as st

from core.ends import equal_ends

FEW = st.lists(st.integers(0, 2), max_size=6)


@given(FEW, FEW)
def test_the_ends_are_equal_and_no_longer_than_that(old: list[int], new: list[int]) -> None:
    """They do not overlap in either list, and neither could be longer."""
    head, tail = equal_ends(old, new)
    shorter = min(len(old), len(new))
    assert head + tail <= shorter
    assert old[:head] == new[:head] and old[len(old) - tail :] == new[len(new) - tail :]
    if head + tail < shorter:
        assert old[head] != new[head] and old[len(old) - tail - 1] != new[len(new) - tail - 1]


@given(FEW)
def test_a_list_and_itself(same: list[int]) -> None:
    """All of it is the beginning; nothing is left for the end."""
    assert equal_ends(same, list(same)) == (len(same), 0)
