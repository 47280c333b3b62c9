"""What a status report changes: the protocol's table of deployment statuses, and how rollouts end. Knows nothing of files."""

from dataclasses import dataclass, replace

from shell.local_plane.world import (
    Deployment,
    DeploymentId,
    DeploymentStatus,
    Rollout,
    RolloutId,
    RolloutStatus,
    ServerId,
    World,
    with_deployments,
    with_rows,
)

_FIRST = frozenset({DeploymentStatus.PENDING, DeploymentStatus.PULLING})
_LOSABLE = frozenset({DeploymentStatus.STARTING, DeploymentStatus.HEALTHY, DeploymentStatus.RUNNING})
# A rollout neither waits for these nor rolls them back.
_DONE = frozenset({DeploymentStatus.RUNNING, DeploymentStatus.STOPPED})
_GOOD = frozenset({"healthy", "none"})
_BAD = "unhealthy"
_HEALTH_STAGE = "health_check"


@dataclass(frozen=True, slots=True)
class Reported:
    """One container of a report. Its own status is not here: the control plane never reads it."""

    deployment_id: str
    container_id: str
    health: str | None


def after_report(world: World, server_id: ServerId, reported: tuple[Reported, ...]) -> World:
    """The world after a server listed its containers."""
    world = _without_unlisted(world, server_id, frozenset(entry.deployment_id for entry in reported))
    for entry in reported:
        world = _after_entry(world, server_id, entry)
    return with_rollouts_checked(world)


def with_rollouts_checked(world: World) -> World:
    """The world in which every open rollout whose deployments are all healthy is completed."""
    for rollout in world.rollouts.values():
        if rollout.status is not RolloutStatus.IN_PROGRESS:
            continue
        rows = _rows_of(world, rollout.id)
        open_rows = [row for row in rows if row.status not in _DONE | {DeploymentStatus.ROLLED_BACK}]
        if rows and all(row.status is DeploymentStatus.HEALTHY for row in open_rows):
            world = with_deployments(world, *(replace(row, status=DeploymentStatus.RUNNING) for row in open_rows))
            world = _with_rollout(world, replace(rollout, status=RolloutStatus.COMPLETED, stage="completed"))
    return world


def _without_unlisted(world: World, server_id: ServerId, listed: frozenset[str]) -> World:
    missing = [
        row
        for row in world.deployments.values()
        if row.server_id == server_id and row.container_id and row.id not in listed
    ]
    lost = [replace(row, status=DeploymentStatus.UNKNOWN, health=None) for row in missing if row.status in _LOSABLE]
    stopped = [
        replace(row, status=DeploymentStatus.STOPPED, health=None, container_id=None)
        for row in missing
        if row.status is DeploymentStatus.STOPPING
    ]
    return with_deployments(world, *lost, *stopped) if lost or stopped else world


def _after_entry(world: World, server_id: ServerId, entry: Reported) -> World:
    row = world.deployments.get(DeploymentId(entry.deployment_id))
    if row is not None:
        return _with_outcome(world, _after_health(world, row, entry))
    if entry.deployment_id:
        return world
    found = _without_id(world, server_id, entry)
    if found is None:
        return world
    if found.status in _FIRST:  # an entry attached this way counts as the first report and as the next one
        found = _after_health(world, found, entry)
    return _with_outcome(world, _after_health(world, found, entry))


def _without_id(world: World, server_id: ServerId, entry: Reported) -> Deployment | None:
    """The original's guess for an entry without deployment id: the same container, else anything that waits on this server."""
    same = (row for row in world.deployments.values() if row.container_id == entry.container_id)
    waiting = (row for row in world.deployments.values() if row.server_id == server_id and row.status in _FIRST)
    return next(same, None) or next(waiting, None)


def _after_health(world: World, row: Deployment, entry: Reported) -> Deployment:
    checked = world.services[row.service_id].spec.health_check is not None
    status = _next_status(row.status, entry.health, checked)
    first_check = row.status in _FIRST and checked
    return replace(
        row,
        status=status,
        container_id=entry.container_id,
        health="starting" if first_check else entry.health,
        failed_stage=_HEALTH_STAGE if status is DeploymentStatus.FAILED else row.failed_stage,
    )


def _next_status(status: DeploymentStatus, health: str | None, checked: bool) -> DeploymentStatus:
    if status in _FIRST:
        return DeploymentStatus.STARTING if checked else DeploymentStatus.HEALTHY
    if status is DeploymentStatus.STARTING and health in _GOOD:
        return DeploymentStatus.HEALTHY
    if status is DeploymentStatus.STARTING and health == _BAD:
        return DeploymentStatus.FAILED
    if status is DeploymentStatus.UNKNOWN and health in _GOOD:
        return DeploymentStatus.RUNNING
    if status is DeploymentStatus.UNKNOWN and health in ("starting", _BAD):
        return DeploymentStatus.STARTING
    return status


def _with_outcome(world: World, row: Deployment) -> World:
    failed_now = row.status is DeploymentStatus.FAILED and world.deployments[row.id].status is not row.status
    world = with_deployments(world, row)
    return _rolled_back(world, row.rollout_id) if failed_now else world


def _rolled_back(world: World, rollout_id: RolloutId) -> World:
    rollout = world.rollouts.get(rollout_id)
    if rollout is None:
        return world
    rows = [row for row in _rows_of(world, rollout_id) if row.status not in _DONE]
    world = with_deployments(world, *(replace(row, status=DeploymentStatus.ROLLED_BACK) for row in rows))
    return _with_rollout(world, replace(rollout, status=RolloutStatus.ROLLED_BACK, stage=_HEALTH_STAGE))


def _rows_of(world: World, rollout_id: RolloutId) -> list[Deployment]:
    return [row for row in world.deployments.values() if row.rollout_id == rollout_id]


def _with_rollout(world: World, rollout: Rollout) -> World:
    return replace(world, rollouts=with_rows(world.rollouts, rollout))
