"""Moving a replica without losing a request: its successor serves before it goes.

A replica with a successor waits until that one is healthy, is then served beside it, is then left out of DNS and routes while its
container still runs, and is stopped last. A stage lasts until every server that is alive has fetched the expected state twice since it
began: an agent fetches again only when it has worked off what it fetched before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from shell.local_plane.deploying import left
from shell.local_plane.world import (
    SERVING,
    Deployment,
    Moment,
    Move,
    MoveStage,
    ServerId,
    ServerStatus,
    World,
    with_deployments,
)

# Agents report at least every 30 s: one that has been silent for twice as long is not waited for.
_ALIVE_MS = 60_000
# However busy a server is, it is not waited for any longer: its agent gives a change five minutes.
_PATIENCE_MS = 300_000

_NEXT = {MoveStage.WAITING: MoveStage.BOTH, MoveStage.BOTH: MoveStage.DRAINING}


@dataclass(frozen=True, slots=True)
class Fetches:
    """When a server fetched the expected state last, and the time before that."""

    before_ms: int
    last_ms: int


def moved_on(world: World, fetches: Mapping[ServerId, Fetches], moment: Moment) -> World:
    """The world with every replica that is being moved one stage further, where it can be."""
    for row in [row for row in world.deployments.values() if row.move is not None]:
        world = _step(world, row, fetches, moment)
    return world


def _step(world: World, row: Deployment, fetches: Mapping[ServerId, Fetches], moment: Moment) -> World:
    move = row.move
    successor = world.deployments.get(move.successor) if move else None
    if move is None or successor is None:
        return with_deployments(world, replace(row, move=None))
    if successor.status not in SERVING:
        return world if move.stage is MoveStage.WAITING else _at(world, row, move, MoveStage.WAITING, moment)
    if move.stage is not MoveStage.WAITING and not _seen(world, move.since_ms, fetches, moment.now_ms):
        return world
    following = _NEXT.get(move.stage)
    return left(world, [row], moment) if following is None else _at(world, row, move, following, moment)


def _at(world: World, row: Deployment, move: Move, stage: MoveStage, moment: Moment) -> World:
    return with_deployments(world, replace(row, move=replace(move, stage=stage, since_ms=moment.now_ms)))


def _seen(world: World, since_ms: int, fetches: Mapping[ServerId, Fetches], now_ms: int) -> bool:
    if now_ms - since_ms > _PATIENCE_MS:
        return True
    return all(
        server.id in fetches and fetches[server.id].before_ms > since_ms
        for server in world.servers.values()
        if server.status is ServerStatus.ONLINE and (server.heartbeat_ms or 0) > now_ms - _ALIVE_MS
    )
