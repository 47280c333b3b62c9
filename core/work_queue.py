"""The list of work items as it came: which can be done, which can only be acknowledged, which must be passed over.

Each item is read by itself, so that one of the wrong shape takes no other with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

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

    `unread` is how many more there are than are read at once; they come with later readings, when these are done.
    """

    items: tuple[WorkItem, ...]
    ill_shaped: tuple[IllShaped, ...]
    nameless: tuple[str, ...]
    unread: int = 0

    def ids(self) -> frozenset[str]:
        """Every id that the control plane still asks about."""
        return frozenset({one.id for one in self.items} | {one.id for one in self.ill_shaped})


class _Queue(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]


class _Named(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.SHOWN_ID)]


def parse(raw: bytes) -> Result[Pending, str]:
    """The items in the answer of `GET /work-queue`; the failure says why it is no list of items."""
    if why := bounds.too_many_values(raw):
        return Failure(why)
    try:
        found = msgspec.json.decode(raw, type=_Queue).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(str(error))
    unread = max(0, len(found) - bounds.WORK_ITEMS)
    items: list[WorkItem] = []
    ill_shaped: dict[str, IllShaped] = {}
    nameless: dict[str, None] = {}
    for one in found[: bounds.WORK_ITEMS]:
        item = protocol.parse(bytes(one), WorkItem)
        if is_successful(item):
            items.append(item.unwrap())
            continue
        name = _name(bytes(one))
        if name is None:
            nameless[f"an item without an id: {item.failure()}"] = None
        else:
            ill_shaped[name] = IllShaped(name, f"the item makes no sense: {item.failure()}")
    good = in_order(items)
    for one_item in good:
        ill_shaped.pop(one_item.id, None)
    return Success(Pending(good, tuple(ill_shaped.values()), tuple(nameless), unread))


def in_order(items: Iterable[WorkItem]) -> tuple[WorkItem, ...]:
    """Distinct items, oldest first (the queue has no order of its own)."""
    return tuple(sorted({item.id: item for item in items}.values(), key=lambda item: (item.created_at, item.id)))


def label(item: WorkItem) -> str:
    """What an item is called in a log line."""
    return f"{shown(item.type)} {shown(item.id)}"


def _name(raw: bytes) -> str | None:
    try:
        return msgspec.json.decode(raw, type=_Named).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
