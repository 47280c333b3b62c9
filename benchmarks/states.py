"""Seeded states of any size: an expected state as the control plane sends it, and what Podman lists on a server that runs all of it.

So many containers, half as many DNS names of two addresses, a tenth as many routes of two upstreams, 254 peers: the shape of a large
installation on one server, larger than any has been.
"""

import base64
import json
import random
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from core.containers import ActualContainer
from core.state import ActualState, ExpectedState

PEERS: Final = 254
NOW_S: Final = 1_767_540_000
_COMPACT: Final = (",", ":")  # as both write it


@dataclass(frozen=True, slots=True)
class Texts:
    """What the agent is given: an expected state, a following one, what Podman lists while all of the first runs, and a little later."""

    document: bytes
    following: bytes
    listing: bytes
    later: bytes


def texts(containers: int) -> Texts:
    """All of one size. In the following document the last container has another image; later, a container's health is another."""
    first = document(containers)
    listed = listing(first)
    later = listed.replace(b'"healthy"', b'"starting"', 1)
    assert later != listed
    return Texts(first, with_last_image(first), listed, later)


def document(containers: int, seed: int = 1) -> bytes:
    """An expected state."""
    source = random.Random(seed)
    address = [f"10.200.{i % 250}.{2 + i // 250 % 250}" for i in range(containers + 1)]
    records = [{"name": f"s{i}.internal", "ips": [address[i], address[i + 1]]} for i in range(containers // 2)]
    return json.dumps(
        {
            "containers": [_container(i, address[i], source) for i in range(containers)],
            "dns": {"records": records},
            "caddy": {"routes": [_route(i, address) for i in range(containers // 10)]},
            "wireguard": {"peers": [_peer(i, source) for i in range(PEERS)]},
        },
        separators=_COMPACT,
    ).encode()


def with_last_image(raw: bytes, image: str = "registry.example.com/another:1") -> bytes:
    """The same document, in which the last container has another image."""
    changed = json.loads(raw)
    changed["containers"][-1]["image"] = image
    return json.dumps(changed, separators=_COMPACT).encode()


def listing(raw: bytes, seed: int = 2) -> bytes:
    """What Podman answers on a server that runs all of a document's containers: the oldest first, five were made in a second."""
    source = random.Random(seed)
    listed = [_listed(number, one, source) for number, one in enumerate(json.loads(raw)["containers"])]
    return json.dumps(listed, separators=_COMPACT).encode()


def as_served(expected: ExpectedState, there: tuple[ActualContainer, ...]) -> ActualState:
    """A server with these containers that serves equal records, routes and peers, but not the very same values."""
    return ActualState(
        there,
        tuple(map(copy, expected.dns)),
        tuple(map(copy, expected.caddy)),
        tuple(replace(peer) for peer in expected.wireguard),
    )


def _listed(number: int, one: dict[str, Any], source: random.Random) -> dict[str, object]:
    made = datetime.fromtimestamp(NOW_S - 1_000_000 + number // 5, UTC)
    return {
        "Id": f"{source.getrandbits(256):064x}",
        "Names": [one["name"]],
        "Image": one["image"],
        "ImageID": f"{number % 50:064x}",
        "Command": ["sleep", "infinity"],
        "Created": f"{made:%Y-%m-%dT%H:%M:%S}.{number % 5}34102928Z",
        "StartedAt": NOW_S - 1000,
        "ExitedAt": -62_135_596_800,
        "Exited": False,
        "ExitCode": 0,
        "Pid": 100 + number,
        "State": "running",
        "Status": "healthy" if one["healthCheck"] else "",
        "Networks": ["techulus"],
        "Mounts": [],
        "Namespaces": {},
        "Labels": {
            "techulus.deployment.id": one["deploymentId"],
            "techulus.service.id": one["serviceId"],
            "techulus.service.name": one["serviceName"],
        },
    }


def _container(i: int, address: str, source: random.Random) -> dict[str, object]:
    check = {"cmd": "curl -f localhost", "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 30}
    return {
        "deploymentId": f"{source.getrandbits(128):032x}",
        "serviceId": f"service-{i // 2}",
        "serviceName": f"Service {i // 2}",
        "name": f"service-{i // 2}-{i:08x}",
        "image": f"registry.example.com:5000/team/app{i % 50}:1.{i % 7}",
        "ipAddress": address,
        "ports": [{"containerPort": 80, "hostPort": 30_000 + i % 2_768}],
        "env": {"FIRST": "x" * 60, "SECOND": "y" * 60},
        "healthCheck": check if i % 2 else None,
        "volumes": [],
    }


def _route(i: int, address: list[str]) -> dict[str, object]:
    domain = f"app{i}.example.com"
    return {
        "id": domain,
        "domain": domain,
        "upstreams": [f"{address[i]}:80", f"{address[i + 1]}:80"],
        "serviceId": f"service-{i}",
    }


def _peer(i: int, source: random.Random) -> dict[str, object]:
    return {
        "publicKey": base64.b64encode(source.randbytes(32)).decode(),
        "allowedIps": f"10.100.{i}.0/24,10.200.{i}.0/24",
        "endpoint": f"203.0.113.{i}:51820",
    }
