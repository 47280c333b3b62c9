"""What Podman's API reads and writes, rendered and parsed: the request that creates a container, the network's, and a listing.

Facts about the API are those of libpod 4.3 to 5.x. A listing with one item that makes no sense is refused whole: an incomplete listing must
never be taken for a complete one.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import msgspec
from returns.result import Failure, Result, Success

from core import image
from core.containers import (
    DEPLOYMENT_LABEL,
    SERVICE_LABEL,
    SERVICE_NAME_LABEL,
    ActualContainer,
    ContainerId,
    ExpectedContainer,
    deployment_of,
    is_ours,
)
from core.image import Image

Json: TypeAlias = str | int | bool | list["Json"] | dict[str, "Json"] | None

CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
)
RESTARTS: Final = 5
PIDS: Final = 4096  # far above what services need; a fork bomb stays in its container
MTU: Final = 1420  # what fits into a WireGuard packet
_NS: Final = 1_000_000_000
_NO_HEALTH: Final = "none"


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""


class _AuthFile(msgspec.Struct, frozen=True):
    auths: dict[str, _Auth]


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What a container needs to know of this server."""

    network: str
    volumes_dir: str
    dns: tuple[str, ...]
    log_size_bytes: int


class _Item(msgspec.Struct, frozen=True, rename="pascal"):
    """One container in the answer of `GET /containers/json`.

    Start and exit in whole seconds since the epoch, negative when they never were; creation as RFC 3339 text.
    """

    id: str
    names: list[str]
    image: str
    state: str
    created: datetime
    labels: dict[str, str] | None = None
    started_at: int = 0
    exited_at: int = 0
    exit_code: int = 0
    status: str = ""


def create_request(container: ExpectedContainer, options: CreateOptions, env: Mapping[str, str]) -> dict[str, Json]:
    """The body of `POST /containers/create`; `env` is decrypted."""
    network: dict[str, Json] = {}
    if container.address is not None:
        network = {"static_ips": [container.address], "static_mac": mac_for(container.address)}
    request: dict[str, Json] = {
        "name": container.name,
        "image": reference(container.image),
        "labels": {
            DEPLOYMENT_LABEL: container.deployment_id,
            SERVICE_LABEL: container.service_id,
            SERVICE_NAME_LABEL: container.service_name,
        },
        "env": dict(env),
        "netns": {"nsmode": "bridge"},
        "Networks": {options.network: network},
        "restart_policy": "on-failure",
        "restart_tries": RESTARTS,
        "cap_drop": ["ALL"],
        "cap_add": list(CAPABILITIES),
        "resource_limits": {"pids": {"limit": PIDS}},
        "log_configuration": {"driver": "k8s-file", "size": options.log_size_bytes},
        "mounts": [
            {
                "type": "bind",
                "source": f"{options.volumes_dir}/{container.service_id}/{volume.name}",
                "destination": volume.container_path,
                "options": ["rbind", "rw"],
            }
            for volume in container.volumes
        ],
    }
    if options.dns:
        request |= {"dns_server": list(options.dns), "dns_search": ["internal"]}
    if container.address is None:  # reached by its host ports, since nothing knows its address
        request["portmappings"] = [
            {"container_port": port.container_port, "host_port": port.host_port, "protocol": "tcp"}
            for port in container.ports
        ]
    check = container.health_check
    if check is not None:
        request["healthconfig"] = {
            "Test": ["CMD-SHELL", check.command],
            "Interval": check.interval_s * _NS,
            "Timeout": check.timeout_s * _NS,
            "Retries": check.retries,
            "StartPeriod": check.start_period_s * _NS,
        }
    return request


def mac_for(address: str) -> str:
    """A locally administered MAC that follows from the address, so that a new container is known at once to its neighbours."""
    tail = hashlib.sha256(address.encode()).digest()[:5]
    return ":".join(f"{byte:02x}" for byte in (0x02, *tail))


def network_request(name: str, subnet_id: int) -> dict[str, Json]:
    """The body of `POST /networks/create`. Addresses without a wish come from the top of the subnet, where no static one is given out."""
    prefix = f"10.200.{subnet_id}"
    return {
        "name": name,
        "driver": "bridge",
        "dns_enabled": False,
        "labels": {"techulus.network": "containers"},
        "options": {"mtu": str(MTU)},
        "subnets": [
            {
                "subnet": f"{prefix}.0/24",
                "gateway": f"{prefix}.1",
                "lease_range": {"start_ip": f"{prefix}.240", "end_ip": f"{prefix}.254"},
            }
        ],
    }


def parse_listing(raw: bytes, wall_now_s: float) -> Result[tuple[ActualContainer, ...], str]:
    """The containers of ours in a listing; the failure says what makes no sense."""
    try:
        items = msgspec.json.decode(raw, type=list[_Item] | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"the listing makes no sense: {error}")
    return Success(tuple(_container(item, wall_now_s) for item in items or () if is_ours(item.labels or {})))


def reference(wanted: Image) -> str:
    """How Podman is asked for an image: by its digest when there is one, since it takes no tag beside it."""
    return f"{wanted.registry}/{wanted.repository}@{wanted.digest}" if wanted.digest else str(wanted)


def registry_auth(auth_file: bytes, wanted: Image) -> Result[str | None, str]:
    """The `X-Registry-Auth` header for an image from an `auth.json`, None when it names no such registry.

    The most specific entry counts (`host/namespace/repository` before `host`). A failure never shows what is in the file.
    """
    try:
        auths = msgspec.json.decode(auth_file, type=_AuthFile).auths
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Failure("it is not an auth.json")
    path = f"{wanted.registry}/{wanted.repository}"
    while path:
        if path in auths:
            return _header(auths[path].auth)
        path = path.rpartition("/")[0]
    return Success(None)


def _header(encoded: str) -> Result[str | None, str]:
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except ValueError:
        colon = ""
    if not colon:
        return Failure("its entry for the registry is not base64 of user:password")
    return Success(
        base64.urlsafe_b64encode(msgspec.json.encode({"username": user, "password": password})).decode("ascii")
    )


def _container(item: _Item, wall_now_s: float) -> ActualContainer:
    labels = item.labels or {}
    state = item.state.lower()
    running = state == "running" and item.started_at > 0
    lived = state != "running" and 0 < item.started_at <= item.exited_at
    return ActualContainer(
        id=ContainerId(item.id),
        name=item.names[0] if item.names else "",
        image=image.parse(item.image),
        image_text=item.image,
        state=state,
        created=int(item.created.timestamp()),
        health=item.status or _NO_HEALTH,
        deployment_id=deployment_of(labels),
        service_id=labels.get(SERVICE_LABEL, ""),
        service_name=labels.get(SERVICE_NAME_LABEL, ""),
        # The times have whole seconds: these are the least that can have passed.
        running_for_s=max(0.0, wall_now_s - item.started_at - 1) if running else None,
        lived_s=max(0.0, float(item.exited_at - item.started_at - 1)) if lived else None,
        exit_code=item.exit_code,
    )
