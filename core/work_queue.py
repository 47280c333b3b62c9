"""The list of work items as it came: which can be done, which can only be acknowledged, which must be passed over.

Each item is read by itself, so that one of the wrong shape takes no other with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from core import bounds, protocol
from core.protocol import WorkItem
from core.rejection import shown


@dataclass(frozen=True, slots=True)
class IllShaped:
    """An item that makes no sense but says who it is, so that it can be acknowledged as failed; and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits: `items` oldest first, `ill_shaped` ones, and why `nameless` ones are passed over (each reason once).

    `unread` is how many more there are than are read at once; they come with later readings, when these are done. `ids` are those of all
    that the control plane still asks about, read or not.
    """

    items: tuple[WorkItem, ...]
    ill_shaped: tuple[IllShaped, ...]
    nameless: tuple[str, ...]
    unread: int
    ids: frozenset[str]

    def read(self) -> frozenset[str]:
        """The ids of what is to be done or refused now."""
        return frozenset({one.id for one in self.items} | {one.id for one in self.ill_shaped})


class _Queue(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]


class _Named(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.SHOWN_ID)]
    created: msgspec.Raw = msgspec.field(name="createdAt", default=msgspec.Raw())


_NAMED: Final = msgspec.json.Decoder(_Named)


def parse(raw: bytes) -> Result[Pending, str]:
    """The items in the answer of `GET /work-queue`; the failure says why it is no list of items."""
    if why := bounds.too_many_values(raw):
        return Failure(why)
    try:
        found = msgspec.json.decode(raw, type=_Queue).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(str(error))
    read, ids = _chosen(found)
    items: list[WorkItem] = []
    ill_shaped: dict[str, IllShaped] = {}
    nameless: dict[str, None] = {}
    for name, one in read:
        item = protocol.parse(bytes(one), WorkItem)
        if is_successful(item):
            items.append(item.unwrap())
        elif name is None:
            nameless[f"an item without an id: {item.failure()}"] = None
        else:
            ill_shaped[name] = IllShaped(name, f"the item makes no sense: {item.failure()}")
    good = in_order(items)
    for one_item in good:
        ill_shaped.pop(one_item.id, None)
    return Success(Pending(good, tuple(ill_shaped.values()), tuple(nameless), len(found) - len(read), ids))


def in_order(items: Iterable[WorkItem]) -> tuple[WorkItem, ...]:
    """Distinct items, oldest first (the queue has no order of its own)."""
    return tuple(sorted({item.id: item for item in items}.values(), key=lambda item: (item.created_at, item.id)))


def label(item: WorkItem) -> str:
    """What an item is called in a log line."""
    return f"{shown(item.type)} {shown(item.id)}"


def _chosen(found: Iterable[msgspec.Raw]) -> tuple[list[tuple[str | None, msgspec.Raw]], frozenset[str]]:
    """What is read at once: the oldest, and those without an id, which nobody can acknowledge, where there is room. And all ids.

    Only ids and times of the others are looked at. A time is compared as it is spelled in the document.
    """
    named: list[tuple[bytes, str, msgspec.Raw]] = []
    nameless: list[tuple[str | None, msgspec.Raw]] = []
    for raw in found:
        if (one := _named(raw)) is None:
            nameless.append((None, raw))
        else:
            named.append((bytes(one.created), one.id, raw))
    named.sort(key=lambda one: one[:2])
    read = [*((name, raw) for _, name, raw in named[: bounds.WORK_ITEMS]), *nameless]
    return read[: bounds.WORK_ITEMS], frozenset(name for _, name, _ in named)


def _named(raw: msgspec.Raw) -> _Named | None:
    try:
        return _NAMED.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
