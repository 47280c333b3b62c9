"""Which images of this server are rubbish: those that this agent pulled and that nothing has needed for long, or for lack of room.

Never one that a container uses, that a deployment is, that is expected, that has just come, that is among the two newest of a service which
still lives (a way back must stay), or that this agent did not pull itself. One that has lost its name, since the tag has moved, goes once
nothing uses it: nobody can ask for it by a name any more. Times are seconds since the epoch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from core.image import Image
from core.state import ExpectedState

UNUSED_S: Final = 7 * 86_400.0
JUST_PULLED_S: Final = 3600.0
NEWEST_KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class Pulled:
    """A reference that this agent pulled: when it last came and was last needed, its services, the images that came."""

    pulled_at_s: float
    needed_at_s: float
    services: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in the engine's store: its id and every name it goes by."""

    id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """What is in the engine's store, and the ids of the images that containers use, whoever made those, or that a deployment is."""

    images: tuple[Stored, ...]
    used: frozenset[str]


Ledger = Mapping[str, Pulled]
"""The images that this agent pulled, by reference."""


def pulled(ledger: Ledger, image: Image, image_id: str, now_s: float) -> dict[str, Pulled]:
    """The ledger after a pull that brought the image of this id."""
    before = ledger.get(str(image), Pulled(now_s, now_s))
    return {**ledger, str(image): Pulled(now_s, now_s, before.services, before.ids | {image_id})}


def needed(ledger: Ledger, expected: ExpectedState, now_s: float) -> dict[str, Pulled]:
    """The ledger when this is expected: its images are needed now, and known to be its services'."""
    after = dict(ledger)
    for one in expected.containers:
        entry = after.get(str(one.image))
        if entry is not None:
            after[str(one.image)] = replace(entry, needed_at_s=now_s, services=entry.services | {one.service_id})
    return after


def present(ledger: Ledger, store: Store, now_s: float) -> dict[str, Pulled]:
    """The ledger without what has gone; what containers use is needed now."""
    by_name = {name: one for one in store.images for name in one.names}
    here = {one.id for one in store.images}
    after: dict[str, Pulled] = {}
    for name, entry in ledger.items():
        ids = entry.ids & here
        if name in by_name or ids:
            is_used = name in by_name and by_name[name].id in store.used
            after[name] = replace(entry, ids=ids, needed_at_s=now_s if is_used else entry.needed_at_s)
    return after


def rubbish(ledger: Ledger, store: Store, wanted: Iterable[str], now_s: float, *, is_full: bool) -> tuple[str, ...]:
    """The references to be removed, the longest unneeded first, and the ids of images that have lost theirs.

    `wanted` are references that are expected or on their way; `is_full`: age does not matter.
    """
    by_name = {name: one for one in store.images for name in one.names}
    kept = frozenset(wanted) | _ways_back(ledger, by_name, now_s)
    old = [
        (entry.needed_at_s, name)
        for name, entry in ledger.items()
        if name in by_name
        and name not in kept
        and by_name[name].id not in store.used
        and now_s - entry.pulled_at_s >= JUST_PULLED_S
        and (is_full or now_s - entry.needed_at_s >= UNUSED_S)
    ]
    return (*_nameless(ledger, store, now_s), *[name for _, name in sorted(old)])


def _nameless(ledger: Ledger, store: Store, now_s: float) -> tuple[str, ...]:
    ours = {one for entry in ledger.values() if now_s - entry.pulled_at_s >= JUST_PULLED_S for one in entry.ids}
    return tuple(sorted(one.id for one in store.images if not one.names and one.id in ours - store.used))


def _ways_back(ledger: Ledger, by_name: Mapping[str, Stored], now_s: float) -> frozenset[str]:
    """The newest images of each service, unless none of the service's has been needed for long: then it has left this server."""
    services: dict[str, list[tuple[float, str]]] = {}
    live = {one for entry in ledger.values() if now_s - entry.needed_at_s < UNUSED_S for one in entry.services}
    for name, entry in ledger.items():
        if name in by_name:
            for service in entry.services & live:
                services.setdefault(service, []).append((entry.pulled_at_s, name))
    return frozenset(name for found in services.values() for _, name in sorted(found, reverse=True)[:NEWEST_KEPT])
