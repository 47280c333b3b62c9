"""What the running agent is doing, for `agent status`: one value, seen as JSON for scripts and as lines for a person.

Decides what a person at a terminal is told; knows nothing of sockets. Times are ISO 8601 in UTC; waits are seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from core import deployment_images, fetching, render, retry
from core.containers import ActualContainer
from core.deployment_images import Kept
from core.memory import Memory, due_at, next_poll_at
from core.pause import Pause
from core.phases import AwaitingImages, Changing, Closing, Fetching, Looking, Processing, State, Waiting
from core.render import Json
from core.retry import Attempt, RetryKey

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Exchange:
    """The last time that something was asked of or told to the control plane, and why it failed, if it did."""

    at_s: float
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """A build that goes on here, and its stage."""

    id: str
    status: str
    began_at_s: float


@dataclass(frozen=True, slots=True)
class FailingPart:
    """A part of the agent whose last turn ended with an unforeseen failure, how often that has been, and what it was about (or empty)."""

    part: str
    about: str
    since_s: float
    failures: int
    reason: str


@dataclass(frozen=True, slots=True)
class Agent:
    """Who runs: what does not change while it does."""

    version: str
    pid: int
    server_id: str
    node_type: str
    control_plane: str
    began_at_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that a status is made of, at one moment: `now` is the machine's clock, `wall_now_s` the calendar's."""

    agent: Agent
    state: State
    containers: tuple[ActualContainer, ...]
    now: float
    wall_now_s: float
    report: Exchange | None = None
    work: Exchange | None = None
    builds: tuple[Build, ...] = ()
    build_warnings: tuple[str, ...] = ()
    shipping: Mapping[str, Json] | None = None
    kept_images: Kept = field(default_factory=dict)
    failing: tuple[FailingPart, ...] = ()
    firewall: Mapping[str, Json] | None = None


def document(at: Moment) -> dict[str, Json]:
    """The object that `agent status --output json` prints while an agent runs."""
    memory = at.state.memory
    return {
        "version": VERSION,
        "running": True,
        "agent": {
            "version": at.agent.version,
            "pid": at.agent.pid,
            "serverId": at.agent.server_id,
            "nodeType": at.agent.node_type,
            "controlPlane": at.agent.control_plane,
            "since": _iso(at.agent.began_at_s),
        },
        "state": "PROCESSING" if isinstance(at.state, Processing) else "IDLE",
        "since": _iso(_since(at)),
        "doing": _doing(at.state),
        "paused": pause_json(memory.paused),
        "poll": _poll(at),
        "report": _exchange(at.report),
        "workQueue": _exchange(at.work),
        "drift": [render.action_json(one) for one in memory.drift],
        "hashes": {name: {"expected": one.expected, "actual": one.actual} for name, one in memory.hashes.items()},
        "retries": list(_retries(memory, at)),
        "pulling": [*sorted({str(one.image) for one in memory.images.on_the_way.values()})],
        "registryNotAsked": list(_unasked(at)),
        "rejected": [render.rejection_json(one) for one in memory.in_force.rejected] if memory.in_force else [],
        "containersSeen": memory.look_failure is None,
        "containers": [_container(one) for one in sorted(at.containers, key=lambda one: (one.name, one.id))],
        "build_warnings": [*at.build_warnings],
        "builds": [{"id": one.id, "status": one.status, "since": _iso(one.began_at_s)} for one in at.builds],
        "logs": None if at.shipping is None else dict(at.shipping),
        "failing": [_failing(one) for one in at.failing],
        "firewall": None if at.firewall is None else dict(at.firewall),
    }


def pause_json(pause: Pause | None) -> Json:
    """A pause as the status tells it; None when there is none."""
    if pause is None:
        return None
    until = None if pause.until_s is None else _iso(pause.until_s)
    return {"since": _iso(pause.since_s), "until": until, "reason": pause.reason}


def absent(data_dir: str, pause: Pause | None) -> dict[str, Json]:
    """The object that is printed when no agent runs."""
    return {"version": VERSION, "running": False, "dataDir": data_dir, "paused": pause_json(pause)}


def _poll(at: Moment) -> Json:
    memory = at.state.memory
    if memory.polls == 0:
        return None
    last_s = _wall(at, memory.last_poll_at)
    waits = isinstance(at.state.phase, Waiting)
    return {
        "at": _iso(last_s),
        "ok": memory.poll_failure is None,
        "failure": memory.poll_failure,
        "nextInS": max(0, round(next_poll_at(memory, at.now) - at.now)) if waits else None,
    }


def _exchange(last: Exchange | None) -> Json:
    return None if last is None else {"at": _iso(last.at_s), "ok": last.failure is None, "failure": last.failure}


def _doing(state: State) -> str:
    match state.phase:
        case Waiting():
            return "waiting for the next poll"
        case Fetching():
            return "asking for the expected state"
        case Looking():
            return "looking at this server"
        case Changing(action=action):
            kind, subject, reason = render.line(action)
            return f"{kind} {subject}: {reason}"
        case AwaitingImages():
            return "waiting for images"
        case Closing(ending=ending):
            return f"reporting: {ending.value}"
        case _:
            return "looking again after a change"


def _since(at: Moment) -> float:
    mono = at.state.began_at if isinstance(at.state, Processing) else at.state.memory.idle_since
    return max(_wall(at, mono), at.agent.began_at_s)


def _wall(at: Moment, mono: float) -> float:
    return at.wall_now_s - (at.now - mono)


def _retries(memory: Memory, at: Moment) -> Iterator[Json]:
    """What was tried and is not simply done: every failure, and what still differs although it was done.

    A change that was made only just may not have been looked at yet while others are made.
    """
    wanted = {retry.key(one): one for one in memory.drift}
    needed = frozenset(fetching.needed_by(memory.drift))
    unseen = 1 if isinstance(at.state, Processing) else 0
    for key, one in sorted(memory.retries.items()):
        if key in wanted and (one.failure is not None or one.count > unseen):
            _, subject, reason = render.line(wanted[key])
            yield _retry(at, key, one, subject or _subject(key), reason, due_at(memory, wanted[key]))
        elif key[0] == retry.FETCH_IMAGE and key[1] in needed:
            yield _retry(at, key, one, key[2], "", one.not_before)


def _retry(at: Moment, key: RetryKey, one: Attempt, subject: str, reason: str, due_at_: float) -> Json:
    times = "once" if one.count == 1 else f"{one.count} times"
    waits_for = _waits_for(at.state.memory, key)
    return {
        "kind": key[0],
        "subject": subject,
        "why": one.failure or f"done {times} without lasting success: {reason}",
        "attempts": one.count,
        "lastAt": _iso(_wall(at, one.last_at)),
        "nextInS": None if waits_for else max(0, round(due_at_ - at.now)),
        "waitsFor": waits_for,
    }


def _waits_for(memory: Memory, key: RetryKey) -> str | None:
    """What keeps the next attempt from being made when its time has come; None when nothing does."""
    if memory.paused is not None:
        return "the end of the pause"
    if key[1] in memory.images.on_the_way:  # the subject of what needs an image is its deployment
        return "its image"
    return None if memory.unfinished is None else "a change that has not ended"


def _subject(key: RetryKey) -> str:
    return key[1]


def _unasked(at: Moment) -> Iterator[Json]:
    """The expected deployments that began with what was here under their image's name."""
    expected = at.state.memory.in_force
    for one in expected.containers if expected is not None else ():
        kept = deployment_images.kept_for(at.kept_images, one.deployment_id, one.image)
        if kept is not None and kept.is_unasked:
            yield {"deploymentId": one.deployment_id, "name": one.name, "image": kept.reference}


def _container(one: ActualContainer) -> Json:
    return {
        "name": one.name,
        "id": one.id,
        "deploymentId": one.deployment_id,
        "image": one.image_text,
        "state": one.state,
        "health": one.health,
    }


def _failing(one: FailingPart) -> Json:
    return {
        "part": one.part,
        "about": one.about or None,
        "since": _iso(one.since_s),
        "failures": one.failures,
        "reason": one.reason,
    }


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
