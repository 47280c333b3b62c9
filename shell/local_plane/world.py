"""Everything that the control plane knows, as frozen rows, and nothing of how it is kept, shown or changed.

A rule takes a `World` and a `Moment` and returns the next `World`. Times are Unix milliseconds. Rows are looked up by id; the order of a
mapping is the order in which rows were made and carries no meaning.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NewType, Protocol, TypeVar

ServerId = NewType("ServerId", str)
ServiceId = NewType("ServiceId", str)
DeploymentId = NewType("DeploymentId", str)
RolloutId = NewType("RolloutId", str)
ItemId = NewType("ItemId", str)
BuildId = NewType("BuildId", str)


class ServerStatus(StrEnum):
    """What the dashboard says of a server."""

    PENDING = "pending"
    ONLINE = "online"
    OFFLINE = "offline"


class DeploymentStatus(StrEnum):
    """Where a deployment is in its life."""

    PENDING = "pending"
    PULLING = "pulling"
    STARTING = "starting"
    HEALTHY = "healthy"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"


class RolloutStatus(StrEnum):
    """How a rollout ended, if it did."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class MoveStage(StrEnum):
    """A replica whose successor is on its way.

    It waits for the successor to serve, is served beside it, is left out of DNS and routes, and only then stopped.
    """

    WAITING = "waiting"
    BOTH = "both"
    DRAINING = "draining"


LISTED = frozenset(
    {
        DeploymentStatus.PENDING,
        DeploymentStatus.PULLING,
        DeploymentStatus.STARTING,
        DeploymentStatus.HEALTHY,
        DeploymentStatus.RUNNING,
        DeploymentStatus.UNKNOWN,
    }
)
SERVED = frozenset({DeploymentStatus.HEALTHY, DeploymentStatus.RUNNING, DeploymentStatus.UNKNOWN})
SERVING = frozenset({DeploymentStatus.HEALTHY, DeploymentStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a service listens on; `domain` makes it public."""

    container: int
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A command run by a shell in the container; times in seconds. An empty command counts as a check that is never sent."""

    cmd: str
    interval: int = 10
    timeout: int = 5
    retries: int = 3
    start_period: int = 30


@dataclass(frozen=True, slots=True)
class Volume:
    """A named folder of the service, mounted at `path` in the container."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a service's builds come from; `token` stands for what a private repository needs."""

    url: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A service as its entry in the file says, env encrypted. `servers` None: spread over all."""

    name: str
    image: str | None
    replicas: int = 1
    servers: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    health_check: HealthCheck | None = None
    ports: tuple[Port, ...] = ()
    hostname: str | None = None
    revision: str | None = None
    repository: Repository | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A server, registered once it has keys and a subnet."""

    id: ServerId
    name: str
    token: str | None = None
    token_made_ms: int = 0
    token_used: bool = False
    wanted_subnet: int | None = None
    status: ServerStatus = ServerStatus.PENDING
    wireguard_key: str | None = None
    signing_key: str | None = None
    public_ip: str | None = None
    is_proxy: bool = False
    subnet_id: int | None = None
    heartbeat_ms: int | None = None
    cpu_cores: int | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service and what is remembered of it.

    `tried` is the entry as it was last deployed; `built_image` replaces the entry's image until that one changes; `halted` after a
    rollout was aborted, `removed` once the entry has gone; `pinned` where its volumes are.
    """

    id: ServiceId
    key: str
    spec: Spec
    tried: Spec | None = None
    built_image: str | None = None
    halted: bool = False
    removed: bool = False
    pinned: ServerId | None = None

    @property
    def image(self) -> str | None:
        """The image to run now, as it was written."""
        return self.built_image or self.spec.image


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of a deployment and the host port set aside for it."""

    container: int
    host: int


@dataclass(frozen=True, slots=True)
class Move:
    """A deployment's successor and how far the move has come since when."""

    successor: DeploymentId
    stage: MoveStage
    since_ms: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """One container that should be. `leaving`: no replica any more, its row goes once it has stopped."""

    id: DeploymentId
    service_id: ServiceId
    server_id: ServerId
    rollout_id: RolloutId
    address: str | None
    ports: tuple[HostPort, ...] = ()
    status: DeploymentStatus = DeploymentStatus.PENDING
    health: str | None = None
    container_id: str | None = None
    failed_stage: str | None = None
    leaving: bool = False
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The deployments of one change, which succeed or are rolled back together."""

    id: RolloutId
    service_id: ServiceId
    status: RolloutStatus = RolloutStatus.IN_PROGRESS
    stage: str = "deploying"


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A job for one server. `status` is what the agent said, unchecked, as the protocol has it."""

    id: ItemId
    server_id: ServerId
    type: str
    payload: str
    made_ms: int
    status: str = "pending"


@dataclass(frozen=True, slots=True)
class Build:
    """A build. `token_fails` stands for a repository host that refuses to give a token."""

    id: BuildId
    service_id: ServiceId
    commit_sha: str = "HEAD"
    commit_message: str | None = None
    branch: str = "main"
    github_repo_id: str | None = None
    token_fails: bool = False
    status: str = "pending"
    made_ms: int = 0
    claimed_by: ServerId | None = None
    claimed_ms: int | None = None
    started_ms: int | None = None
    completed_ms: int | None = None
    image_uri: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All rows, the key that protects every secret (64 hex characters), and what holds for the whole installation."""

    encryption_key: str
    project: str = "lab"
    registry: str | None = None
    servers: Mapping[ServerId, Server] = field(default_factory=dict)
    services: Mapping[ServiceId, Service] = field(default_factory=dict)
    deployments: Mapping[DeploymentId, Deployment] = field(default_factory=dict)
    rollouts: Mapping[RolloutId, Rollout] = field(default_factory=dict)
    items: Mapping[ItemId, WorkItem] = field(default_factory=dict)
    builds: Mapping[BuildId, Build] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """Time and fresh ids, handed in so that the rules stay pure. `now_ms` grows with every event."""

    now_ms: int
    new_id: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP request is answered: a status and a JSON body."""

    status: int
    body: Mapping[str, Any]


def refused(status: int, error: str) -> Answer:
    """An error answer in the protocol's form."""
    return Answer(status, {"error": error})


_Id = TypeVar("_Id", covariant=True)


class _Row(Protocol[_Id]):
    @property
    def id(self) -> _Id: ...


_Key = TypeVar("_Key")
_Kind = TypeVar("_Kind", bound=_Row[Any])


def with_rows(rows: Mapping[_Key, _Kind], *changed: _Kind) -> Mapping[_Key, _Kind]:
    """These rows with the given ones added or replaced."""
    return {**rows, **{row.id: row for row in changed}}


def without_rows(rows: Mapping[_Key, _Kind], gone: Iterable[_Key]) -> Mapping[_Key, _Kind]:
    """These rows without the named ones."""
    names = set(gone)
    return {key: row for key, row in rows.items() if key not in names}


def with_deployments(world: World, *changed: Deployment) -> World:
    """The world with these deployments added or replaced."""
    return replace(world, deployments=with_rows(world.deployments, *changed))


def with_service(world: World, service: Service) -> World:
    """The world with this service added or replaced."""
    return replace(world, services=with_rows(world.services, service))


def server_named(world: World, name: str) -> Server | None:
    """The server of that name or id."""
    return next((server for server in world.servers.values() if name in (server.name, server.id)), None)


def service_named(world: World, key: str) -> Service | None:
    """The service of that key or id that is still in the file."""
    found = (service for service in world.services.values() if not service.removed and key in (service.key, service.id))
    return next(found, None)


def deployments_of(world: World, service_id: ServiceId) -> tuple[Deployment, ...]:
    """All rows of one service, whatever their status."""
    return tuple(row for row in world.deployments.values() if row.service_id == service_id)
