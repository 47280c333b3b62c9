"""The status report: what the control plane is told about our containers.

Presence in the list is what the control plane acts on, whatever `status` says: a deployment without a health check counts as healthy as
soon as it is listed. So a container is listed only when it has really been up (the same start, two seconds later), and then always; one
with a health check is listed from the beginning, as `starting`, until its check has spoken. Nothing without a deployment id is listed.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import msgspec

from core.containers import ActualContainer, ContainerId, DeploymentId
from core.retry import Retries, attempts

UP_AFTER_S: Final = 2.0  # a container that dies within a second or so of its start does not count as deployed
_UNHEALTHY_AFTER_ATTEMPTS: Final = 3

# Every state that Podman knows (and one that it does not say), and the word for it while nothing is wrong.
_WORDS: Final[Mapping[str, str]] = {
    "running": "running",
    "created": "stopped",
    "configured": "stopped",
    "initialized": "stopped",
    "paused": "stopped",
    "stopping": "stopped",
    "stopped": "stopped",
    "exited": "stopped",
    "removing": "stopped",
    "dead": "failed",
    "damaged": "failed",
    "process_gone": "failed",
    "stop_overdue": "stopped",
    "unknown": "failed",
}
_AGE: Final = attrgetter("created", "id")  # nearly the order in which Podman lists them: to sort costs little
_HEALTH: Final = frozenset({"starting", "healthy", "unhealthy"})
_ONLY_AFTER_RUNNING: Final = frozenset({"paused", "stopping"})


class Entry(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={"deployment_id": "deploymentId", "container_id": "containerId", "health": "healthStatus"},
):
    """One container in the report, encoded as it is."""

    deployment_id: DeploymentId
    container_id: ContainerId
    status: str
    health: str


class Resources(msgspec.Struct, frozen=True, rename="camel"):
    """The server's size, in whole numbers as the control plane stores them."""

    cpu_cores: int
    memory_mb: int
    disk_gb: int


class _Report(msgspec.Struct, frozen=True, rename="camel"):
    containers: tuple[Entry, ...]
    resources: Resources | msgspec.UnsetType
    public_ip: str | msgspec.UnsetType


def now_up(containers: tuple[ActualContainer, ...], ever_up: frozenset[ContainerId]) -> frozenset[ContainerId]:
    """The ids of those containers that are known to have been up at least once; ids that are gone are forgotten."""
    return frozenset(one.id for one in containers if _has_been_up(one) or one.id in ever_up)


def next_up_in_s(containers: tuple[ActualContainer, ...]) -> float | None:
    """Seconds until the next container counts as up; None when none is on its way."""
    waits = [
        UP_AFTER_S - one.running_for_s
        for one in containers
        if one.state == "running" and one.running_for_s is not None and one.running_for_s < UP_AFTER_S
    ]
    return min(waits, default=None)


def entries(
    containers: tuple[ActualContainer, ...], ever_up: frozenset[ContainerId], retries: Retries
) -> tuple[Entry, ...]:
    """One entry for each deployment that has a container worth reporting; the same for every order of the containers."""
    tried = attempts(retries)
    found: list[Entry] = []
    one_of_each = len({one.deployment_id for one in containers}) == len(containers)  # as a rule: nothing to choose
    for one in sorted(containers, key=_AGE) if one_of_each else _best_first(containers):
        key = one.deployment_id
        if key is not None:
            entry = _entry(key, one, one.id in ever_up, tried.get(key, 0) if tried else 0)
            if entry is not None:
                found.append(entry)
    return tuple(found) if one_of_each else _firsts(found)


def encode(found: tuple[Entry, ...], resources: Resources | None, public_ip: str | None) -> bytes:
    """The bytes of a report; `containers` is always there."""
    return msgspec.json.encode(_Report(found, resources or msgspec.UNSET, public_ip or msgspec.UNSET))


def _best_first(containers: tuple[ActualContainer, ...]) -> list[ActualContainer]:
    """Of several containers of one deployment the newest running one first."""
    return sorted(containers, key=lambda one: (one.state != "running", -one.created, one.id))


def _firsts(found: list[Entry]) -> tuple[Entry, ...]:
    return tuple({one.deployment_id: one for one in reversed(found)}.values())[::-1]


def _has_been_up(one: ActualContainer) -> bool:
    if one.state == "running":
        return one.running_for_s is None or one.running_for_s >= UP_AFTER_S
    if one.state in _ONLY_AFTER_RUNNING:
        return True
    return one.lived_s is not None and one.lived_s >= UP_AFTER_S


def _entry(key: DeploymentId, one: ActualContainer, been_up: bool, attempts: int) -> Entry | None:
    checked = one.health in _HEALTH
    if not been_up and not checked:
        return None
    if one.state == "running":
        return Entry(key, one.id, "running", (one.health if been_up else "starting") if checked else "none")
    word = _WORDS.get(one.state, "failed")
    if word == "stopped" and (attempts > 0 or one.exit_code != 0):
        word = "failed"
    # "none" would read as healthy to the control plane, and so would the last health of a container that has stopped.
    health = "unhealthy" if checked and attempts >= _UNHEALTHY_AFTER_ATTEMPTS else "starting"
    return Entry(key, one.id, word, health)
