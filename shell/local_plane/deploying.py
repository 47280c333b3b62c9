"""Making and ending deployments: rows, addresses, host ports, rollouts, and the work items that go with them.

Does not decide how many there should be or where.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from shell.local_plane import expected, work
from shell.local_plane.servers import tunnel_address
from shell.local_plane.world import (
    LISTED,
    Deployment,
    DeploymentId,
    DeploymentStatus,
    HostPort,
    Moment,
    Rollout,
    RolloutId,
    RolloutStatus,
    Server,
    ServerId,
    Service,
    ServiceId,
    World,
    deployments_of,
    with_deployments,
    with_rows,
    with_service,
    without_rows,
)

_HOST_PORTS = range(30000, 32768)
_HOSTS = range(2, 255)
# Rollouts that ended are kept to be looked at, no more than this.
_KEPT_ROLLOUTS = 100


def deployed(world: World, service: Service, servers: Iterable[ServerId], moment: Moment) -> World:
    """The world with one more deployment of the service on each of these servers, all in one rollout.

    A server without a free address gets none; `placement.problems` names it.
    """
    rollout = Rollout(RolloutId(moment.new_id()), service.id)
    before = world
    for replica, server_id in enumerate(servers, start=1):
        world = _with_one(world, world.servers[server_id], service, rollout, replica, moment)
    if world is before:
        return world
    rollouts = with_rows(world.rollouts, rollout)
    return _pruned(replace(_pinned(world, service.id), rollouts=rollouts))


def undeployed(world: World, service_id: ServiceId) -> World:
    """The world without any row of the service, as a redeploy or an aborted rollout leaves it."""
    ended = [
        replace(rollout, status=RolloutStatus.FAILED, stage="replaced")
        for rollout in world.rollouts.values()
        if rollout.service_id == service_id and rollout.status is RolloutStatus.IN_PROGRESS
    ]
    return replace(
        world,
        deployments=without_rows(world.deployments, (row.id for row in deployments_of(world, service_id))),
        rollouts=with_rows(world.rollouts, *ended),
    )


def stopped(world: World, row: Deployment, moment: Moment) -> World:
    """The world after a user stopped a deployment: it leaves the expected state, and its container goes."""
    if not row.container_id:
        return with_deployments(world, replace(row, status=DeploymentStatus.STOPPED, move=None))
    world = with_deployments(world, replace(row, status=DeploymentStatus.STOPPING, move=None))
    return work.queued(world, row.server_id, "stop", work.for_deployment(row.id, row.container_id), moment)


def left(world: World, rows: Iterable[Deployment], moment: Moment) -> World:
    """The world in which these are no replicas any more: stopped where a container may run, gone at once elsewhere."""
    for row in rows:
        if row.container_id and row.status in LISTED:
            world = stopped(world, replace(row, leaving=True), moment)
        elif row.status is DeploymentStatus.STOPPING:
            world = with_deployments(world, replace(row, leaving=True))
        else:
            world = replace(world, deployments=without_rows(world.deployments, [row.id]))
    return world


def free_address(world: World, server: Server) -> str | None:
    """The lowest address of a server's containers that no row has. A row that has left and stopped has none."""
    taken = {row.address for row in _holding(world, server.id)}
    addresses = (f"10.200.{server.subnet_id}.{host}" for host in _HOSTS)
    return next((address for address in addresses if address not in taken), None)


def _with_one(world: World, server: Server, service: Service, rollout: Rollout, replica: int, moment: Moment) -> World:
    address = free_address(world, server)
    if address is None:
        return world
    taken = {port.host for row in _holding(world, server.id) for port in row.ports}
    free = (port for port in _HOST_PORTS if port not in taken)
    ports = tuple(HostPort(port.container, host) for port, host in zip(service.spec.ports, free, strict=False))
    row = Deployment(DeploymentId(moment.new_id()), service.id, server.id, rollout.id, address, ports)
    world = with_deployments(world, row)
    return work.queued(world, server.id, "deploy", _payload(server, service, row, replica), moment)


def _payload(server: Server, service: Service, row: Deployment, replica: int) -> Mapping[str, Any]:
    return {
        "deploymentId": row.id,
        "serviceId": service.id,
        "serviceName": service.spec.name,
        "image": expected.full_image(service.image or ""),
        "portMappings": expected.ports(row),
        "wireguardIp": tunnel_address(server.subnet_id or 0),
        "ipAddress": row.address,
        "name": f"{service.id}-{replica}",
        "healthCheck": expected.health_check(service.spec),
        "env": dict(service.spec.env),
        "volumeMounts": expected.volumes(service),
    }


def _holding(world: World, server_id: ServerId) -> list[Deployment]:
    return [
        row
        for row in world.deployments.values()
        if row.server_id == server_id and not (row.leaving and row.status is DeploymentStatus.STOPPED)
    ]


def _pinned(world: World, service_id: ServiceId) -> World:
    """Where a service's volumes are is settled by its first deployment."""
    service = world.services[service_id]
    if not service.spec.volumes or service.pinned is not None:
        return world
    here = next(row.server_id for row in deployments_of(world, service_id))
    return with_service(world, replace(service, pinned=here))


def _pruned(world: World) -> World:
    used = {row.rollout_id for row in world.deployments.values()}
    ended = [key for key in world.rollouts if key not in used]
    return replace(world, rollouts=without_rows(world.rollouts, ended[:-_KEPT_ROLLOUTS]))
