"""What is wrong with one entry of a document, and which key it therefore holds.

A bad entry is rejected alone. Its key is *held*: whatever exists for that key stays as it is and is left out of both sides of the
comparison, so that a mistake in one entry neither stops the others nor tears down what still serves.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from returns.pipeline import is_successful
from returns.result import Result

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

W = TypeVar("W")
V = TypeVar("V", bound=Hashable)


@dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """`path` in the document (`containers[3].image`), the `key` that is held, and the `reason` in words."""

    path: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong inside one entry: the field (empty for the entry as a whole) and the reason."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sifted(Generic[V]):
    """The good values in the document's order, the keys that are held, and why."""

    values: tuple[V, ...]
    held: frozenset[str]
    rejected: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class _Seen(Generic[V]):
    index: int
    key: str
    value: V | None


def has_control(text: str) -> bool:
    """Whether a text has a control character or line separator, which could break a file, a log line or a protocol."""
    return _CONTROL.search(text) is not None


def shown(text: str, limit: int = 80) -> str:
    """A text from outside as it may stand in a message: quoted, escaped, and cut at `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def id_fault(field: str, text: str) -> Fault | None:
    """Ids become labels and folder names: not empty, no control character, no `/`, no `..` (any length, any other character)."""
    if not text:
        return Fault(field, "is empty")
    if has_control(text):
        return Fault(field, "has a control character")
    if "/" in text or ".." in text:
        return Fault(field, f"{shown(text)} has '/' or '..'")
    return None


def sift(
    name: str,
    entries: Sequence[W],
    key: Callable[[W], str],
    parse: Callable[[W], Result[V, Fault]],
    *,
    unique: bool = True,
) -> Sifted[V]:
    """Split the entries of one list into good values and rejections.

    With `unique`, two entries with one key that differ are both rejected, and identical ones collapse. Without it (DNS, where a name
    may be listed twice), a key is held as soon as one of its entries is bad.
    """
    seen: list[_Seen[V]] = []
    rejected: list[Rejection] = []
    for index, entry in enumerate(entries):
        outcome = parse(entry)
        if is_successful(outcome):
            seen.append(_Seen(index, key(entry), outcome.unwrap()))
            continue
        fault = outcome.failure()
        path = f"{name}[{index}]" + (f".{fault.field}" if fault.field else "")
        rejected.append(Rejection(path, key(entry), fault.reason))
        seen.append(_Seen(index, key(entry), None))
    held = {one.key for one in seen if one.value is None}
    if unique:
        clashes = _clashes(seen)
        rejected += [
            Rejection(f"{name}[{one.index}]", one.key, "another entry has the same key and differs")
            for one in seen
            if one.key in clashes and one.value is not None
        ]
        held |= clashes
    good = dict.fromkeys(one.value for one in seen if one.value is not None and one.key not in held)
    return Sifted(tuple(good), frozenset(held), tuple(sorted(rejected)))


def _clashes(seen: Iterable[_Seen[V]]) -> set[str]:
    first: dict[str, V | None] = {}
    clashes: set[str] = set()
    for one in seen:
        if one.key not in first:
            first[one.key] = one.value
        elif first[one.key] != one.value:
            clashes.add(one.key)
    return clashes
