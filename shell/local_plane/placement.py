"""Which deployments there should be: the services' entries against the rows, one service after the other.

Image, env, health check and volumes are read live and change nothing here. What does: `replicas`, `servers`, `revision`, an entry that
has gone, and any change of an entry whose last rollout failed. Where `servers` is not given, what runs stays where it is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shell.local_plane import work
from shell.local_plane.deploying import deployed, free_address, left, undeployed
from shell.local_plane.moving import Fetches, moved_on
from shell.local_plane.world import (
    SERVED,
    SERVING,
    Deployment,
    DeploymentStatus,
    Moment,
    Move,
    MoveStage,
    Server,
    ServerId,
    ServerStatus,
    Service,
    World,
    deployments_of,
    server_named,
    with_deployments,
    with_service,
    without_rows,
)

_FAILED = frozenset({DeploymentStatus.FAILED, DeploymentStatus.ROLLED_BACK})
# Replicas that have left and stopped stay to be looked at, no more than this.
_KEPT_STOPPED = 100


@dataclass(frozen=True, slots=True)
class _Change:
    """What a service is short of and what it has too much of."""

    add: tuple[ServerId, ...]
    surplus: tuple[Deployment, ...]


def converged(world: World, fetches: Mapping[ServerId, Fetches], moment: Moment) -> World:
    """The world with rows as the entries ask for; the same object when nothing is to change."""
    for service_id in tuple(world.services):
        service = world.services[service_id]
        if service.removed:
            world = _cleared(world, service, moment)
        elif service.image and not _waits_for_an_edit(service):
            world = _followed(world, service, moment)
    return _pruned(moved_on(world, fetches, moment))


def redeployed(world: World, service: Service, moment: Moment) -> World:
    """Every row replaced by a new one in one step, addresses lowest first, as the protocol's redeploy does it."""
    service = replace(service, tried=service.spec, halted=False)
    world = with_service(undeployed(world, service.id), service)
    return deployed(world, service, _change(world, service, ()).add, moment)


def problems(world: World) -> tuple[str, ...]:
    """What keeps entries from being followed, a sentence each."""
    return tuple(
        f"service {service.key}: {problem}"
        for service in world.services.values()
        if not service.removed and service.spec.replicas
        for problem in _problems(world, service)
    )


def _waits_for_an_edit(service: Service) -> bool:
    return service.halted and service.spec == service.tried


def _followed(world: World, service: Service, moment: Moment) -> World:
    rows = deployments_of(world, service.id)
    failed = any(row.status in _FAILED for row in rows)
    edited = service.tried is not None and service.spec != service.tried
    if edited and (failed or service.halted or _revised(service)):
        return redeployed(world, service, moment)
    if not failed and service.spec != service.tried:
        service = replace(service, tried=service.spec)
        world = with_service(world, service)
    change = _change(world, service, tuple(row for row in rows if not row.leaving))
    return _changed(_without_needless_moves(world, service, change), service, change, moment)


def _revised(service: Service) -> bool:
    return service.tried is not None and service.spec.revision != service.tried.revision


def _without_needless_moves(world: World, service: Service, change: _Change) -> World:
    """A replica that is wanted where it is does not move, whatever was asked before."""
    surplus = {row.id for row in change.surplus}
    moving = [row for row in deployments_of(world, service.id) if row.move is not None and row.id not in surplus]
    return with_deployments(world, *(replace(row, move=None) for row in moving)) if moving else world


def _changed(world: World, service: Service, change: _Change, moment: Moment) -> World:
    """Rows added; each served surplus row handed to one of them as its successor; the rest leaves at once."""
    known = frozenset(world.deployments)
    world = deployed(world, service, change.add, moment) if change.add else world
    added = [key for key in world.deployments if key not in known]
    surplus = {row.id for row in change.surplus}
    kept = {row.id for row in deployments_of(world, service.id) if not row.leaving and row.id not in surplus}
    spare = [row for row in change.surplus if row.move is None or row.move.successor not in kept]
    served = [row for row in spare if row.status in SERVED]
    for row, successor in zip(served, added, strict=False):
        move = Move(successor, MoveStage.WAITING, moment.now_ms)
        world = with_deployments(world, replace(row, move=move))
    # A served replica whose stand-in could not be placed yet stays.
    held = max(0, service.spec.replicas - len(kept))
    unserved = [row for row in spare if row.status not in SERVED]
    rest = [*unserved, *served[len(added) + held :]]
    return left(world, rest, moment) if rest else world


def _change(world: World, service: Service, current: tuple[Deployment, ...]) -> _Change:
    here = service.pinned if service.spec.volumes else None
    if here is not None and here in world.servers:
        return _placed(world, Counter({here: service.spec.replicas}), current)
    if service.spec.servers is None:
        return _spread(world, service.spec.replicas, current)
    names = service.spec.servers
    chosen = (server_named(world, names[slot % len(names)]) for slot in range(service.spec.replicas))
    return _placed(world, Counter(server.id for server in chosen if server is not None), current)


def _placed(world: World, wanted: Counter[ServerId], current: tuple[Deployment, ...]) -> _Change:
    short, surplus = Counter(wanted), list[Deployment]()
    for row in _by_worth(current):
        if short[row.server_id] > 0:
            short[row.server_id] -= 1
        else:
            surplus.append(row)
    usable = {server.id for server in _usable(world)}
    return _Change(tuple(key for key in short.elements() if key in usable), tuple(surplus))


def _spread(world: World, replicas: int, current: tuple[Deployment, ...]) -> _Change:
    rows = _by_worth(current)
    load = Counter(row.server_id for row in rows[:replicas])
    add: list[ServerId] = []
    usable = _usable(world)
    for _ in range(replicas - len(rows) if usable else 0):
        least = min(usable, key=lambda server: (load[server.id], server.name))
        load[least.id] += 1
        add.append(least.id)
    return _Change(tuple(add), rows[replicas:])


def _by_worth(rows: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
    """Those that serve first, those on the move last, then in the order in which they were made. What goes is taken from the end."""
    return tuple(sorted(rows, key=lambda row: (row.status not in SERVING, row.move is not None)))


def _usable(world: World) -> list[Server]:
    """Servers that take new deployments."""
    return [server for server in world.servers.values() if server.status is ServerStatus.ONLINE and server.subnet_id]


def _cleared(world: World, service: Service, moment: Moment) -> World:
    rows = [row for row in deployments_of(world, service.id) if not row.leaving]
    world = left(world, rows, moment)
    rows = list(deployments_of(world, service.id))
    if any(row.status is not DeploymentStatus.STOPPED for row in rows):
        return world
    if service.pinned is not None:
        # Only now: an agent refuses to delete volumes whose containers still run.
        if service.pinned in world.servers:
            world = work.queued(world, service.pinned, "cleanup_volumes", {"serviceId": service.id}, moment)
        world = with_service(world, replace(service, pinned=None))
    return world if rows else replace(world, services=without_rows(world.services, [service.id]))


def _pruned(world: World) -> World:
    """Bounds the rows of replicas that have left and stopped; a service that came back does not see its old ones."""
    stopped = [row for row in world.deployments.values() if row.leaving and row.status is DeploymentStatus.STOPPED]
    old = stopped[:-_KEPT_STOPPED]
    return replace(world, deployments=without_rows(world.deployments, (row.id for row in old))) if old else world


def _problems(world: World, service: Service) -> list[str]:
    if service.halted and service.spec == service.tried:
        return ["its rollout was aborted; change its entry to deploy it again"]
    if not service.image:
        return ["it has no image yet; a build has to complete first"]
    found = []
    for name in dict.fromkeys(service.spec.servers or ()):
        server = server_named(world, name)
        if server is None or not server.subnet_id:
            found.append(f"server {name} is not registered")
        elif server.status is not ServerStatus.ONLINE:
            found.append(f"server {name} is offline")
    if service.spec.servers is None and not _usable(world):
        found.append("no server is online")
    if service.pinned and service.spec.servers and _pinned_elsewhere(world, service):
        found.append("its volumes pin it to another server than `servers` says")
    full = [server.name for server in _usable(world) if free_address(world, server) is None]
    if full:
        found.append(f"no free address on {', '.join(full)}")
    return found


def _pinned_elsewhere(world: World, service: Service) -> bool:
    names = {server.name for server in world.servers.values() if server.id == service.pinned}
    return bool(names) and not names & set(service.spec.servers or ())
