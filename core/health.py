"""Which health checks are due, on servers where nobody else runs them; and which ones overrun, where Podman's timers run them.

Podman itself counts retries and the start period when a check is run; here is decided only when each is, and when one may have overrun.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from core.containers import ActualContainer, ContainerId, DeploymentId, HealthCheck
from core.state import ExpectedState

DEFAULT_INTERVAL_S: Final = 10.0  # the control plane's default
DEFAULT_TIMEOUT_S: Final = 5.0
_TIMER_S: Final = 3.0  # a timer's accuracy, the start of a command in a container, and the events' delay
_UNCHECKED: Final = frozenset({"none", ""})


def checks_of(expected: ExpectedState | None) -> dict[DeploymentId, HealthCheck]:
    """The health checks that are expected, by deployment."""
    if expected is None:
        return {}
    return {one.deployment_id: one.health_check for one in expected.containers if one.health_check is not None}


def checked(containers: Iterable[ActualContainer]) -> Iterator[ActualContainer]:
    """The running containers that have a check at all."""
    return (one for one in containers if one.health not in _UNCHECKED and one.state == "running")


def due(
    containers: Iterable[ActualContainer],
    checks: Mapping[DeploymentId, HealthCheck],
    last_run_at: Mapping[ContainerId, float],
    now: float,
) -> tuple[tuple[ContainerId, float], ...]:
    """The running containers whose check is due, each with the seconds that one run may take; by id."""
    found = []
    for one in checked(containers):
        interval_s, timeout_s = _times(one, checks)
        if now - last_run_at.get(one.id, float("-inf")) >= interval_s:
            found.append((one.id, timeout_s))
    return tuple(sorted(found))


def silent(
    containers: Iterable[ActualContainer],
    checks: Mapping[DeploymentId, HealthCheck],
    heard_at: Mapping[ContainerId, float],
    now: float,
) -> tuple[tuple[ContainerId, float], ...]:
    """The running containers of whose check nothing has been heard for longer than its turn may take, each with the limit of one run.

    Podman's timers wait for an interval, run the check, and say that it has ended.
    """
    found = []
    for one in checked(containers):
        interval_s, timeout_s = _times(one, checks)
        if now - heard_at.get(one.id, now) >= interval_s + timeout_s + _TIMER_S:
            found.append((one.id, timeout_s))
    return tuple(sorted(found))


def _times(one: ActualContainer, checks: Mapping[DeploymentId, HealthCheck]) -> tuple[float, float]:
    """Interval and time-out of a container's check, in seconds."""
    check = checks.get(one.deployment_id) if one.deployment_id is not None else None
    if check is None:
        return DEFAULT_INTERVAL_S, DEFAULT_TIMEOUT_S
    return float(check.interval_s), float(check.timeout_s)
