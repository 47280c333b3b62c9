"""Work items: what the control plane asks for that an expected state cannot express, and what each comes to on this server.

Payloads are texts from outside: they are parsed into a closed union, and one that makes no sense fails alone. An item acts only on
containers of ours that carry the label that it names. What is to be done with each is decided here; the loop only does it.
"""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias, assert_never

import msgspec
from returns.result import Failure, Result, Success

from core import bounds
from core.containers import ActualContainer, ContainerId, DeploymentId
from core.liveness import GONE, OVERDUE, REMOVING, STOPPING
from core.protocol import WorkItem
from core.rejection import has_control, id_fault, shown

_AT_REST: Final = frozenset({"exited", "created", "configured", "dead"})
_REPLACED: Final = {
    GONE: "its process is gone, and it is made anew for that reason",
    OVERDUE: "its stop does not end, and it is made anew for that reason",
    REMOVING: "it is being removed, and made anew where it is wanted",
}
WAKE_UPS: Final = frozenset({"deploy", "update_wireguard", "sync_caddy"})


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the container of a deployment."""

    deployment_id: DeploymentId


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop and remove the containers of a deployment."""

    deployment_id: DeploymentId


@dataclass(frozen=True, slots=True)
class ForceCleanup:
    """Remove by force those of these containers that belong to the service."""

    service_id: str
    container_ids: frozenset[ContainerId]


@dataclass(frozen=True, slots=True)
class CleanupVolumes:
    """Delete the volumes of a service."""

    service_id: str


@dataclass(frozen=True, slots=True)
class WakeUp:
    """The expected state has changed; it rules, so nothing else is to be done."""

    kind: str


Task: TypeAlias = Restart | Stop | ForceCleanup | CleanupVolumes | WakeUp


@dataclass(frozen=True, slots=True)
class RestartContainer:
    """Restart this container. `mark` tells its present start from any other: kept before, it shows later whether this was done."""

    container_id: ContainerId
    name: str
    mark: str


@dataclass(frozen=True, slots=True)
class RemoveContainers:
    """Remove these containers, in this order; by force when there is no time for a polite stop."""

    containers: tuple[ActualContainer, ...]
    by_force: bool


@dataclass(frozen=True, slots=True)
class RemoveVolumes:
    """Delete the folder of this service's volumes."""

    service_id: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """It is done already, or asks for no change of its own."""

    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It is not done; why, on one line."""

    why: str


@dataclass(frozen=True, slots=True)
class Later:
    """Its time has not come; why, on one line."""

    why: str


Now: TypeAlias = RestartContainer | RemoveContainers | RemoveVolumes | Nothing | Refuse
Step: TypeAlias = Now | Later


class _ForDeployment(msgspec.Struct, frozen=True, rename="camel"):
    deployment_id: str


class _ForService(msgspec.Struct, frozen=True, rename="camel"):
    service_id: str


class _ForContainers(msgspec.Struct, frozen=True, rename="camel"):
    service_id: str
    container_ids: Annotated[list[str], msgspec.Meta(max_length=bounds.WORK_CONTAINERS)]


def parse(item: WorkItem) -> Result[Task, str]:
    """What an item asks for; the failure says why it cannot be told."""
    try:
        return _parse(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"the payload of {shown(item.type)} makes no sense: {error}")


def decide(
    task: Task,
    containers: tuple[ActualContainer, ...],
    begun: str | None = None,
    expected: frozenset[DeploymentId] | None = None,
) -> Step:
    """What a task comes to, given all containers of ours.

    `begun` is the mark of a restart that an earlier run of the agent began and of which nobody knows whether it was done. `expected` are
    the deployments of a state that is no older than the task; None when there is no such state yet.
    """
    match task:
        case Restart(deployment_id=wanted):
            return _restart(_of(wanted, containers), begun)
        case Stop(deployment_id=wanted):
            found = sorted(_of(wanted, containers), key=lambda one: one.id)
            if (later := _being_stopped(found)) is not None:
                return later
            return RemoveContainers(tuple(found), by_force=False) if found else Nothing("no container is left")
        case ForceCleanup(service_id=service, container_ids=ids):
            mine = [one for one in containers if one.id in ids and one.service_id == service]
            found = sorted(mine, key=lambda one: one.id)
            return RemoveContainers(tuple(found), by_force=True) if found else Nothing("no such container is left")
        case CleanupVolumes(service_id=service):
            return _cleanup(service, [one for one in containers if one.service_id == service], expected)
        case WakeUp(kind=kind):
            return Nothing(f"{kind} follows from the expected state")
        case _:
            assert_never(task)


def touched(step: Now) -> frozenset[DeploymentId]:
    """The deployments that a step removes from this server; an older expected state must not bring them back."""
    if not isinstance(step, RemoveContainers):
        return frozenset()
    return frozenset(one.deployment_id for one in step.containers if one.deployment_id is not None)


def _parse(item: WorkItem) -> Result[Task, str]:
    if item.type in WAKE_UPS:  # whatever the payload says, the expected state rules
        return Success(WakeUp(item.type))
    raw = item.payload.encode()
    match item.type:
        case "restart" | "stop":
            deployment = msgspec.json.decode(raw, type=_ForDeployment).deployment_id
            kind = Restart if item.type == "restart" else Stop
            return _checked("deploymentId", deployment, kind(DeploymentId(deployment)))
        case "force_cleanup":
            named = msgspec.json.decode(raw, type=_ForContainers)
            ids = frozenset(ContainerId(one) for one in named.container_ids)
            return _checked("serviceId", named.service_id, ForceCleanup(named.service_id, ids))
        case "cleanup_volumes":
            service = msgspec.json.decode(raw, type=_ForService).service_id
            return _checked("serviceId", service, CleanupVolumes(service))
        case unknown:
            return Failure(f"{shown(unknown)} is not a type of work that this agent knows")


def _checked(field: str, text: str, task: Task) -> Result[Task, str]:
    fault = id_fault(field, text)
    if fault is not None or has_control(text) or text in (".", ".."):
        return Failure(f"{field} {fault.reason if fault else 'is not an id'}")
    return Success(task)


def _cleanup(service: str, there: list[ActualContainer], expected: frozenset[DeploymentId] | None) -> Step:
    """A service's last containers leave with its expected state, often later than the item comes, which is sent once only."""
    leaving = [one for one in there if expected is None or one.deployment_id not in expected]
    if leaving:
        return Later(f"container {leaving[0].name} of the service is still here")
    if (later := _being_stopped(there)) is not None:
        return later
    using = [one for one in there if one.state not in _AT_REST]
    return Refuse(f"container {using[0].name} of the service is {using[0].state}") if using else RemoveVolumes(service)


def _being_stopped(found: list[ActualContainer]) -> Later | None:
    """Whoever has begun the stop, a person perhaps, has given the process time to end."""
    stopping = [one for one in found if one.state == STOPPING]
    return Later(f"container {stopping[0].name} is being stopped") if stopping else None


def _restart(found: list[ActualContainer], begun: str | None) -> Step:
    if not found:
        return Refuse("the deployment has no container here")
    one = min(found, key=lambda one: (one.state != "running", -one.created, one.id))
    mark = f"{one.id} {one.pid}"
    if begun is not None and one.state == "running" and mark != begun:
        return Nothing("it was started anew before the agent was interrupted")
    if one.state in _REPLACED:
        return Nothing(_REPLACED[one.state])
    if (later := _being_stopped([one])) is not None:
        return later
    return RestartContainer(one.id, one.name, mark)


def _of(wanted: DeploymentId, containers: tuple[ActualContainer, ...]) -> list[ActualContainer]:
    return [one for one in containers if one.deployment_id == wanted]
