"""What Podman answers, as the core's values: the listing of containers, one container, the network.

Decides what Podman's words mean here. A listing with one item of the wrong shape is refused whole, since an incomplete listing must never
pass for a complete one. Field names are those of the libpod API, 4.3 to 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import structs
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from core import image
from core.containers import (
    SERVICE_LABEL,
    SERVICE_NAME_LABEL,
    ActualContainer,
    ContainerId,
    deployment_of,
    is_ours,
)
from core.podman import Limit, gateway, subnet
from core.refusal import one_line

T = TypeVar("T")

# Podman's words for a state, and what they mean to whoever decides. `configured` and `initialized` are steps between creation and first
# start, `stopped` is an exit whose cleaning up is not done: all of them are startable like the state beside them.
_STATES: Final[Mapping[str, str]] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "stopped": "exited",
    "exited": "exited",
    "paused": "paused",
    "stopping": "stopping",
    "removing": "removing",
    "dead": "dead",
}
_UNKNOWN: Final = "unknown"
_HEALTH: Final[Mapping[str, str]] = {"": "none", "starting": "starting", "healthy": "healthy", "unhealthy": "unhealthy"}
# A later Podman's word is no result yet: "none" would count as healthy at the control plane.
_NO_RESULT: Final = "starting"
_FRAME_HEAD: Final = 8
# A longer number is no time, and fits no float.
_Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_NOTHING_TOLD: Final[Mapping[ContainerId, float]] = MappingProxyType({})
_EVENT_LAG_S: Final = 2.0  # Podman writes the event once the start is done; a later one belongs to another start


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that was looked at by id or name: whose it is, and how it is.

    `fault` is set when Podman lists it and cannot look into it, as after a power cut in which its files were not written whole.
    """

    id: ContainerId
    name: str
    state: str
    ours: bool
    deployment_id: str | None
    limits: tuple[Limit, ...]
    log_file: str | None = None
    fault: str | None = None


class _Item(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """One container of `GET /containers/json`. Start and exit in whole seconds since the epoch, negative when they never were."""

    id: ContainerId
    names: list[str]
    image: str
    state: str
    created: Annotated[datetime, msgspec.Meta(tz=True)]  # one without a zone would be read in this server's
    labels: dict[str, str] | None = None
    started_at: _Seconds = -1
    exited_at: _Seconds = -1
    exit_code: int = 0
    pid: int = 0
    status: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The containers of ours in one answer, and what the next answer's parse can take over from it."""

    containers: tuple[ActualContainer, ...]
    raw: bytes = field(repr=False)
    items: tuple[_Item, ...] = field(repr=False)


class _Ulimit(msgspec.Struct, frozen=True, rename="pascal"):
    name: str
    soft: int
    hard: int


class _State(msgspec.Struct, frozen=True, rename="pascal"):
    status: str


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    labels: dict[str, str] | None = None


class _LogConfig(msgspec.Struct, frozen=True, rename="pascal"):
    type: str = ""
    path: str = ""


class _HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    ulimits: list[_Ulimit] | None = None
    log_config: _LogConfig = _LogConfig()


class _Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config
    host_config: _HostConfig = _HostConfig()


class _Subnet(msgspec.Struct, frozen=True):
    subnet: str
    gateway: str = ""


class _Network(msgspec.Struct, frozen=True):
    driver: str
    subnets: list[_Subnet] | None = None
    dns_enabled: bool = False
    internal: bool = False


def network_fault(raw: bytes, subnet_id: int) -> str | None:
    """Why an existing network cannot be the containers' network, None when it can."""
    decoded = _decode(raw, _Network)
    if not is_successful(decoded):
        return decoded.failure()
    found = decoded.unwrap()
    has = [(one.subnet, one.gateway) for one in found.subnets or ()]
    if has != [(subnet(subnet_id), gateway(subnet_id))]:
        spelled = ", ".join(f"{its} with gateway {address or 'none'}" for its, address in has) or "no subnet"
        return f"it exists with {spelled}; this server's is {subnet(subnet_id)} with gateway {gateway(subnet_id)}"
    if found.driver != "bridge" or found.internal:
        return f"it exists as {'internal ' if found.internal else ''}{found.driver} network, not as a bridge that leads out"
    return "it exists with Podman's own DNS switched on" if found.dns_enabled else None


def parse_listing(
    raw: bytes, wall_now_s: float, started_at: Mapping[ContainerId, float] = _NOTHING_TOLD
) -> Result[tuple[ActualContainer, ...], str]:
    """The containers of ours in the answer of `GET /containers/json?all=true`; the failure says what makes no sense in it.

    `started_at` are exact times of starts (seconds since the epoch) as far as events told them; the listing's are whole seconds.
    """
    return parse_listing_after(None, raw, wall_now_s, started_at).map(lambda listing: listing.containers)


def parse_listing_after(
    before: Listing | None, raw: bytes, wall_now_s: float, started_at: Mapping[ContainerId, float] = _NOTHING_TOLD
) -> Result[Listing, str]:
    """The same, where `before` is an earlier listing of this server: an answer that says nothing new is not taken apart again."""
    if before is not None and raw == before.raw:
        known = zip(before.items, before.containers, strict=True)
        return Success(
            replace(before, containers=tuple(_aged(item, one, wall_now_s, started_at) for item, one in known))
        )
    return _decode(raw, list[_Item]).map(lambda items: _listing(raw, items, wall_now_s, started_at))


def parse_names(raw: bytes) -> Result[tuple[str, ...], str]:
    """What the containers in the answer of `GET /containers/json` are called, whoever made them."""
    return _decode(raw, list[_Item]).map(
        lambda items: tuple(item.names[0] if item.names else item.id for item in items)
    )


def parse_inspection(raw: bytes) -> Result[Holder, str]:
    """The container in the answer of `GET /containers/<id>/json`."""
    return _decode(raw, _Inspected).map(_holder)


def parse_listed(raw: bytes, key: str, fault: str) -> Result[Holder | None, str]:
    """The container of that id or name in the answer of `GET /containers/json`, which Podman cannot look into; None when there is none."""
    return _decode(raw, list[_Item]).map(
        lambda items: next((_listed(item, fault) for item in items if key == item.id or key in item.names), None)
    )


def output_lines(raw: bytes) -> tuple[str, ...]:
    """The lines in the answer of `GET /containers/<id>/logs`: frames of stream (1 byte), zeros (3), length (4, big endian) and text."""
    pieces: list[bytes] = []
    at = 0
    while at + _FRAME_HEAD <= len(raw):
        length = int.from_bytes(raw[at + 4 : at + _FRAME_HEAD])
        pieces.append(raw[at + _FRAME_HEAD : at + _FRAME_HEAD + length])
        at += _FRAME_HEAD + length
    lines = b"".join(one if one.endswith(b"\n") else one + b"\n" for one in pieces).splitlines()
    return tuple(one_line(line.decode("utf-8", "replace")) for line in lines)


def repaired_limits(holder: Holder) -> tuple[Limit, ...]:
    """The limits that were meant for a container whose limits cannot be set, empty when they are in order.

    Podman 4.3's API takes the server's `default_ulimits` with soft and hard swapped, which no kernel accepts when they differ. Sent
    with the request, limits are taken as they are, and replace the defaults.
    """
    if all(one.soft <= one.hard or one.hard < 0 for one in holder.limits):
        return ()
    return tuple(
        Limit(one.name.removeprefix("RLIMIT_").lower(), min(one.soft, one.hard), max(one.soft, one.hard))
        for one in holder.limits
    )


def _decode(raw: bytes, kind: type[T]) -> Result[T, str]:
    try:
        return Success(msgspec.json.decode(raw, type=kind))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")


def _holder(found: _Inspected) -> Holder:
    labels = found.config.labels or {}
    return Holder(
        id=ContainerId(found.id),
        name=found.name,
        state=_STATES.get(found.state.status.lower(), _UNKNOWN),
        ours=is_ours(labels),
        deployment_id=deployment_of(labels),
        limits=tuple(Limit(one.name, one.soft, one.hard) for one in found.host_config.ulimits or ()),
        log_file=_log_file(found.host_config.log_config),
    )


def _listed(item: _Item, fault: str) -> Holder:
    labels = item.labels or {}
    return Holder(
        id=item.id,
        name=item.names[0] if item.names else item.id,
        state=_STATES.get(item.state.lower(), _UNKNOWN),
        ours=is_ours(labels),
        deployment_id=deployment_of(labels),
        limits=(),
        fault=fault,
    )


def _log_file(config: _LogConfig) -> str | None:
    """Only files in Podman's own form can be followed."""
    return config.path if config.type in ("k8s-file", "json-file") and config.path.startswith("/") else None


def _listing(raw: bytes, items: list[_Item], wall_now_s: float, started_at: Mapping[ContainerId, float]) -> Listing:
    ours = tuple(item for item in items if item.labels and is_ours(item.labels))
    return Listing(tuple(_container(item, wall_now_s, started_at) for item in ours), raw, ours)


def _aged(
    item: _Item, one: ActualContainer, wall_now_s: float, started_at: Mapping[ContainerId, float]
) -> ActualContainer:
    """A container of which nothing has changed but the time."""
    if one.running_for_s is None:
        return one
    return structs.replace(one, running_for_s=_running_for_s(item, wall_now_s, started_at))


def _container(item: _Item, wall_now_s: float, started_at: Mapping[ContainerId, float]) -> ActualContainer:
    labels = item.labels or {}
    state = _STATES.get(item.state.lower(), _UNKNOWN)
    runs = state == "running" and item.started_at > 0
    ended = state == "exited" and 0 < item.started_at <= item.exited_at
    return ActualContainer(
        id=item.id,
        name=item.names[0] if item.names else "",
        image=image.parse(item.image),
        image_text=item.image,
        state=state,
        created=int(item.created.timestamp()),
        health=_HEALTH.get(item.status.lower(), _NO_RESULT),
        deployment_id=deployment_of(labels),
        service_id=labels.get(SERVICE_LABEL, ""),
        service_name=labels.get(SERVICE_NAME_LABEL, ""),
        running_for_s=_running_for_s(item, wall_now_s, started_at) if runs else None,
        # Podman's times are cut to whole seconds: this is the least that can have passed.
        lived_s=max(0.0, float(item.exited_at - item.started_at - 1)) if ended else None,
        exit_code=item.exit_code,
        pid=item.pid,
    )


def _running_for_s(item: _Item, wall_now_s: float, started_at: Mapping[ContainerId, float]) -> float:
    """Since the latest time at which the present start can have been.

    That is the event's time when it is of the same start, else the end of the start's second.
    """
    told = started_at.get(item.id)
    latest = told if told is not None and 0 <= told - item.started_at < _EVENT_LAG_S else item.started_at + 1
    return wall_now_s - latest if wall_now_s > latest else 0.0
