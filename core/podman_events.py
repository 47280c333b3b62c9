"""What Podman says when something happens to a container, and whether that is news.

Decides which events are worth a report and which a plan. An event is a hint and never a state: what is reported comes from a listing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from core.containers import ActualContainer, ContainerId, is_ours

KINDS: Final = ("start", "died", "stop", "pause", "unpause", "remove", "health_status")
"""The events that can change what is reported."""

ENDS: Final = frozenset({"died", "stop", "remove"})
"""Those after which something is missing that may be expected."""

_CHECKED: Final = "health_status"
_SETTLED: Final = "healthy"
_LATEST_NS: Final = 2**63 - 1  # what Podman counts with; a longer number is no time, and fits no float


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container of ours at `at_s` (seconds since the epoch); `health` is what Podman says with a check.

    Podman 4.3 says with a check the health *before* it, later ones the health after it.
    """

    kind: str
    container_id: ContainerId
    at_s: float
    health: str = ""


class _Actor(msgspec.Struct, frozen=True, rename="pascal"):
    attributes: dict[str, str] | None = None
    id: str = msgspec.field(name="ID", default="")


class _Line(msgspec.Struct, frozen=True, rename="pascal"):
    action: str = ""
    actor: _Actor = _Actor()
    time_nano: Annotated[int, msgspec.Meta(ge=0, le=_LATEST_NS)] = msgspec.field(name="timeNano", default=0)
    health_status: str = ""


def parse(line: bytes) -> ContainerEvent | None:
    """One line of the event stream (`GET /events`); None when it is not about a container of ours or makes no sense."""
    try:
        said = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kind = said.action.split(":", 1)[0].strip()  # docker's form has the health behind a colon
    if kind not in KINDS or not said.actor.id or not is_ours(said.actor.attributes or {}):
        return None
    return ContainerEvent(kind, ContainerId(said.actor.id), said.time_nano / 1e9, said.health_status.lower())


def is_news(event: ContainerEvent, seen: Mapping[ContainerId, ActualContainer]) -> bool:
    """Whether an event says something that the last look did not.

    A check that finds a healthy container healthy is none: with many containers there are several of those each second.
    """
    if event.kind != _CHECKED:
        return True
    known = seen.get(event.container_id)
    return known is None or known.health != _SETTLED or event.health != _SETTLED


def asks_for_a_plan(event: ContainerEvent, looked_at_s: float) -> bool:
    """Whether a container has ended or is gone since the last look began (seconds since the epoch).

    What the agent itself stops or removes is followed by a look, so that it is older than that whenever it is heard of.
    """
    return event.kind in ENDS and event.at_s > looked_at_s
