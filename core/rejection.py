"""What is wrong with one entry of a document, and which key it therefore holds.

A bad entry is rejected alone. Its key is *held*: whatever exists for that key stays as it is and is left out of both sides of the
comparison, so that a mistake in one entry neither stops the others nor tears down what still serves.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

from core import bounds

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

W = TypeVar("W")
V = TypeVar("V", bound=Hashable)


class Rejection(msgspec.Struct, frozen=True, order=True):
    """`path` in the document (`containers[3].image`), the `key` that is held, and the `reason` in words."""

    path: str
    key: str
    reason: str


class Fault(msgspec.Struct, frozen=True):
    """What is wrong inside one entry: the field (empty for the entry as a whole) and the reason."""

    field: str
    reason: str


class Misshapen(msgspec.Struct, frozen=True):
    """An entry of which only the key could be read: a field of it is missing or of another type. The subclasses have the key."""

    fault: Fault


class Sifted(msgspec.Struct, Generic[V], frozen=True):
    """The good values in the document's order, the keys that are held, and why."""

    values: tuple[V, ...]
    held: frozenset[str]
    rejected: tuple[Rejection, ...]


def has_control(text: str) -> bool:
    """Whether a text has a control character or line separator, which could break a file, a log line or a protocol."""
    # What is printable has none, and telling that is far cheaper than a search; a blank of another script is neither.
    return not text.isprintable() and _CONTROL.search(text) is not None


def shown(text: str, limit: int = 80) -> str:
    """A text from outside as it may stand in a message: quoted, escaped, and cut at `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def id_fault(field: str, text: str) -> Fault | None:
    """Ids become labels and folder names: not empty, not endless, no control character, no `/`, no `..` (any other character)."""
    if not text:
        return Fault(field, "is empty")
    if why := bounds.too_long(text, bounds.ID):
        return Fault(field, why)
    if has_control(text):
        return Fault(field, "has a control character")
    if "/" in text or ".." in text:
        return Fault(field, f"{shown(text)} has '/' or '..'")
    return None


def sift(
    name: str,
    entries: Sequence[W],
    key: Callable[[W], str],
    parse: Callable[[W], V | Fault],
    most: int,
    weights: Sequence[int] | None = None,
) -> Sifted[V]:
    """Split the entries of one list into good values and rejections; a key may be there once. The rest is as with `split`."""
    return split(name, list(map(key, entries)), list(map(parse, entries)), most, weights=weights)


def split(
    name: str,
    keys: Sequence[str],
    found: Sequence[V | Fault],
    most: int,
    *,
    unique: bool = True,
    weights: Sequence[int] | None = None,
) -> Sifted[V]:
    """Good values and rejections of entries that have been parsed: the key of each, and what was found.

    With `unique`, two entries with one key that differ are both rejected, and identical ones collapse. Without it (DNS, where a name
    may be listed twice), a key is held as soon as one of its entries is bad.

    No more than `most` keys are taken, or so many that the `weights` of their entries are no more together; the others are rejected.
    """
    if over := _over(keys, most, weights):
        what = "entries" if weights is None else "addresses"
        fault = Fault("", f"the list has {sum(weights or [1] * len(keys))} {what}, and at most {most} are taken")
        found = [fault if k in over else one for k, one in zip(keys, found, strict=True)]
    held = {k for k, one in zip(keys, found, strict=True) if isinstance(one, Fault)}
    repeated = len(set(keys)) < len(keys)
    clashes = _clashes(keys, found) if unique and repeated else set()
    held |= clashes
    good = (one for k, one in zip(keys, found, strict=True) if k not in held and not isinstance(one, Fault))
    rejected = [
        _rejection(f"{name}[{index}]", k, one)
        for index, (k, one) in enumerate(zip(keys, found, strict=True))
        if k in held and (k in clashes or isinstance(one, Fault))
    ]
    # Hashing a value costs more than all the rest, so it is left out where nothing can be there twice.
    return Sifted(tuple(dict.fromkeys(good) if repeated else good), frozenset(held), tuple(sorted(rejected)))


def _over(keys: Sequence[str], most: int, weights: Sequence[int] | None) -> frozenset[str]:
    """The keys that there is no room for, taken in their order, whatever the order in which they came."""
    if len(keys) <= most and (weights is None or sum(weights) <= most):
        return frozenset()
    sizes = dict.fromkeys(keys, 1)
    if weights is not None:
        sizes = dict.fromkeys(keys, 0)
        for key, weight in zip(keys, weights, strict=True):
            sizes[key] += weight
    room, over = most, set()
    for key in sorted(sizes):
        if sizes[key] <= room:
            room -= sizes[key]
        else:
            over.add(key)
    return frozenset(over)


def _rejection(path: str, key: str, found: object) -> Rejection:
    if isinstance(found, Fault):
        return Rejection(f"{path}.{found.field}" if found.field else path, key, found.reason)
    return Rejection(path, key, "another entry has the same key and differs")


def _clashes(keys: Iterable[str], found: Iterable[object]) -> set[str]:
    """The keys that stand for different values; a bad entry differs from any good one."""
    first: dict[str, object] = {}
    clashes: set[str] = set()
    for key, one in zip(keys, found, strict=True):
        value = None if isinstance(one, Fault) else one
        if first.setdefault(key, value) != value:
            clashes.add(key)
    return clashes
