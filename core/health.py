"""Which health checks are due, on servers where nobody else runs them.

Podman itself counts retries and the start period when a check is run; here is decided only when each is.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from core.containers import ActualContainer, ContainerId, DeploymentId, HealthCheck
from core.state import ExpectedState

DEFAULT_INTERVAL_S: Final = 10.0  # the control plane's default
DEFAULT_TIMEOUT_S: Final = 5.0
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
        check = checks.get(one.deployment_id) if one.deployment_id is not None else None
        interval_s = DEFAULT_INTERVAL_S if check is None else float(check.interval_s)
        if now - last_run_at.get(one.id, float("-inf")) >= interval_s:
            found.append((one.id, DEFAULT_TIMEOUT_S if check is None else float(check.timeout_s)))
    return tuple(sorted(found))
