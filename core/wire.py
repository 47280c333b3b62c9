"""The two documents that can be large, exactly as they are on the wire: the expected state and the dry run's actual state.

They are decoded in one pass that checks every type, by `msgspec`, whose cost is a fraction of `json.loads` (docs/decisions/0001). A
document of the wrong shape is refused whole, naming the path of its first fault; unknown fields are ignored. Whether an *entry* makes
sense is not decided here.
"""

import re
from typing import TypeVar

import msgspec
from returns.result import Failure, Result, Success


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
    """The answer of `GET /expected-state`."""

    containers: list[WireContainer]
    dns: WireRecords
    caddy: WireRoutes
    wireguard: WirePeers


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


def _fault(message: str) -> ShapeFault:
    match = _AT.match(message)
    reason, path = (match["reason"], match["path"] or "") if match else (message, "")
    missing = _MISSING.fullmatch(reason)
    if missing:
        return ShapeFault(f"{path}.{missing['field']}" if path else missing["field"], "is missing")
    return ShapeFault(path, reason[:1].lower() + reason[1:].replace("`", ""))
