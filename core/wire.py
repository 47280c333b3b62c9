"""The two documents that can be large, exactly as they are on the wire: the expected state and the dry run's actual state.

They are decoded in one pass that checks every type, by `msgspec`, whose cost is a fraction of `json.loads` (docs/decisions/0001). A
document of the wrong shape is refused whole, naming the path of its first fault; unknown fields are ignored. Whether an *entry* makes
sense is not decided here, except that one entry of the expected state that is misshapen spoils no other: when the one pass fails, each
entry is decoded by itself, and of a misshapen one the key must be readable.
"""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

import msgspec
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from core.rejection import Fault, Misshapen


class WirePort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A port inside the container and the one that the control plane set aside for it on the host."""

    container_port: int
    host_port: int


class WireHealthCheck(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A shell command; interval, timeout and start period in seconds."""

    cmd: str
    interval: int
    timeout: int
    retries: int
    start_period: int


class WireVolume(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A named folder of the service, mounted at `container_path`."""

    name: str
    host_path: str
    container_path: str


class WireContainer(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One entry of `containers`; the values of `env` are encrypted."""

    deployment_id: str
    service_id: str
    service_name: str
    name: str
    image: str
    ip_address: str | None
    ports: tuple[WirePort, ...]
    env: dict[str, str]
    health_check: WireHealthCheck | None
    volumes: tuple[WireVolume, ...]


class WireRecord(msgspec.Struct, frozen=True, gc=False):
    """A DNS name and its IPv4 addresses."""

    name: str
    ips: tuple[str, ...]


class WireRoute(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A public domain and the `address:port` of everything that answers for it."""

    id: str
    domain: str
    upstreams: tuple[str, ...]
    service_id: str


class WirePeer(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A WireGuard peer: base64 key, comma-separated networks, `address:port` or nothing."""

    public_key: str
    allowed_ips: str
    endpoint: str | None


class WireRecords(msgspec.Struct, frozen=True):
    """The `dns` object."""

    records: list[WireRecord]


class WireRoutes(msgspec.Struct, frozen=True):
    """The `caddy` object."""

    routes: list[WireRoute]


class WirePeers(msgspec.Struct, frozen=True):
    """The `wireguard` object."""

    peers: list[WirePeer]


class WireExpected(msgspec.Struct, frozen=True):
    """The answer of `GET /expected-state`, when every entry has its shape."""

    containers: list[WireContainer]
    dns: WireRecords
    caddy: WireRoutes
    wireguard: WirePeers


class MisshapenContainer(Misshapen, frozen=True):
    """`service_id` is None when it could not be read either."""

    deployment_id: str
    service_id: str | None


class MisshapenRecord(Misshapen, frozen=True):
    """A record without its addresses."""

    name: str


class MisshapenRoute(Misshapen, frozen=True):
    """A route without anything but its id."""

    id: str


class MisshapenPeer(Misshapen, frozen=True):
    """A peer without anything but its key."""

    public_key: str


class WireLists(msgspec.Struct, frozen=True):
    """The four lists of an expected state, each in the document's order."""

    containers: Sequence[WireContainer | MisshapenContainer]
    records: Sequence[WireRecord | MisshapenRecord]
    routes: Sequence[WireRoute | MisshapenRoute]
    peers: Sequence[WirePeer | MisshapenPeer]


class WireActualContainer(msgspec.Struct, frozen=True, gc=False):
    """A container in the dry run's actual state; `created` in seconds since the epoch."""

    id: str
    name: str
    image: str
    state: str
    labels: dict[str, str]
    created: int = 0
    health: str = "none"


class WireActual(msgspec.Struct, frozen=True):
    """The dry run's actual state; a component that is null could not be read."""

    containers: list[WireActualContainer]
    dns: WireRecords | None = WireRecords([])
    caddy: WireRoutes | None = WireRoutes([])
    wireguard: WirePeers | None = WirePeers([])


class ShapeFault(msgspec.Struct, frozen=True):
    """Why a document was refused whole: the path of the first fault (empty for the document itself) and what is wrong there."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path or 'document'}: {self.reason}"


Document = TypeVar("Document", bound=msgspec.Struct)
Entry = TypeVar("Entry", bound=msgspec.Struct)
Key = TypeVar("Key", bound=msgspec.Struct)
Spoiled = TypeVar("Spoiled", bound=Misshapen)

_AT = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")


def decode(raw: bytes, kind: type[Document]) -> Result[Document, ShapeFault]:
    """Decode one document of the given kind."""
    if not raw or raw.isspace():
        return Failure(ShapeFault("", "is empty"))
    try:
        return Success(msgspec.json.decode(raw, type=kind))
    except msgspec.ValidationError as error:
        return Failure(_fault(str(error)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Failure(ShapeFault("", f"is not JSON: {error}"))
    except RecursionError:
        return Failure(ShapeFault("", "is nested too deeply"))


def decode_expected(raw: bytes) -> Result[WireLists, ShapeFault]:
    """Decode an expected state. It fails for what is wrong outside of the entries, and for an entry whose key cannot be read."""
    whole = decode(raw, WireExpected)
    if is_successful(whole):
        found = whole.unwrap()
        return Success(WireLists(found.containers, found.dns.records, found.caddy.routes, found.wireguard.peers))
    return decode(raw, _Entries).bind(_entry_by_entry)


class _RawRecords(msgspec.Struct, frozen=True):
    records: list[msgspec.Raw]


class _RawRoutes(msgspec.Struct, frozen=True):
    routes: list[msgspec.Raw]


class _RawPeers(msgspec.Struct, frozen=True):
    peers: list[msgspec.Raw]


class _Entries(msgspec.Struct, frozen=True):
    """An expected state whose entries have not been decoded."""

    containers: list[msgspec.Raw]
    dns: _RawRecords
    caddy: _RawRoutes
    wireguard: _RawPeers


class _Deployment(msgspec.Struct, frozen=True, rename="camel"):
    deployment_id: str


class _Service(msgspec.Struct, frozen=True, rename="camel"):
    service_id: str


class _Name(msgspec.Struct, frozen=True):
    name: str


class _Id(msgspec.Struct, frozen=True):
    id: str


class _PublicKey(msgspec.Struct, frozen=True, rename="camel"):
    public_key: str


def _entry_by_entry(entries: _Entries) -> Result[WireLists, ShapeFault]:
    def container(raw: bytes, key: _Deployment, fault: Fault) -> MisshapenContainer:
        service_id = decode(raw, _Service).map(attrgetter("service_id")).value_or(None)
        return MisshapenContainer(fault, key.deployment_id, service_id)

    return Result.do(
        WireLists(containers, records, routes, peers)
        for containers in _each("containers", entries.containers, WireContainer, _Deployment, container)
        for records in _each(
            "dns.records",
            entries.dns.records,
            WireRecord,
            _Name,
            lambda _, key, fault: MisshapenRecord(fault, key.name),
        )
        for routes in _each(
            "caddy.routes", entries.caddy.routes, WireRoute, _Id, lambda _, key, fault: MisshapenRoute(fault, key.id)
        )
        for peers in _each(
            "wireguard.peers",
            entries.wireguard.peers,
            WirePeer,
            _PublicKey,
            lambda _, key, fault: MisshapenPeer(fault, key.public_key),
        )
    )


def _each(
    name: str,
    entries: list[msgspec.Raw],
    kind: type[Entry],
    key_kind: type[Key],
    misshapen: Callable[[bytes, Key, Fault], Spoiled],
) -> Result[Sequence[Entry | Spoiled], ShapeFault]:
    """The entries of one list; the first whose key cannot be read is the document's fault."""
    found: list[Entry | Spoiled] = []
    for index, raw in enumerate(map(bytes, entries)):
        whole = decode(raw, kind)
        if is_successful(whole):
            found.append(whole.unwrap())
            continue
        key = decode(raw, key_kind)
        if not is_successful(key):
            at = key.failure()
            return Failure(ShapeFault(f"{name}[{index}].{at.path}" if at.path else f"{name}[{index}]", at.reason))
        fault = whole.failure()
        found.append(misshapen(raw, key.unwrap(), Fault(fault.path, fault.reason)))
    return Success(found)


def _fault(message: str) -> ShapeFault:
    match = _AT.match(message)
    reason, path = (match["reason"], match["path"] or "") if match else (message, "")
    missing = _MISSING.fullmatch(reason)
    if missing:
        return ShapeFault(f"{path}.{missing['field']}" if path else missing["field"], "is missing")
    return ShapeFault(path, reason[:1].lower() + reason[1:].replace("`", ""))
