"""How much of two sequences is the same at both ends: what a list that is read again and again has in common with the last one."""

from collections.abc import Iterable, Sequence
from itertools import compress, count
from operator import ne
from typing import TypeVar

T = TypeVar("T")


def equal_ends(old: Sequence[T], new: Sequence[T]) -> tuple[int, int]:
    """How many entries are equal at the beginning of both, and how many of the remaining ones at their end."""
    most = min(len(old), len(new))
    head = _equal(old, new, most)
    return head, min(most - head, _equal(reversed(old), reversed(new), most)) if head < most else 0


def _equal(old: Iterable[T], new: Iterable[T], most: int) -> int:
    return next(compress(count(), map(ne, old, new)), most)
