"""Expected and actual state of one node, as the planner compares them.

Both are parsed once, at the edge, into values of the same types in canonical order. A component of the actual state that could not be
read is `UNREAD`, which is a value of its own: never an empty list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
from returns.result import Result

from core import caddy, containers, dns, wireguard
from core.caddy import Route
from core.containers import ActualContainer, DeploymentId, ExpectedContainer
from core.digest import digest
from core.dns import Record
from core.image import Image
from core.rejection import Rejection
from core.wire import ShapeFault, WireActual, decode
from core.wireguard import Peer

T = TypeVar("T")


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

    `images` follows from `containers`, once for all the looks at the server that are compared with this state.
    """

    containers: tuple[ExpectedContainer, ...] = ()
    dns: tuple[Record, ...] = ()
    caddy: tuple[Route, ...] = ()
    wireguard: tuple[Peer, ...] = ()
    held: Held = Held()
    rejected: tuple[Rejection, ...] = ()
    images: Mapping[DeploymentId, Image] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", {one.deployment_id: one.image for one in self.containers})


@dataclass(frozen=True, slots=True)
class ActualState:
    """What is there: our containers, and what each component serves now.

    `dns_before` and `caddy_before` are what was served when it could last be read. They count only while the component is unread, and
    only for held keys, so that bringing a component up again does not drop what was held. `running` are the images of the containers
    that run, by deployment; it follows from `containers`, once for all that ask.
    """

    containers: tuple[ActualContainer, ...] = ()
    dns: tuple[Record, ...] | Unread = ()
    caddy: tuple[Route, ...] | Unread = ()
    wireguard: tuple[Peer, ...] | Unread = ()
    dns_before: tuple[Record, ...] = ()
    caddy_before: tuple[Route, ...] = ()
    running: Mapping[DeploymentId | None, Image | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        running = {one.deployment_id: one.image for one in self.containers if one.state == "running"}
        object.__setattr__(self, "running", running)


Component: TypeAlias = Literal["dns", "caddy", "wireguard"]
COMPONENTS: Final[tuple[Component, ...]] = ("dns", "caddy", "wireguard")


class Hashes(msgspec.Struct, frozen=True):
    """Digests of both sides of one component, held keys left out; the actual one is None when it could not be read."""

    expected: str
    actual: str | None = None


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


def without(expected: ExpectedState, left_out: frozenset[Component]) -> ExpectedState:
    """The expected state with whole components left out, for those that this server does not manage."""
    return replace(
        expected,
        dns=() if "dns" in left_out else expected.dns,
        caddy=() if "caddy" in left_out else expected.caddy,
        wireguard=() if "wireguard" in left_out else expected.wireguard,
    )


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
    return {
        "dns": _hashes(expected.dns, seen.dns, dns_digest),
        "caddy": _hashes(expected.caddy, seen.caddy, caddy_digest),
        "wireguard": _hashes(expected.wireguard, seen.wireguard, wireguard_digest),
    }


def dns_digest(records: tuple[Record, ...]) -> str:
    """Digest of records in canonical order."""
    return digest(map(dns.plain, records))


def caddy_digest(routes: tuple[Route, ...]) -> str:
    """Digest of routes in canonical order."""
    return digest(map(caddy.plain, routes))


def wireguard_digest(peers: tuple[Peer, ...]) -> str:
    """Digest of peers in canonical order."""
    return digest(map(wireguard.plain, peers))


def _hashes(expected: tuple[T, ...], actual: tuple[T, ...] | Unread, of: Callable[[tuple[T, ...]], str]) -> Hashes:
    return Hashes(of(expected), None if actual is UNREAD else of(actual))
