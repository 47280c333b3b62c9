"""What Podman answers, as the core's values: the listing of containers, one container, the network.

Decides what Podman's words mean here. A listing with one item of the wrong shape is refused whole, since an incomplete listing must never
pass for a complete one. Field names are those of the libpod API, 4.3 to 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import structs
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from core.containers import (
    DEPLOYMENT_LABEL,
    SERVICE_LABEL,
    SERVICE_NAME_LABEL,
    ActualContainer,
    ContainerId,
    deployment_of,
    is_ours,
    made_from,
)
from core.ends import equal_ends
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
LONG_S: Final = (
    600.0  # whoever asks how long a container has run wants to know seconds: a longer time need not be kept up to date
)
_CLOCK_JITTER_S: Final = 2.0
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
    image_id: str = msgspec.field(name="ImageID", default="")


@dataclass(frozen=True, slots=True)
class Listing:
    """The containers of ours in one answer, and what the next answer's parse can take over from it.

    `found` is what each entry of the answer came to, None for one that is not ours; `started_at` the answer's own times of their starts;
    `texts` each entry as it was written, once they have been told apart.
    """

    containers: tuple[ActualContainer, ...]
    raw: bytes = field(repr=False)
    found: tuple[ActualContainer | None, ...] = field(repr=False)
    started_at: tuple[int, ...] = field(repr=False)
    texts: list[msgspec.Raw] | None = field(default=None, repr=False, compare=False)


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
    """The same, where `before` is an earlier listing of this server: entries that say nothing new are not taken apart again.

    Those are the ones before the first change and after the last: entries come in an order of their own, and few change between looks.
    """
    if before is None:
        return _decode(raw, list[_Item]).map(
            lambda items: _listing(raw, _NONE_KNOWN, items, _NONE_KNOWN, wall_now_s, started_at)
        )
    if raw == before.raw:
        everything = _Known(before.found, before.started_at)
        return Success(_listing(before.raw, everything, [], _NONE_KNOWN, wall_now_s, started_at, before.texts))
    return _decode(raw, list[msgspec.Raw]).bind(lambda texts: _changed(before, raw, texts, wall_now_s, started_at))


def _changed(
    before: Listing, raw: bytes, texts: list[msgspec.Raw], wall_now_s: float, started_at: Mapping[ContainerId, float]
) -> Result[Listing, str]:
    old = before.texts or msgspec.json.decode(before.raw, type=list[msgspec.Raw])
    head, tail = equal_ends(old, texts)
    news = b",".join(texts[head : len(texts) - tail])
    first = _Known(before.found[:head], before.started_at[:head])
    last = _Known(before.found[len(old) - tail :], before.started_at[len(old) - tail :])
    return _decode(b"[" + news + b"]", list[_Item]).map(
        lambda items: _listing(raw, first, items, last, wall_now_s, started_at, texts)
    )


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


def _listing(
    raw: bytes,
    first: "_Known",
    items: list[_Item],
    last: "_Known",
    wall_now_s: float,
    started_at: Mapping[ContainerId, float],
    texts: list[msgspec.Raw] | None = None,
) -> Listing:
    """Of what is known already at both ends, and of new entries between."""
    fresh = [_container(item, wall_now_s, started_at) if _is_ours(item) else None for item in items]
    found = (*first.aged(wall_now_s, started_at), *fresh, *last.aged(wall_now_s, started_at))
    times = (*first.started_at, *[item.started_at for item in items], *last.started_at)
    return Listing(tuple([one for one in found if one is not None]), raw, found, times, texts)


@dataclass(frozen=True, slots=True)
class _Known:
    """Neighbouring entries of an earlier answer."""

    found: tuple[ActualContainer | None, ...]
    started_at: tuple[int, ...]

    def aged(self, wall_now_s: float, started_at: Mapping[ContainerId, float]) -> list[ActualContainer | None]:
        """The same containers now."""
        long_ago = wall_now_s - LONG_S - _EVENT_LAG_S - 1  # whatever an event says of such a start: it has lasted long
        return [
            one
            if one is None or (one.running_for_s == LONG_S and at < long_ago)
            else _aged(at, one, wall_now_s, started_at)
            for at, one in zip(self.started_at, self.found, strict=True)
        ]


_NONE_KNOWN: Final = _Known((), ())


def _is_ours(item: _Item) -> bool:
    # Nearly all of ours have this label; looking through all labels costs more than the rest of the line.
    return item.labels is not None and (DEPLOYMENT_LABEL in item.labels or is_ours(item.labels))


def _runs(state: str, started_at: int) -> bool:
    return state == "running" and started_at > 0


def _aged(
    listed_at: int, one: ActualContainer, wall_now_s: float, started_at: Mapping[ContainerId, float]
) -> ActualContainer:
    """A container of which nothing has changed but the time."""
    if not _runs(one.state, listed_at):
        return one
    return structs.replace(one, running_for_s=_running_for_s(one.id, listed_at, wall_now_s, started_at))


def _container(item: _Item, wall_now_s: float, started_at: Mapping[ContainerId, float]) -> ActualContainer:
    labels = item.labels or {}
    state = _STATES.get(item.state) or _STATES.get(item.state.lower(), _UNKNOWN)
    runs = _runs(state, item.started_at)
    ended = state == "exited" and 0 < item.started_at <= item.exited_at
    return ActualContainer(  # by position, in the order of its fields: there is one for each container at each look
        item.id,
        item.names[0] if item.names else "",
        made_from(labels, item.image),
        item.image,
        state,
        int(item.created.timestamp()),
        _HEALTH.get(item.status) or _HEALTH.get(item.status.lower(), _NO_RESULT),
        deployment_of(labels),
        labels.get(SERVICE_LABEL, ""),
        labels.get(SERVICE_NAME_LABEL, ""),
        _running_for_s(item.id, item.started_at, wall_now_s, started_at) if runs else None,
        # Podman's times are cut to whole seconds: this is the least that can have passed.
        max(0.0, float(item.exited_at - item.started_at - 1)) if ended else None,
        item.exit_code,
        item.pid,
        item.image_id,
    )


def _running_for_s(
    container_id: ContainerId, listed_at: int, wall_now_s: float, started_at: Mapping[ContainerId, float]
) -> float | None:
    """Since the latest time at which the present start can have been, at most LONG_S.

    That is the event's time when it is of the same start, else the end of the start's second. None when the start lies ahead: the clock has
    been set back since, and nobody knows how long it has lasted.
    """
    if listed_at > wall_now_s + _CLOCK_JITTER_S:
        return None
    told = started_at.get(container_id)
    latest = told if told is not None and 0 <= told - listed_at < _EVENT_LAG_S else listed_at + 1
    return min(LONG_S, wall_now_s - latest) if wall_now_s > latest else 0.0
