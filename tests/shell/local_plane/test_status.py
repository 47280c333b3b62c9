"""The table of deployment statuses (§5), row by row."""

from dataclasses import replace

import pytest

from shell.local_plane.status import Reported, after_report
from shell.local_plane.world import (
    Deployment,
    DeploymentId,
    DeploymentStatus,
    HealthCheck,
    Rollout,
    RolloutId,
    RolloutStatus,
    ServerId,
    Service,
    ServiceId,
    Spec,
    World,
)

HERE, ROW = ServerId("here"), DeploymentId("row")
S = DeploymentStatus
# A second deployment keeps the rollout open, so that `healthy` is seen before it becomes `running`.
OTHER = Deployment(DeploymentId("other"), ServiceId("s"), ServerId("there"), RolloutId("r"), "10.200.2.2")


def world(status: DeploymentStatus, container: str | None = "c", checked: bool = True) -> World:
    """One deployment here, one elsewhere."""
    service = Service(ServiceId("s"), "s", Spec("s", "x", health_check=HealthCheck("true") if checked else None))
    row = replace(OTHER, id=ROW, server_id=HERE, status=status, container_id=container, health="before")
    return World(
        "00" * 32,
        services={service.id: service},
        deployments={row.id: row, OTHER.id: OTHER},
        rollouts={RolloutId("r"): Rollout(RolloutId("r"), service.id)},
    )


def after(before: World, health: str | None) -> Deployment:
    """The deployment after it was reported with this health, or was not in the report (None)."""
    entries = () if health is None else (Reported(ROW, "new", health),)
    return after_report(before, HERE, entries).deployments[ROW]


@pytest.mark.parametrize("status", list(S))
def test_not_in_the_report(status: DeploymentStatus) -> None:
    """What runs becomes unknown, what stops has stopped, the rest does not change."""
    found = after(world(status), None)
    if status in (S.STARTING, S.HEALTHY, S.RUNNING):
        assert (found.status, found.health, found.container_id) == (S.UNKNOWN, None, "c")
    elif status is S.STOPPING:
        assert (found.status, found.health, found.container_id) == (S.STOPPED, None, None)
    else:
        assert found == world(status).deployments[ROW]


@pytest.mark.parametrize("status", list(S))
def test_not_in_the_report_and_never_there(status: DeploymentStatus) -> None:
    """Without a container id there is nothing to miss."""
    before = world(status, container=None)
    assert after(before, None) == before.deployments[ROW]


@pytest.mark.parametrize("health", ["none", "starting", "healthy", "unhealthy", ""])
@pytest.mark.parametrize("status", list(S))
@pytest.mark.parametrize("checked", [True, False])
def test_in_the_report(status: DeploymentStatus, health: str, checked: bool) -> None:
    """The protocol's table, the other way round written down."""
    table = {
        (S.STARTING, "healthy"): S.HEALTHY,
        (S.STARTING, "none"): S.HEALTHY,
        (S.STARTING, "unhealthy"): S.ROLLED_BACK,
        (S.UNKNOWN, "healthy"): S.RUNNING,
        (S.UNKNOWN, "none"): S.RUNNING,
        (S.UNKNOWN, "starting"): S.STARTING,
        (S.UNKNOWN, "unhealthy"): S.STARTING,
    }
    first = status in (S.PENDING, S.PULLING)
    expected = (S.STARTING if checked else S.HEALTHY) if first else table.get((status, health), status)
    found = after(world(status, checked=checked), health)
    assert found.status is expected
    assert found.container_id == "new"
    assert found.health == ("starting" if first and checked else health)


def test_a_rollout_completes_when_all_are_healthy() -> None:
    """`healthy` becomes `running` for all of them at once."""
    before = after_report(world(S.STARTING), HERE, (Reported(ROW, "c", "healthy"),))
    assert before.deployments[ROW].status is S.HEALTHY
    done = after_report(before, OTHER.server_id, (Reported(OTHER.id, "d", "none"),))
    done = after_report(done, OTHER.server_id, (Reported(OTHER.id, "d", "healthy"),))
    assert {row.status for row in done.deployments.values()} == {S.RUNNING}
    assert done.rollouts[RolloutId("r")].status is RolloutStatus.COMPLETED


def test_one_that_fails_rolls_all_back() -> None:
    """Those that run already are left alone."""
    failed = after_report(world(S.STARTING), HERE, (Reported(ROW, "c", "unhealthy"),))
    assert {row.status for row in failed.deployments.values()} == {S.ROLLED_BACK}
    assert failed.deployments[ROW].failed_stage == "health_check"
    assert failed.rollouts[RolloutId("r")].status is RolloutStatus.ROLLED_BACK


def test_an_unknown_deployment_is_ignored() -> None:
    """Whatever its container."""
    before = world(S.PENDING)
    assert after_report(before, HERE, (Reported("nobody", "c", "none"),)).deployments == before.deployments
