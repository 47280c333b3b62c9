"""What Podman's API is asked: the request that creates a container, and that of the containers' network.

Decides how a container of ours is confined. Field names are those of the libpod API, 4.3 to 5. Refuses to know how requests are sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from core.containers import (
    DEPLOYMENT_LABEL,
    IMAGE_LABEL,
    LABEL_PREFIX,
    SERVICE_LABEL,
    SERVICE_NAME_LABEL,
    ExpectedContainer,
    HealthCheck,
    Volume,
)
from core.image import Image

Json: TypeAlias = str | int | bool | list["Json"] | dict[str, "Json"] | None

# What images of services need to start as root, change owners, drop to a user, serve a low port and ping. Everything else is dropped.
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
PIDS: Final = 4096  # far above what services need; a fork bomb stays in its container
MTU: Final = 1420  # the largest packet that fits into the tunnel between servers
NETWORK_LABEL: Final = LABEL_PREFIX + "network"
LOOSE_ADDRESS: Final = (
    "192.0.2.1"  # in no network of anybody's (RFC 5737), so that Podman refuses to set up a network with it
)
_NS: Final = 1_000_000_000
HOSTS: Final = "/etc/hosts"
HOST_NAME_LENGTH: Final = 12  # of a container's id: Podman's choice of its host name
_REMOVAL: Final = ".removal"


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit (`nofile`, `nproc`) as it is to be set."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What a container is given by this server: its network, where volumes and hosts files lie, resolvers (none: Podman's), log size.

    `limits` is empty as long as Podman's defaults work.
    """

    network: str
    volumes_dir: str
    hosts_dir: str
    dns: tuple[str, ...]
    log_size_bytes: int
    limits: tuple[Limit, ...] = ()


def create_request(
    container: ExpectedContainer, options: CreateOptions, env: Mapping[str, str], image_id: str
) -> dict[str, Json]:
    """The body of `POST /containers/create`; `env` is decrypted, `image_id` the image of this deployment.

    By id, since the name of the image may mean another one by now; the label keeps the name.
    A container with an address is reached there and publishes no port; only one without (a damaged row) publishes its host ports.
    """
    address = container.address
    network: dict[str, Json] = {"static_ips": [address], "static_mac": mac_for(address)} if address else {}
    request: dict[str, Json] = {
        "name": container.name,
        "image": image_id,
        "labels": {
            DEPLOYMENT_LABEL: container.deployment_id,
            SERVICE_LABEL: container.service_id,
            SERVICE_NAME_LABEL: container.service_name,
            IMAGE_LABEL: str(container.image),
        },
        "env": dict(env),
        "netns": {"nsmode": "bridge"},
        "Networks": {options.network: network},
        "portmappings": [] if address else _published(container),
        "dns_search": ["."],  # Podman's word for no search domain; without it the server's own would be tried
        "restart_policy": "no",  # the agent alone restarts: at once, then with growing pauses, each attempt seen and counted
        "privileged": False,
        # First nothing, then what is named: whatever the server's containers.conf adds by default is gone.
        "cap_drop": ["all"],
        "cap_add": list(CAPABILITIES),
        "no_new_privileges": False,  # breaks common images (ping, sudo, set-uid entry points)
        "resource_limits": {"pids": {"limit": PIDS}},
        "log_configuration": {"driver": "k8s-file", "size": options.log_size_bytes},
        "healthconfig": _health_config(container.health_check),
        "mounts": _mounts(container, options),
    }
    if options.dns:
        request["dns_server"] = list(options.dns)
    if options.limits:
        request["r_limits"] = [{"type": one.name, "soft": one.soft, "hard": one.hard} for one in options.limits]
    return request


def mac_for(address: str) -> str:
    """The locally administered MAC address that belongs to an IPv4 address.

    A new container with the old one's address is then reached at once: no neighbour's table goes stale.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x74, *IPv4Address(address).packed))


def hosts_text(name: str, address: str | None, server: str, host_name: str = "") -> str:
    """A container's `/etc/hosts`: itself and loopback, and Podman's own name for the server; nothing of the server's file.

    `address` is None for a container that gets one when it starts: its own names then mean loopback.
    """
    own = f"{host_name} {name}".strip()
    lines = (
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        f"{address or '127.0.0.1'} {own}",
        f"{server} host.containers.internal",
    )
    return "".join(f"{line}\n" for line in lines)


def removal_name(name: str) -> str:
    """What a container is called once its removal has begun."""
    return name if is_half_removed(name) else name + _REMOVAL


def original_name(name: str) -> str:
    """What a container was called before its removal began."""
    return name.removesuffix(_REMOVAL)


def is_half_removed(name: str) -> bool:
    """Whether the removal of a container with this name has begun."""
    return name.endswith(_REMOVAL)


def reference(wanted: Image) -> str:
    """How Podman is asked for an image: by digest where there is one, since it takes no tag beside it."""
    return f"{wanted.registry}/{wanted.repository}@{wanted.digest}" if wanted.digest else str(wanted)


def network_request(name: str, subnet_id: int) -> dict[str, Json]:
    """The body of `POST /networks/create`.

    Containers without an address of their own get one from the top, since the control plane gives out the lowest free ones.
    """
    prefix = _prefix(subnet_id)
    return {
        "name": name,
        "driver": "bridge",
        "dns_enabled": False,
        "labels": {NETWORK_LABEL: "containers"},
        "options": {"mtu": str(MTU)},
        "subnets": [
            {
                "subnet": subnet(subnet_id),
                "gateway": gateway(subnet_id),
                "lease_range": {"start_ip": f"{prefix}.240", "end_ip": f"{prefix}.254"},
            }
        ],
    }


def subnet(subnet_id: int) -> str:
    """The subnet of a server's containers."""
    return f"{_prefix(subnet_id)}.0/24"


def gateway(subnet_id: int) -> str:
    """The server's own address in the subnet of its containers."""
    return f"{_prefix(subnet_id)}.1"


def _prefix(subnet_id: int) -> str:
    return f"10.200.{subnet_id}"


def _published(container: ExpectedContainer) -> list[Json]:
    return [
        {"container_port": one.container_port, "host_port": one.host_port, "protocol": "tcp"} for one in container.ports
    ]


def _health_config(check: HealthCheck | None) -> dict[str, Json]:
    if check is None:
        # An image's own check is switched off: the control plane did not ask for it, and it would wait for its result for ever.
        return {"Test": ["NONE"]}
    return {
        "Test": ["CMD-SHELL", check.command],
        "Interval": check.interval_s * _NS,
        "Timeout": check.timeout_s * _NS,
        "Retries": check.retries,
        "StartPeriod": check.start_period_s * _NS,
    }


def _mounts(container: ExpectedContainer, options: CreateOptions) -> list[Json]:
    mounts = [_mount(container, volume, options) for volume in container.volumes]
    if any(volume.container_path.rstrip("/") == HOSTS for volume in container.volumes):
        return mounts
    source = f"{options.hosts_dir}/{container.name}"
    return [{"type": "bind", "source": source, "destination": HOSTS, "options": ["bind", "rw"]}, *mounts]


def _mount(container: ExpectedContainer, volume: Volume, options: CreateOptions) -> Json:
    return {
        "type": "bind",
        "source": f"{options.volumes_dir}/{container.service_id}/{volume.name}",
        "destination": volume.container_path,
        "options": ["rbind", "rw"],
    }
