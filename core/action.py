"""The closed union of changes that can be made to a server, each with its reason.

An action says *what*: which container, which records. How it is done, the shell knows. Every action names the facts that a person needs
(`was`, `wants`) through a reason from a closed list. The order of the classes here is the order in which changes are made.
"""

from typing import Final, TypeAlias, assert_never

import msgspec

from core.caddy import Route
from core.containers import ContainerId, DeploymentId, ExpectedContainer
from core.digest import Difference
from core.dns import Record
from core.wireguard import Peer


class NoDeploymentId(msgspec.Struct, frozen=True):
    """One of ours that names no deployment."""


class NotExpected(msgspec.Struct, frozen=True):
    """Its deployment is not in the expected state."""


class Spare(msgspec.Struct, frozen=True):
    """Another container of the same deployment is kept."""

    kept: ContainerId


class NotRunning(msgspec.Struct, frozen=True):
    """It is in another state than running."""

    state: str


class NoContainer(msgspec.Struct, frozen=True):
    """Nothing runs for this deployment."""


class ImageDiffers(msgspec.Struct, frozen=True):
    """It was made from another image."""

    was: str
    wants: str


class Differs(msgspec.Struct, frozen=True):
    """What is served is not what is expected."""

    difference: Difference


class CouldNotBeRead(msgspec.Struct, frozen=True):
    """What is served is not known."""


Reason: TypeAlias = (
    NoDeploymentId | NotExpected | Spare | NotRunning | NoContainer | ImageDiffers | Differs | CouldNotBeRead
)


class StopOrphan(msgspec.Struct, frozen=True, gc=False):
    """Stop and remove a container that should not be here.

    `successors` are the expected containers of the same service that do not exist yet: their images must be here before the stop, so
    that a pull that fails or takes long costs no downtime.
    """

    deployment_id: DeploymentId | None
    container_id: ContainerId
    name: str
    reason: NoDeploymentId | NotExpected | Spare
    successors: tuple[ExpectedContainer, ...] = ()


class Start(msgspec.Struct, frozen=True, gc=False):
    """Start a container that exists, from the right image."""

    deployment_id: DeploymentId
    container_id: ContainerId
    name: str
    reason: NotRunning


class Deploy(msgspec.Struct, frozen=True, gc=False):
    """Create and start a container that is missing."""

    container: ExpectedContainer
    reason: NoContainer


class Redeploy(msgspec.Struct, frozen=True, gc=False):
    """Replace a container: image first, then remove the old one, then create and start the new one."""

    container: ExpectedContainer
    container_id: ContainerId
    reason: ImageDiffers | NotRunning


class UpdateDns(msgspec.Struct, frozen=True, gc=False):
    """Serve exactly these records; they include what exists for held names."""

    records: tuple[Record, ...]
    reason: Differs | CouldNotBeRead


class UpdateCaddy(msgspec.Struct, frozen=True, gc=False):
    """Serve exactly these routes; they include what exists for held ids."""

    routes: tuple[Route, ...]
    reason: Differs | CouldNotBeRead


class UpdateWireGuard(msgspec.Struct, frozen=True, gc=False):
    """Set these peers and remove those keys; every other peer of the interface is left alone."""

    upsert: tuple[Peer, ...]
    remove: tuple[str, ...]
    reason: Differs | CouldNotBeRead


ContainerAction: TypeAlias = StopOrphan | Start | Deploy | Redeploy
Update: TypeAlias = UpdateDns | UpdateCaddy | UpdateWireGuard
Action: TypeAlias = ContainerAction | Update

KINDS: Final = {
    StopOrphan: "stop_orphan",
    Start: "start",
    Deploy: "deploy",
    Redeploy: "redeploy",
    UpdateDns: "update_dns",
    UpdateCaddy: "update_caddy",
    UpdateWireGuard: "update_wireguard",
}
"""The name of each kind of action, in the order in which they are made."""


def kind(action: Action) -> str:
    """The action's kind, as in the dry run's output, in logs and in metrics."""
    return KINDS[type(action)]


def subject(action: Action) -> str:
    """What the action is about, for a person: a container's name or a component."""
    match action:
        case StopOrphan(name=name) | Start(name=name):
            return name
        case Deploy(container=container) | Redeploy(container=container):
            return container.name
        case UpdateDns(records=records):
            return f"{len(records)} DNS records"
        case UpdateCaddy(routes=routes):
            return f"{len(routes)} routes"
        case UpdateWireGuard(upsert=upsert, remove=remove):
            return f"{len(upsert) + len(remove)} WireGuard peers"
        case _:
            assert_never(action)


def difference_of(action: Update) -> Difference:
    """The keys that an update adds, removes and changes; none when the component could not be read."""
    return action.reason.difference if isinstance(action.reason, Differs) else Difference()


def explain(reason: Reason) -> str:
    """One line for a person."""
    match reason:
        case NoDeploymentId():
            return "has no deployment id"
        case NotExpected():
            return "its deployment is not expected here"
        case Spare(kept=kept):
            return f"container {kept[:12]} of the same deployment is kept"
        case NotRunning(state=state):
            return f"state {state}, expected running"
        case NoContainer():
            return "no container for this deployment"
        case ImageDiffers(was=was, wants=wants):
            return f"image {was}, expected {wants}"
        case Differs(difference=found):
            return f"{len(found.added)} to add, {len(found.removed)} to remove, {len(found.changed)} to change"
        case CouldNotBeRead():
            return "what is served could not be read"
        case _:
            assert_never(reason)
