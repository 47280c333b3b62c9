"""The work queue: what is queued, listed and ticked off. Knows nothing of why an item is queued."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from shell.local_plane.world import (
    Answer,
    DeploymentId,
    ItemId,
    Moment,
    ServerId,
    WorkItem,
    World,
    refused,
    with_rows,
    without_rows,
)

# Finished items are kept to be looked at; more than this only make the state file long.
_KEPT_FINISHED = 500


def queued(world: World, server_id: ServerId, kind: str, payload: Mapping[str, Any] | str, moment: Moment) -> World:
    """The world with one more item. A payload that is text is sent as it is, even if it is not JSON."""
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    item = WorkItem(ItemId(moment.new_id()), server_id, kind, text, moment.now_ms)
    return _pruned(replace(world, items=with_rows(world.items, item)))


def for_deployment(deployment_id: DeploymentId, container_id: str | None) -> Mapping[str, Any]:
    """The payload of a `stop` or `restart` item."""
    return {"deploymentId": deployment_id, "containerId": container_id or ""}


def listing(world: World, server_id: ServerId) -> Answer:
    """`GET /work-queue`: every item of this server that is still pending."""
    mine = [item for item in world.items.values() if item.server_id == server_id and item.status == "pending"]
    return Answer(200, {"items": [as_json(item) for item in mine]})


def as_json(item: WorkItem) -> Mapping[str, Any]:
    """An item as on the wire; nothing ever sets `startedAt` or `attempts`."""
    return {
        "id": item.id,
        "serverId": item.server_id,
        "type": item.type,
        "payload": item.payload,
        "status": item.status,
        "createdAt": iso(item.made_ms),
        "startedAt": None,
        "attempts": 0,
    }


def finish(world: World, body: Mapping[str, Any]) -> tuple[World, Answer]:
    """`POST /work-queue`: store the status as it came. An unknown id and another server's item are taken too, as in the original."""
    item_id, status = body.get("id"), body.get("status")
    for name, value in (("id", item_id), ("status", status)):
        if not isinstance(value, str) or not value:
            return world, refused(400, f"{name} must be a non-empty string")
    item = world.items.get(ItemId(str(item_id)))
    if item is not None:
        world = replace(world, items=with_rows(world.items, replace(item, status=str(status))))
    return world, Answer(200, {"ok": True})


def without_pending(world: World) -> World:
    """The world in which no server has work left: what aborting a rollout does."""
    pending = [item.id for item in world.items.values() if item.status == "pending"]
    return replace(world, items=without_rows(world.items, pending))


def iso(at_ms: int) -> str:
    """A time in UTC with milliseconds and a `Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _pruned(world: World) -> World:
    finished = [item.id for item in world.items.values() if item.status != "pending"]
    return replace(world, items=without_rows(world.items, finished[:-_KEPT_FINISHED]))
