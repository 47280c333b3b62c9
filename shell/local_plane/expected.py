"""The expected state of one server and the public domains, read off the rows. Decides nothing about rows."""

import re
from collections.abc import Mapping
from typing import Any

from shell.local_plane.servers import peers_of
from shell.local_plane.world import (
    LISTED,
    SERVED,
    Answer,
    Deployment,
    DeploymentStatus,
    MoveStage,
    Server,
    Service,
    ServiceId,
    Spec,
    World,
    refused,
)

# Always under the default data directory, whatever the agent's own is.
_VOLUMES = "/var/lib/techulus-agent/volumes"


def expected_state(world: World, server: Server) -> Answer:
    """`GET /expected-state`."""
    served = _served(world)
    return Answer(
        200,
        {
            "containers": [
                container(world.services[row.service_id], row)
                for row in world.deployments.values()
                if row.server_id == server.id and row.status in LISTED
            ],
            "dns": {"records": _records(world, served)},
            "caddy": {"routes": _routes(world, served) if server.is_proxy else []},
            "wireguard": {"peers": peers_of(world, server.id)},
        },
    )


def container(service: Service, row: Deployment) -> Mapping[str, Any]:
    """One entry of `containers`: image, env, health check and volumes as the service has them now."""
    return {
        "deploymentId": row.id,
        "serviceId": service.id,
        "serviceName": service.spec.name,
        "name": f"{service.id}-{row.id[:8]}",
        "image": full_image(service.image or ""),
        "ipAddress": row.address,
        "ports": ports(row),
        "env": dict(service.spec.env),
        "healthCheck": health_check(service.spec),
        "volumes": volumes(service),
    }


def ports(row: Deployment) -> list[Mapping[str, int]]:
    """A deployment's ports as on the wire."""
    return [{"containerPort": port.container, "hostPort": port.host} for port in row.ports]


def health_check(spec: Spec) -> Mapping[str, Any] | None:
    """A health check as on the wire; one with an empty command is not sent."""
    check = spec.health_check
    if check is None or not check.cmd:
        return None
    return {
        "cmd": check.cmd,
        "interval": check.interval,
        "timeout": check.timeout,
        "retries": check.retries,
        "startPeriod": check.start_period,
    }


def volumes(service: Service) -> list[Mapping[str, str]]:
    """A service's volumes as on the wire."""
    return [
        {
            "name": volume.name,
            "hostPath": f"{_VOLUMES}/{service.id}/{volume.name}",
            "containerPath": volume.path,
        }
        for volume in service.spec.volumes
    ]


def full_image(image: str) -> str:
    """The reference as the original completes it, its mistakes with dots included: `localhost:5000/a` becomes Docker Hub's."""
    if "/" not in image:
        return f"docker.io/library/{image}"
    return image if "." in image else f"docker.io/{image}"


def caddy_check(world: World, domain: str) -> Answer:
    """`GET /caddy/check`: whether a certificate for this domain is wanted."""
    if not domain:
        return refused(400, "Missing domain")
    owners = {
        service.id
        for service in world.services.values()
        if not service.removed and any(port.domain == domain for port in service.spec.ports)
    }
    if not owners:
        return refused(404, "Domain not allowed")
    rows = world.deployments.values()
    if not any(row.service_id in owners and row.status is DeploymentStatus.RUNNING for row in rows):
        return refused(503, "Service not currently available")
    return Answer(200, {"allowed": True})


def _served(world: World) -> Mapping[ServiceId, list[str]]:
    """The addresses that answer for each service."""
    served: dict[ServiceId, list[str]] = {}
    for row in world.deployments.values():
        draining = row.move is not None and row.move.stage is MoveStage.DRAINING
        if row.status in SERVED and row.address and not draining:
            served.setdefault(row.service_id, []).append(row.address)
    return served


def _records(world: World, served: Mapping[ServiceId, list[str]]) -> list[Mapping[str, Any]]:
    return [{"name": _host_name(world.services[key].spec), "ips": addresses} for key, addresses in served.items()]


def _routes(world: World, served: Mapping[ServiceId, list[str]]) -> list[Mapping[str, Any]]:
    return [
        {
            "id": port.domain,
            "domain": port.domain,
            "upstreams": [f"{address}:{port.container}" for address in addresses],
            "serviceId": service_id,
        }
        for service_id, addresses in served.items()
        for port in world.services[service_id].spec.ports
        if port.domain
    ]


def _host_name(spec: Spec) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-")
    return f"{spec.hostname or slug}.internal"
