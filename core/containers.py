"""Containers: what is expected, what is there, how they differ.

An expected entry is checked and brought into one form (complete image reference, sorted ports, env and mounts); a container of this
server is the same however it was listed. Telling what to do about a difference is the business of `core.plan`.
"""

import re
from operator import methodcaller
from typing import NewType

import msgspec

from core import address, bounds, image
from core.image import Image
from core.local_rules import HOST_PORTS, NO_RULES, LocalRules
from core.rejection import Fault, has_control, id_fault, shown
from core.wire import WireActualContainer, WireContainer, WireHealthCheck, WirePort, WireVolume

DeploymentId = NewType("DeploymentId", str)
ServiceId = NewType("ServiceId", str)
ContainerId = NewType("ContainerId", str)

LABEL_PREFIX = "techulus."
DEPLOYMENT_LABEL = "techulus.deployment.id"
SERVICE_LABEL = "techulus.service.id"
SERVICE_NAME_LABEL = "techulus.service.name"
IMAGE_LABEL = "techulus.agent.image"  # the reference that a container was asked to be made from, completed
_HAS_PREFIX = methodcaller("startswith", LABEL_PREFIX)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")  # Podman's rule for container names
_ENV_NAME = re.compile(
    r"[-._a-zA-Z][-._a-zA-Z0-9]*"
)  # no '=', blank or control character; what container platforms accept
_VOLUME_NAME = re.compile(r"[a-z0-9-]+")
_MAX_COUNT = 2**31 - 1  # seconds and retries beyond this overflow once they are nanoseconds


class HealthCheck(msgspec.Struct, frozen=True, gc=False):
    """A shell command run in the container. Interval, timeout, start period in seconds."""

    command: str
    interval_s: int
    timeout_s: int
    retries: int
    start_period_s: int


class Volume(msgspec.Struct, frozen=True, order=True, gc=False):
    """A folder `<data-dir>/volumes/<service>/<name>` of this server, mounted at `container_path`."""

    name: str
    container_path: str


class Port(msgspec.Struct, frozen=True, order=True, gc=False):
    """A port of the container and the host port set aside for it."""

    container_port: int
    host_port: int


class ExpectedContainer(msgspec.Struct, frozen=True, gc=False):
    """One deployment as it should run here. The values of `env` are still encrypted."""

    deployment_id: DeploymentId
    service_id: ServiceId
    service_name: str
    name: str
    image: Image
    address: str | None
    ports: tuple[Port, ...]
    env: tuple[tuple[str, str], ...]
    health_check: HealthCheck | None
    volumes: tuple[Volume, ...]


class ActualContainer(msgspec.Struct, frozen=True, gc=False):
    """One container of this server that carries a label of ours.

    `image` is the reference that it was asked to be made from, by our label, else by Podman's text (`image_text`); None when that cannot be
    parsed (an image that has lost its name). `image_id` is what it was really made from. `state` is Podman's word in lower case.
    `created` is in seconds since the epoch. `running_for_s` is how long the present start has lasted, as far as that is of interest,
    `lived_s` how long the last one did; both None when not known. `pid` is the first process's, 0 when it does not run or is not known.
    """

    id: ContainerId
    name: str
    image: Image | None
    image_text: str
    state: str
    created: int
    health: str
    deployment_id: DeploymentId | None
    service_id: str
    service_name: str
    running_for_s: float | None = None
    lived_s: float | None = None
    exit_code: int = 0
    pid: int = 0
    image_id: str = ""


def normalise_expected(
    entry: WireContainer, subnet_id: int | None = None, rules: LocalRules = NO_RULES
) -> ExpectedContainer | Fault:
    """Check one expected entry; with the server's subnet known, its address must lie in it (10.200.<subnet>.2 to .254)."""
    fault = _fault(entry, subnet_id, rules)
    reference = image.parse(entry.image)
    if fault is not None or reference is None:
        return fault or Fault("image", f"{shown(entry.image)} is not an image reference")
    check, ports, volumes = entry.health_check, entry.ports, entry.volumes
    return ExpectedContainer(
        DeploymentId(entry.deployment_id),
        ServiceId(entry.service_id),
        entry.service_name,
        entry.name,
        reference,
        entry.ip_address,
        _ports(ports) if ports else (),
        tuple(sorted(entry.env.items())),
        None
        if check is None
        else HealthCheck(check.cmd, check.interval, check.timeout, check.retries, check.start_period),
        tuple(sorted({Volume(v.name, v.container_path) for v in volumes})) if volumes else (),
    )


def normalise_actual(entry: WireActualContainer) -> ActualContainer:
    """The core's value for one container of the dry run's actual state."""
    return ActualContainer(
        id=ContainerId(entry.id),
        name=entry.name,
        image=made_from(entry.labels, entry.image),
        image_text=entry.image,
        state=entry.state.lower(),
        created=entry.created,
        health=entry.health,
        deployment_id=deployment_of(entry.labels),
        service_id=entry.labels.get(SERVICE_LABEL, ""),
        service_name=entry.labels.get(SERVICE_NAME_LABEL, ""),
    )


def is_ours(labels: dict[str, str]) -> bool:
    """Whether labels mark a container as ours: any key that begins with our prefix."""
    return any(map(_HAS_PREFIX, labels))


def deployment_of(labels: dict[str, str]) -> DeploymentId | None:
    """The deployment that labels name; none when the label is missing or empty."""
    found = labels.get(DEPLOYMENT_LABEL)
    return DeploymentId(found) if found else None


def made_from(labels: dict[str, str], text: str) -> Image | None:
    """The reference that a container was asked to be made from.

    Our own label keeps it, so that what the engine makes of the text later (an id, another tag) is never drift. A container without the
    label, another agent's, is judged by the engine's text.
    """
    asked = labels.get(IMAGE_LABEL)
    return (image.parse(asked) if asked else None) or image.parse(text)


def image_matches(expected: ExpectedContainer, actual: ActualContainer) -> bool:
    """Whether a container was made from the expected image."""
    return actual.image is not None and image.same(expected.image, actual.image)


def rank(expected: ExpectedContainer, actual: ActualContainer) -> tuple[bool, bool, int, str]:
    """Sorts the containers of one deployment so that the one to keep comes first."""
    return (actual.state != "running", not image_matches(expected, actual), -actual.created, actual.id)


def _fault(entry: WireContainer, subnet_id: int | None, rules: LocalRules) -> Fault | None:
    return (
        id_fault("deploymentId", entry.deployment_id)
        or id_fault("serviceId", entry.service_id)
        or (Fault("serviceName", "has a control character") if has_control(entry.service_name) else None)
        or _length_fault("serviceName", entry.service_name, bounds.LABEL)
        or _length_fault("name", entry.name, bounds.NAME)
        or (None if _NAME.fullmatch(entry.name) else Fault("name", f"{shown(entry.name)} is not a container name"))
        or _address_fault(entry.ip_address, subnet_id)
        or (_ports_fault(entry.ports, rules, has_address=entry.ip_address is not None) if entry.ports else None)
        or (_env_fault(entry.env) if entry.env else None)
        or (_health_fault(entry.health_check) if entry.health_check else None)
        or (_volumes_fault(entry.service_id, entry.volumes) if entry.volumes else None)
    )


def _length_fault(field: str, text: str, most: int) -> Fault | None:
    why = bounds.too_long(text, most)
    return None if why is None else Fault(field, why)


def _address_fault(text: str | None, subnet_id: int | None) -> Fault | None:
    if text is None:  # a damaged row of the control plane: it runs, and is reached by its host ports
        return None
    if not address.is_ipv4(text):
        return Fault("ipAddress", f"{shown(text)} is not an IPv4 address")
    if subnet_id is not None:
        network, _, last = text.rpartition(".")
        if network != f"10.200.{subnet_id}" or not 2 <= int(last) <= 254:
            return Fault("ipAddress", f"{text} is not one of this server's addresses 10.200.{subnet_id}.2 to .254")
    return None


def _ports(ports: tuple[WirePort, ...]) -> tuple[Port, ...]:
    if len(ports) == 1:
        return (Port(ports[0].container_port, ports[0].host_port),)
    return tuple(sorted({Port(one.container_port, one.host_port) for one in ports}))


def _ports_fault(ports: tuple[WirePort, ...], rules: LocalRules, *, has_address: bool) -> Fault | None:
    """Without an address of its own a container is reached by host ports, each of which can lead to one of its ports only.

    A host port outside of the control plane's range is somebody else's (22 is the owner's way in), whether it would be used or not.
    """
    if why := bounds.too_many(ports, bounds.PORTS):
        return Fault("ports", why)
    leads_to: dict[int, int] = {}
    for number, one in enumerate(ports):
        if not has_address and leads_to.setdefault(one.host_port, one.container_port) != one.container_port:
            return Fault(f"ports[{number}].hostPort", f"{one.host_port} leads to two ports of the container")
        if not 0 < one.container_port < 65_536:
            return Fault(f"ports[{number}].containerPort", f"{one.container_port} is not a port")
        if not 0 < one.host_port < 65_536:
            return Fault(f"ports[{number}].hostPort", f"{one.host_port} is not a port")
        if not rules.allows_host_port(one.host_port):
            reason = (
                f"{one.host_port} is not between {HOST_PORTS[0]} and {HOST_PORTS[1]}, nor allowed by --allow-host-port"
            )
            return Fault(f"ports[{number}].hostPort", reason)
    return None


def _env_fault(env: dict[str, str]) -> Fault | None:
    if len(env) > bounds.VARIABLES:
        return Fault("env", f"has {len(env)} variables, and at most {bounds.VARIABLES} are taken")
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            first = min(one for one in env if not _ENV_NAME.fullmatch(one))
            return Fault("env", f"{shown(first)} is not a name of an environment variable")
        if len(name) > bounds.VARIABLE_NAME or len(value) > bounds.VARIABLE:
            return Fault("env", f"{shown(name)} has a longer name or value than is taken")
    return None


def _health_fault(check: WireHealthCheck) -> Fault | None:
    if not check.cmd.strip():
        return Fault("healthCheck.cmd", "is empty")
    if fault := _length_fault("healthCheck.cmd", check.cmd, bounds.COMMAND):
        return fault
    if has_control(check.cmd.replace("\n", "").replace("\t", "")):
        return Fault("healthCheck.cmd", "has a control character other than tabs and line feeds")
    numbers = (("interval", check.interval), ("timeout", check.timeout), ("retries", check.retries))
    for field, number in numbers:
        if not 0 < number <= _MAX_COUNT:
            return Fault(f"healthCheck.{field}", f"{number} is not a positive number of reasonable size")
    if not 0 <= check.start_period <= _MAX_COUNT:
        return Fault("healthCheck.startPeriod", f"{check.start_period} is negative or too large")
    return None


def _volumes_fault(service_id: str, volumes: tuple[WireVolume, ...]) -> Fault | None:
    if why := bounds.too_many(volumes, bounds.VOLUMES):
        return Fault("volumes", why)
    taken: dict[str, WireVolume] = {}
    for number, one in enumerate(volumes):
        at = f"volumes[{number}]"
        fields = (("name", one.name, bounds.VOLUME), ("containerPath", one.container_path, bounds.PATH))
        for field, text, most in fields:
            if fault := _length_fault(f"{at}.{field}", text, most):
                return fault
        if not _VOLUME_NAME.fullmatch(one.name):
            return Fault(f"{at}.name", f"{shown(one.name)} is not a volume name (a-z, 0-9 and hyphens)")
        if not _is_volume_path(one.host_path, service_id, one.name):
            return Fault(f"{at}.hostPath", f"{shown(one.host_path)} is outside the service's volumes folder")
        if not _is_mount_point(one.container_path):
            return Fault(f"{at}.containerPath", f"{shown(one.container_path)} is not an absolute path to mount at")
        # As Podman tells mount points apart: `//data/` is `/data`.
        place = "/".join(part for part in one.container_path.split("/") if part)
        if taken.setdefault(place, one) != one:
            return Fault(f"{at}.containerPath", f"{shown(one.container_path)} is mounted twice")
    return None


def _is_volume_path(path: str, service_id: str, name: str) -> bool:
    # The folder is derived locally; the path that was sent must at least mean the same place, whatever its data directory.
    return path.startswith("/") and ".." not in path and path.endswith(f"/volumes/{service_id}/{name}")


def _is_mount_point(path: str) -> bool:
    parts = path.split("/")
    return path.startswith("/") and any(parts) and ".." not in parts and "." not in parts and not has_control(path)
