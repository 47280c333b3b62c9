"""Expected and actual state of one node, as the planner compares them.

Both are parsed once, at the edge, into values of the same types in canonical order. A component of the actual state that could not be
read is `UNREAD`, which is a value of its own: never an empty list.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from itertools import compress
from operator import attrgetter, is_not
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from returns.result import Result, Success

from core import bounds, caddy, containers, dns, wireguard
from core.caddy import Route
from core.containers import ActualContainer, DeploymentId, ExpectedContainer
from core.digest import Plain, digest
from core.dns import Record
from core.ends import equal_ends
from core.image import Image
from core.local_rules import NO_RULES, LocalRules
from core.rejection import Fault, Rejection, Sifted, split
from core.wire import MisshapenContainer, ShapeFault, WireActual, WireContainer, WireLists, decode, decode_expected
from core.wireguard import Peer

T = TypeVar("T")

_BY_DEPLOYMENT: Final = attrgetter("deployment_id")


class NodeType(Enum):
    """A worker runs containers only; a proxy also runs Caddy."""

    WORKER = "worker"
    PROXY = "proxy"


class Unread(Enum):
    """The state of a component that could not be read."""

    UNREAD = "unread"


UNREAD: Final = Unread.UNREAD


@dataclass(frozen=True, slots=True)
class Held:
    """Keys of rejected entries, per list: left out of both sides of the comparison."""

    containers: frozenset[str] = frozenset()
    dns: frozenset[str] = frozenset()
    caddy: frozenset[str] = frozenset()
    wireguard: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ExpectedState:
    """What the control plane wants of this node, without its rejected entries.

    `refused` are deployment and service of the rejected containers, None for a service that could not be read. `images` follows from
    `containers`, once for all the looks at the server that are compared with this state; `digests` are the hashes of the other three lists,
    by which drift is told.
    """

    containers: tuple[ExpectedContainer, ...] = ()
    dns: tuple[Record, ...] = ()
    caddy: tuple[Route, ...] = ()
    wireguard: tuple[Peer, ...] = ()
    held: Held = Held()
    rejected: tuple[Rejection, ...] = ()
    refused: frozenset[tuple[str, str | None]] = frozenset()
    images: Mapping[DeploymentId, Image] = field(init=False, repr=False, compare=False)
    digests: Mapping["Component", str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", {one.deployment_id: one.image for one in self.containers})
        object.__setattr__(self, "digests", {name: digest_of(name, getattr(self, name)) for name in COMPONENTS})


class _Parts(msgspec.Struct, frozen=True):
    """The four lists of an expected state, each in canonical order and with its rejections."""

    containers: Sifted[ExpectedContainer]
    dns: Sifted[Record]
    caddy: Sifted[Route]
    wireguard: Sifted[Peer]


@dataclass(frozen=True, slots=True)
class ActualState:
    """What is there: our containers, and what each component serves now.

    `dns_before` and `caddy_before` are what was served when it could last be read. They count only while the component is unread, and
    only for held keys, so that bringing a component up again does not drop what was held. `running` are the images of the containers
    that run, by deployment; it follows from `containers`, once for all that ask. `digests` are the hashes of the other three, None for one
    that is unread.
    """

    containers: tuple[ActualContainer, ...] = ()
    dns: tuple[Record, ...] | Unread = ()
    caddy: tuple[Route, ...] | Unread = ()
    wireguard: tuple[Peer, ...] | Unread = ()
    dns_before: tuple[Record, ...] = ()
    caddy_before: tuple[Route, ...] = ()
    running: Mapping[DeploymentId | None, Image | None] = field(init=False, repr=False, compare=False)
    digests: Mapping["Component", str | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        running = {one.deployment_id: one.image for one in self.containers if one.state == "running"}
        object.__setattr__(self, "running", running)
        found = {name: getattr(self, name) for name in COMPONENTS}
        digests = {name: None if values is UNREAD else digest_of(name, values) for name, values in found.items()}
        object.__setattr__(self, "digests", digests)


Component: TypeAlias = Literal["dns", "caddy", "wireguard"]
COMPONENTS: Final[tuple[Component, ...]] = ("dns", "caddy", "wireguard")
_PLAIN: Final[Mapping[Component, Callable[..., Plain]]] = {
    "dns": dns.plain,
    "caddy": caddy.plain,
    "wireguard": wireguard.plain,
}


class Hashes(msgspec.Struct, frozen=True):
    """Digests of both sides of one component, held keys left out; the actual one is None when it could not be read."""

    expected: str
    actual: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """An expected state as it came, what it means on the server with `subnet_id` and `rules`, and what the next one's parse can take over.

    `found` is what each entry of its containers was found to be, in the document's order.
    """

    expected: ExpectedState
    raw: bytes = field(repr=False)
    subnet_id: int | None
    own_key: str | None
    rules: LocalRules
    wire: WireLists = field(repr=False)
    found: tuple[ExpectedContainer | Fault, ...] = field(repr=False)
    parts: _Parts = field(repr=False)


def parse_expected(raw: bytes, subnet_id: int | None = None) -> Result[ExpectedState, ShapeFault]:
    """Parse an expected state. With the own subnet known, addresses must be the server's own and peers must leave it alone."""
    return parse_expected_after(None, raw, subnet_id).map(lambda document: document.expected)


def parse_expected_after(
    before: Document | None,
    raw: bytes,
    subnet_id: int | None = None,
    own_key: str | None = None,
    rules: LocalRules = NO_RULES,
) -> Result[Document, ShapeFault]:
    """The same, where `before` is any earlier document: what has not changed since is not checked again.

    The outcome does not depend on `before`. The same bytes give the same document back. `own_key` is this server's own in the tunnel,
    `rules` are its owner's.
    """
    if before is not None and (before.subnet_id, before.own_key, before.rules) != (subnet_id, own_key, rules):
        before = None
    if before is not None and before.raw == raw:
        return Success(before)
    return decode_expected(raw).map(lambda wire: _document(before, raw, subnet_id, own_key, rules, wire))


def _document(
    before: Document | None,
    raw: bytes,
    subnet_id: int | None,
    own_key: str | None,
    rules: LocalRules,
    wire: WireLists,
) -> Document:
    found = _found(before, wire, subnet_id, rules)
    parts = _parts(before, wire, subnet_id, own_key, rules, found)
    expected = ExpectedState(
        containers=parts.containers.values,
        dns=parts.dns.values,
        caddy=parts.caddy.values,
        wireguard=parts.wireguard.values,
        held=Held(parts.containers.held, parts.dns.held, parts.caddy.held, parts.wireguard.held),
        rejected=tuple(
            sorted((*parts.containers.rejected, *parts.dns.rejected, *parts.caddy.rejected, *parts.wireguard.rejected))
        ),
        refused=_refused(wire, parts.containers.held) if parts.containers.held else frozenset(),
    )
    return Document(expected, raw, subnet_id, own_key, rules, wire, found, parts)


def _refused(wire: WireLists, held: frozenset[str]) -> frozenset[tuple[str, str | None]]:
    return frozenset((one.deployment_id, one.service_id) for one in wire.containers if one.deployment_id in held)


def _found(
    before: Document | None, wire: WireLists, subnet_id: int | None, rules: LocalRules
) -> tuple[ExpectedContainer | Fault, ...]:
    old: tuple[WireContainer | MisshapenContainer, ...] = () if before is None else tuple(before.wire.containers)
    was = () if before is None else before.found
    head, tail = equal_ends(old, wire.containers)
    end = len(old) - tail
    known = {one.deployment_id: (one, found) for one, found in zip(old[head:end], was[head:end], strict=True)}

    def found_again(entry: WireContainer | MisshapenContainer) -> ExpectedContainer | Fault:
        if isinstance(entry, MisshapenContainer):
            return entry.fault
        one, found = known.get(entry.deployment_id, (None, None))
        return containers.normalise_expected(entry, subnet_id, rules) if found is None or one != entry else found

    between = wire.containers[head : len(wire.containers) - tail]
    return (*was[:head], *[found_again(entry) for entry in between], *was[end:])


def _parts(
    before: Document | None,
    wire: WireLists,
    subnet_id: int | None,
    own_key: str | None,
    rules: LocalRules,
    found: tuple[ExpectedContainer | Fault, ...],
) -> _Parts:
    """Every list by itself; one that is the last document's is taken over from it."""
    old, was = (None, None) if before is None else (before.wire, before.parts)
    return _Parts(
        containers=(_exchanged(before, found) if before else None) or _sorted(wire, found),
        dns=was.dns if was and old and old.records == wire.records else dns.normalise_expected(wire.records, rules),
        caddy=was.caddy
        if was and old and old.routes == wire.routes
        else caddy.normalise_expected(wire.routes, subnet_id, rules),
        wireguard=was.wireguard
        if was and old and old.peers == wire.peers
        else wireguard.normalise_expected(wire.peers, subnet_id, own_key),
    )


def _sorted(wire: WireLists, found: tuple[ExpectedContainer | Fault, ...]) -> Sifted[ExpectedContainer]:
    sifted = split("containers", [entry.deployment_id for entry in wire.containers], found, bounds.CONTAINERS)
    return Sifted(tuple(sorted(sifted.values, key=_BY_DEPLOYMENT)), sifted.held, sifted.rejected)


def _exchanged(before: Document, found: tuple[ExpectedContainer | Fault, ...]) -> Sifted[ExpectedContainer] | None:
    """The last document's containers, with those that have changed since in their places; None when that is not all that is new."""
    values = list(before.parts.containers.values)
    had_others = len(values) != len(before.found)  # rejected or repeated ones
    if had_others or len(before.found) != len(found):
        return None
    for old, new in compress(zip(before.found, found, strict=True), map(is_not, before.found, found)):
        if isinstance(old, Fault) or isinstance(new, Fault) or old.deployment_id != new.deployment_id:
            return None
        values[bisect_left(values, new.deployment_id, key=_BY_DEPLOYMENT)] = new
    return Sifted(tuple(values), frozenset(), ())


def parse_actual(raw: bytes) -> Result[ActualState, ShapeFault]:
    """Parse the dry run's actual state; containers without any label of ours are left out."""
    return decode(raw, WireActual).map(_actual)


def _actual(document: WireActual) -> ActualState:
    ours = [entry for entry in document.containers if containers.is_ours(entry.labels)]
    return ActualState(
        containers=tuple(dict.fromkeys(containers.normalise_actual(entry) for entry in ours)),
        dns=UNREAD if document.dns is None else dns.normalise_actual(document.dns.records),
        caddy=UNREAD if document.caddy is None else caddy.normalise_actual(document.caddy.routes),
        wireguard=UNREAD if document.wireguard is None else wireguard.normalise_actual(document.wireguard.peers),
    )


Side = TypeVar("Side", ExpectedState, ActualState)


def without(side: Side, left_out: frozenset[Component]) -> Side:
    """An expected or actual state with whole components left out, for those that this server does not manage."""
    return replace(
        side,
        dns=() if "dns" in left_out else side.dns,
        caddy=() if "caddy" in left_out else side.caddy,
        wireguard=() if "wireguard" in left_out else side.wireguard,
    )


def entries_of(side: ExpectedState | ActualState) -> int:
    """How many containers, records, routes and peers there are together, rejected ones included."""
    lists: tuple[tuple[Any, ...] | Unread, ...] = (side.containers, side.dns, side.caddy, side.wireguard)
    rejected = len(side.rejected) if isinstance(side, ExpectedState) else 0
    return rejected + sum(len(one) for one in lists if not isinstance(one, Unread))


def not_held(actual: ActualState, held: Held) -> ActualState:
    """The actual state with everything left out whose key is held."""
    if held == Held():
        return actual
    return ActualState(
        containers=tuple(c for c in actual.containers if c.deployment_id not in held.containers),
        dns=actual.dns if actual.dns is UNREAD else tuple(r for r in actual.dns if r.name not in held.dns),
        caddy=actual.caddy if actual.caddy is UNREAD else tuple(r for r in actual.caddy if r.id not in held.caddy),
        wireguard=actual.wireguard
        if actual.wireguard is UNREAD
        else tuple(p for p in actual.wireguard if p.public_key not in held.wireguard),
    )


def hashes(expected: ExpectedState, actual: ActualState) -> dict[Component, Hashes]:
    """The digests of both sides of each component."""
    seen = not_held(actual, expected.held)
    return {name: Hashes(expected.digests[name], seen.digests[name]) for name in COMPONENTS}


def digest_of(component: Component, values: tuple[Any, ...]) -> str:
    """Digest of a component's records, routes or peers in canonical order.

    Both sides are equal nearly always, and the same from look to look: what was digested lately is not digested again.
    """
    return _digest_of(component, _Values(values))


class _Values:
    """Values as a key of a cache: told apart by their content, without a hash of each."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values

    def __hash__(self) -> int:
        return len(self.values)  # the few that are kept are compared

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Values) and self.values == other.values


@lru_cache(maxsize=6)  # both sides of three components: nothing of documents that are long gone
def _digest_of(component: Component, key: _Values) -> str:
    return digest(map(_PLAIN[component], key.values))
