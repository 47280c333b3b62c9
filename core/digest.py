"""Canonical form, digest and difference of two collections of keyed values.

The theory: a value that is not frozen, sorted and de-duplicated has many spellings, and every spelling left over shows up as drift that
never ends. So every collection is brought into ONE form (`canonical_order`) before anything looks at it; two collections are equal exactly
when their canonical forms are, and exactly then their digests are. The form that is hashed is JSON, which keeps the borders between
fields by quoting; bare joining with separators would let two different collections collide.

Refuses to know what the values mean.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeAlias, TypeVar

import msgspec

T = TypeVar("T", bound=Hashable)

Plain: TypeAlias = str | int | tuple["Plain", ...] | None
"""What a canonical form is made of: text, whole numbers, nothing, and rows of these."""


_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


class Difference(msgspec.Struct, frozen=True):
    """Sorted keys that only the expected side has, only the actual side has, or both have with another value."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def canonical_order(values: Iterable[T], plain: Callable[[T], Plain]) -> tuple[T, ...]:
    """The distinct values, ordered by their plain form: the same for every order and any repetition of the input."""
    return tuple(sorted(dict.fromkeys(values), key=lambda value: canonical(plain(value))))


def canonical(plain: Plain) -> str:
    """One JSON text for one value; different values never share a text."""
    return _JSON.encode(plain)


def digest(rows: Iterable[Plain]) -> str:
    """64 hex digits over the canonical form of rows that are already in canonical order."""
    return hashlib.sha256(canonical(tuple(rows)).encode("ascii")).hexdigest()


def difference(expected: Iterable[T], actual: Iterable[T], key: Callable[[T], str]) -> Difference:
    """Which keys differ between two collections. A key that stands for several values differs when the sets of them do."""
    wanted, there = _by_key(expected, key), _by_key(actual, key)
    return Difference(
        added=tuple(sorted(wanted.keys() - there.keys())),
        removed=tuple(sorted(there.keys() - wanted.keys())),
        changed=tuple(sorted(k for k in wanted.keys() & there.keys() if wanted[k] != there[k])),
    )


def _by_key(values: Iterable[T], key: Callable[[T], str]) -> Mapping[str, set[T]]:
    groups: dict[str, set[T]] = {}
    for value in values:
        groups.setdefault(key(value), set()).add(value)
    return groups
