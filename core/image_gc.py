"""Which images of this server are rubbish: those that this agent pulled and that nothing has needed for long, or for lack of room.

Never one that a container uses, that is expected, that has just come, that is among the two newest of a service which still lives (a way
back must stay), or that this agent did not pull itself. Times are seconds since the epoch.
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
    """An image that this agent pulled: when it last came, when it was last needed, and the services that it was for."""

    pulled_at_s: float
    needed_at_s: float
    services: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in the engine's store: its id and every name it goes by."""

    id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """What is in the engine's store, and the ids of the images that containers use, whoever made those."""

    images: tuple[Stored, ...]
    used: frozenset[str]


Ledger = Mapping[str, Pulled]
"""The images that this agent pulled, by reference."""


def pulled(ledger: Ledger, image: Image, now_s: float) -> dict[str, Pulled]:
    """The ledger after a pull."""
    before = ledger.get(str(image))
    services = frozenset() if before is None else before.services
    return {**ledger, str(image): Pulled(now_s, now_s, services)}


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
    return {
        name: replace(entry, needed_at_s=now_s) if by_name[name].id in store.used else entry
        for name, entry in ledger.items()
        if name in by_name
    }


def rubbish(ledger: Ledger, store: Store, wanted: Iterable[str], now_s: float, *, is_full: bool) -> tuple[str, ...]:
    """The references to be removed, the longest unneeded first. `wanted` are expected or on their way; `is_full`: age does not matter."""
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
    return tuple(name for _, name in sorted(old))


def _ways_back(ledger: Ledger, by_name: Mapping[str, Stored], now_s: float) -> frozenset[str]:
    """The newest images of each service, unless none of the service's has been needed for long: then it has left this server."""
    services: dict[str, list[tuple[float, str]]] = {}
    live = {one for entry in ledger.values() if now_s - entry.needed_at_s < UNUSED_S for one in entry.services}
    for name, entry in ledger.items():
        if name in by_name:
            for service in entry.services & live:
                services.setdefault(service, []).append((entry.pulled_at_s, name))
    return frozenset(name for found in services.values() for _, name in sorted(found, reverse=True)[:NEWEST_KEPT])
