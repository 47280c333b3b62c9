"""The rows as the lab's lists show them: names beside ids, no keys and no tokens."""

from collections.abc import Callable, Mapping
from typing import Any

from shell.local_plane import builds as build_rules
from shell.local_plane import expected, work
from shell.local_plane.servers import tunnel_address
from shell.local_plane.world import Server, World

Listing = list[Mapping[str, Any]]


def servers(world: World) -> Listing:
    """Every server, registered or not."""
    return [_server(server) for server in world.servers.values()]


def services(world: World) -> Listing:
    """Every service, those included that are on their way out."""
    return [
        {
            "id": service.id,
            "key": service.key,
            "name": service.spec.name,
            "image": service.image and expected.full_image(service.image),
            "replicas": service.spec.replicas,
            "revision": service.spec.revision,
            "halted": service.halted,
            "removed": service.removed,
        }
        for service in world.services.values()
    ]


def deployments(world: World) -> Listing:
    """Every deployment with its service's, server's and rollout's names and states."""
    found: Listing = []
    for row in world.deployments.values():
        rollout = world.rollouts.get(row.rollout_id)
        found.append(
            {
                "id": row.id,
                "serviceId": row.service_id,
                "service": world.services[row.service_id].key,
                "server": world.servers[row.server_id].name,
                "status": row.status,
                "healthStatus": row.health,
                "containerId": row.container_id,
                "failedStage": row.failed_stage,
                "ipAddress": row.address,
                "ports": expected.ports(row),
                "leaving": row.leaving,
                "moving": row.move.stage if row.move else None,
                "rolloutId": row.rollout_id,
                "rollout": rollout.status if rollout else None,
                "rolloutStage": rollout.stage if rollout else None,
            }
        )
    return found


def rollouts(world: World) -> Listing:
    """Every rollout that is remembered."""
    return [
        {"id": rollout.id, "serviceId": rollout.service_id, "status": rollout.status, "stage": rollout.stage}
        for rollout in world.rollouts.values()
    ]


def items(world: World) -> Listing:
    """Every work item that is remembered, as on the wire, with its server's name."""
    return [{**work.as_json(item), "server": world.servers[item.server_id].name} for item in world.items.values()]


def builds(world: World) -> Listing:
    """Every build."""
    return [build_rules.as_json(build) for build in world.builds.values()]


ALL: Mapping[str, Callable[[World], Listing]] = {
    "services": services,
    "deployments": deployments,
    "rollouts": rollouts,
    "work": items,
    "builds": builds,
}
"""The lists that change nothing, by the name of their endpoint."""


def _server(server: Server) -> Mapping[str, Any]:
    return {
        "id": server.id,
        "name": server.name,
        "status": server.status,
        "isProxy": server.is_proxy,
        "publicIp": server.public_ip,
        "subnetId": server.subnet_id,
        "wireguardIp": tunnel_address(server.subnet_id) if server.subnet_id else None,
        "heartbeatAt": work.iso(server.heartbeat_ms) if server.heartbeat_ms else None,
        "cpuCores": server.cpu_cores,
        "memoryMb": server.memory_mb,
        "diskGb": server.disk_gb,
    }
