"""What a person does to deployments from outside the files: stop, restart, abort a rollout."""

from dataclasses import replace

from shell.local_plane import work
from shell.local_plane.deploying import stopped, undeployed
from shell.local_plane.world import (
    LISTED,
    Answer,
    Deployment,
    DeploymentId,
    Moment,
    RolloutId,
    RolloutStatus,
    World,
    refused,
    with_rows,
    with_service,
)


def stop(world: World, deployment_id: str, moment: Moment) -> tuple[World, Answer]:
    """Stop one deployment. It stays a replica, so that no other one takes its place."""
    row = world.deployments.get(DeploymentId(deployment_id))
    if row is None or row.status not in LISTED:
        return world, _not_running(deployment_id, row)
    return stopped(world, row, moment), Answer(200, {"ok": True})


def restart(world: World, deployment_id: str, moment: Moment) -> tuple[World, Answer]:
    """Queue a restart of one deployment's container; its row does not change."""
    row = world.deployments.get(DeploymentId(deployment_id))
    if row is None or row.status not in LISTED or not row.container_id:
        return world, _not_running(deployment_id, row)
    payload = work.for_deployment(row.id, row.container_id)
    return work.queued(world, row.server_id, "restart", payload, moment), Answer(200, {"ok": True})


def abort(world: World, rollout_id: str, moment: Moment) -> tuple[World, Answer]:
    """Abort a rollout: the service's rows go, and so does *every* pending item of every server, as in the original.

    The original queues `force_cleanup` just before, so that it never reaches an agent; containers go since no row asks for them.
    """
    rollout = world.rollouts.get(RolloutId(rollout_id))
    if rollout is None:
        return world, refused(404, f"no rollout {rollout_id!r}")
    if rollout.status is not RolloutStatus.IN_PROGRESS:
        return world, refused(409, f"the rollout is {rollout.status} already")
    world = work.without_pending(undeployed(world, rollout.service_id))
    aborted = replace(rollout, status=RolloutStatus.FAILED, stage="aborted")
    service = world.services[rollout.service_id]
    world = with_service(world, replace(service, halted=True, tried=service.spec))
    return replace(world, rollouts=with_rows(world.rollouts, aborted)), Answer(200, {"ok": True})


def _not_running(deployment_id: str, row: Deployment | None) -> Answer:
    if row is None:
        return refused(404, f"no deployment {deployment_id!r}")
    return refused(409, f"the deployment is {row.status} and has {'a' if row.container_id else 'no'} container")
