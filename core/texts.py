"""JSON lists whose entries are told apart as texts: what is as it was need not be read again."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

import msgspec


def equal_ends(old: Sequence[msgspec.Raw], new: Sequence[msgspec.Raw]) -> tuple[int, int]:
    """How many entries are the same at the beginning of both lists, and how many of the others at the end."""
    head = _equal_ones(zip(old, new, strict=False))
    tail = _equal_ones(zip(reversed(old), reversed(new), strict=False))
    return head, min(tail, min(len(old), len(new)) - head)


def _equal_ones(pairs: Iterable[tuple[msgspec.Raw, msgspec.Raw]]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
