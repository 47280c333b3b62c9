"""Healthy values and documents for tests: each test spoils one thing.

The documents are JSON objects as they are on the wire. `an_expected_document()` and `an_actual_document()` agree with each other.
"""

import base64
import json
from typing import Any, TypeAlias

from msgspec.structs import replace

from core import image
from core.containers import ActualContainer, ContainerId, DeploymentId, ExpectedContainer, Port, ServiceId
from core.image import Image
from core.state import ActualState, ExpectedState, parse_actual, parse_expected

Entry: TypeAlias = dict[str, Any]
Document: TypeAlias = dict[str, Any]

NGINX = "docker.io/library/nginx:1.27"
DEPLOYMENT = "9f4c21aa-0000-4000-8000-000000000001"
SERVICE = "5b1d0000-0000-4000-8000-000000000001"
NAME = f"{SERVICE}-9f4c21aa"
CONTAINER = "0f3a" * 16


def an_image(text: str = NGINX) -> Image:
    """A parsed reference; the text must be a good one."""
    parsed = image.parse(text)
    assert parsed is not None, text
    return parsed


def an_expected_container(**changes: Any) -> ExpectedContainer:
    """A plain deployment: no health check, no volume, no env."""
    healthy = ExpectedContainer(
        deployment_id=DeploymentId(DEPLOYMENT),
        service_id=ServiceId(SERVICE),
        service_name="Web API",
        name=NAME,
        image=an_image(),
        address="10.200.3.2",
        ports=(Port(80, 30000),),
        env=(),
        health_check=None,
        volumes=(),
    )
    return replace(healthy, **changes)


def an_actual_container(**changes: Any) -> ActualContainer:
    """The container that `an_expected_container()` asks for, up and running."""
    healthy = ActualContainer(
        id=ContainerId(CONTAINER),
        name=NAME,
        image=an_image(),
        image_text=NGINX,
        state="running",
        created=1_767_500_000,
        health="none",
        deployment_id=DeploymentId(DEPLOYMENT),
        service_id=SERVICE,
        service_name="Web API",
    )
    return replace(healthy, **changes)


def a_key(number: int = 1) -> str:
    """A public key: 32 bytes in base64."""
    return base64.b64encode(number.to_bytes(32, "big")).decode("ascii")


def a_container_entry(**changes: Any) -> Entry:
    """One entry of the expected state's `containers`."""
    return {
        "deploymentId": DEPLOYMENT,
        "serviceId": SERVICE,
        "serviceName": "Web API",
        "name": NAME,
        "image": NGINX,
        "ipAddress": "10.200.3.2",
        "ports": [{"containerPort": 80, "hostPort": 30000}],
        "env": {"DB_URL": "c2VjcmV0"},
        "healthCheck": None,
        "volumes": [],
    } | changes


def a_health_check_entry(**changes: Any) -> Entry:
    """A container's `healthCheck`."""
    return {"cmd": "curl -f localhost", "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 30} | changes


def a_volume_entry(**changes: Any) -> Entry:
    """One of a container's `volumes`."""
    path = f"/var/lib/techulus-agent/volumes/{SERVICE}/data"
    return {"name": "data", "hostPath": path, "containerPath": "/data"} | changes


def a_record_entry(**changes: Any) -> Entry:
    """One entry of `dns.records`."""
    return {"name": "web-api.internal", "ips": ["10.200.3.2", "10.200.5.9"]} | changes


def a_route_entry(**changes: Any) -> Entry:
    """One entry of `caddy.routes`."""
    upstreams = ["10.200.3.2:80", "10.200.5.9:80"]
    return {
        "id": "app.example.org",
        "domain": "app.example.org",
        "upstreams": upstreams,
        "serviceId": SERVICE,
    } | changes


def a_peer_entry(**changes: Any) -> Entry:
    """One entry of `wireguard.peers`."""
    return {
        "publicKey": a_key(),
        "allowedIps": "10.100.1.0/24,10.200.1.0/24",
        "endpoint": "198.51.100.4:51820",
    } | changes


def an_actual_entry(**changes: Any) -> Entry:
    """One container of the dry run's actual state: the one that `a_container_entry()` asks for."""
    return {
        "id": CONTAINER,
        "name": NAME,
        "image": NGINX,
        "state": "running",
        "created": 1_767_500_000,
        "health": "none",
        "labels": labels(),
    } | changes


def labels(deployment_id: str | None = DEPLOYMENT, service_id: str = SERVICE) -> dict[str, str]:
    """The labels of a container of ours; without a deployment label for None."""
    named = {} if deployment_id is None else {"techulus.deployment.id": deployment_id}
    return {"techulus.service.id": service_id, "techulus.service.name": "Web API", **named}


def an_expected_document(
    containers: list[Entry] | None = None,
    records: list[Entry] | None = None,
    routes: list[Entry] | None = None,
    peers: list[Entry] | None = None,
) -> Document:
    """An expected state with one of each, or with the given entries."""
    return {
        "containers": [a_container_entry()] if containers is None else containers,
        "dns": {"records": [a_record_entry()] if records is None else records},
        "caddy": {"routes": [a_route_entry()] if routes is None else routes},
        "wireguard": {"peers": [a_peer_entry()] if peers is None else peers},
    }


def an_actual_document(
    containers: list[Entry] | None = None,
    records: list[Entry] | None = None,
    routes: list[Entry] | None = None,
    peers: list[Entry] | None = None,
) -> Document:
    """An actual state with one of each, or with the given entries."""
    return an_expected_document([an_actual_entry()] if containers is None else containers, records, routes, peers)


def expected_of(document: Document, subnet_id: int | None = None) -> ExpectedState:
    """The parsed expected state; the document must be of the right shape."""
    return parse_expected(json.dumps(document).encode(), subnet_id).unwrap()


def actual_of(document: Document) -> ActualState:
    """The parsed actual state; the document must be of the right shape."""
    return parse_actual(json.dumps(document).encode()).unwrap()


def nothing_expected() -> Document:
    """An expected state that wants nothing."""
    return an_expected_document([], [], [], [])


def nothing_there() -> Document:
    """An actual state of an empty server."""
    return an_actual_document([], [], [], [])
