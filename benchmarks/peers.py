"""The decision, beside a general library for differences: `deepdiff` on the same data as nested dictionaries.

No drift, and one changed image in the last container. The library finds what differs; that nothing has to be done about it, or what, it
does not tell.
"""

from functools import partial
from typing import Final

from deepdiff import DeepDiff

from benchmarks import states
from benchmarks.figures import Figure, ratio, timed
from benchmarks.in_process import plain, subject
from core import plan
from core.state import NodeType, parse_expected

SIZES: Final = (100, 1_000)
FULL_SIZES: Final = (100, 1_000, 10_000)
_ROUNDS: Final = 3


def main(*, full: bool = False) -> list[Figure]:
    """Our time in multiples of the library's."""
    return [figure for size in (FULL_SIZES if full else SIZES) for figure in _measure(size)]


def _measure(size: int) -> list[Figure]:
    one = subject(states.texts(size))
    changed = parse_expected(one.texts.following).unwrap()
    found = []
    for what, expected, differs in (("no drift", one.expected, False), ("last container changed", changed, True)):
        actual = one.actual()
        wanted, there = plain(expected, actual)
        theirs = partial(DeepDiff, there, wanted)
        ours = partial(plan.outstanding, expected, actual, NodeType.PROXY)
        assert bool(theirs()) is differs and bool(ours()) is differs
        found.append(ratio(f"decision, {what}", "deepdiff", size, timed(ours), timed(theirs, _ROUNDS)))
    return found
