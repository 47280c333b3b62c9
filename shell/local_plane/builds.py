"""Builds: offered, claimed once, reported, cancelled; and what a completed one deploys. Transitions are not guarded, as in the original."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from shell.local_plane.placement import redeployed
from shell.local_plane.world import (
    Answer,
    Build,
    BuildId,
    Moment,
    RolloutStatus,
    ServerId,
    Service,
    World,
    refused,
    service_named,
    with_rows,
    with_service,
    without_rows,
)

_FINAL = frozenset({"completed", "failed", "cancelled"})
# Builds that ended are kept to be looked at, no more than this.
_KEPT_ENDED = 100
_NOT_MINE = "Build not found or not claimed by this agent"
_HOST_REFUSES = "Failed to get GitHub installation token"


def created(world: World, body: Mapping[str, Any], moment: Moment) -> tuple[World, Answer]:
    """A new build of a service that is named by key or id."""
    service = service_named(world, str(body.get("service", "")))
    if service is None:
        return world, refused(404, f"no service {body.get('service')!r}")
    build = Build(
        id=BuildId(moment.new_id()),
        service_id=service.id,
        commit_sha=str(body.get("commitSha") or "HEAD"),
        commit_message=_text(body.get("commitMessage")),
        branch=str(body.get("branch") or "main"),
        github_repo_id=_text(body.get("githubRepoId")),
        token_fails=body.get("tokenFails") is True,
        made_ms=moment.now_ms,
    )
    ended = [key for key, other in world.builds.items() if other.status in _FINAL]
    world = replace(world, builds=without_rows(world.builds, ended[:-_KEPT_ENDED]))
    return _with(world, build), Answer(200, as_json(build))


def pending(world: World) -> Answer:
    """`GET /pending-builds`: the oldest one of the whole installation."""
    waiting = [build for build in world.builds.values() if build.status == "pending"]
    if not waiting:
        return Answer(200, {"build": None})
    build = min(waiting, key=lambda build: build.made_ms)
    return Answer(200, {"build": {**_offer(build), "githubRepoId": build.github_repo_id}})


def claim(world: World, build_id: str, server_id: ServerId, moment: Moment) -> tuple[World, Answer]:
    """`POST /builds/{id}/claim`. An error after the 409 check comes with the claim stored, as in the original."""
    build = world.builds.get(BuildId(build_id))
    if build is None or build.status != "pending":
        return world, refused(409, "Build already claimed or not found")
    build = replace(build, status="claimed", claimed_by=server_id, claimed_ms=moment.now_ms)
    service = world.services.get(build.service_id)
    if service is None or service.removed:
        return _with(world, build), refused(404, "Service not found")
    if service.spec.repository is None:
        return _with(world, build), refused(400, "No repository configured")
    if build.token_fails:
        return _with(world, replace(build, status="failed", error=_HOST_REFUSES)), refused(500, _HOST_REFUSES)
    image_uri = _image_uri(world, build)
    if image_uri is None:
        return _with(world, build), refused(500, "Registry host is not configured")
    answer = {
        "build": {**_offer(build), "projectId": world.project},
        "cloneUrl": clone_url(service.spec.repository.url, service.spec.repository.token),
        "imageUri": image_uri,
        "secrets": dict(service.spec.env),
    }
    return _with(world, build), Answer(200, answer)


def report(
    world: World, build_id: str, server_id: ServerId, body: Mapping[str, Any], moment: Moment
) -> tuple[World, Answer]:
    """`POST /builds/{id}/status`."""
    build = world.builds.get(BuildId(build_id))
    if build is None or build.claimed_by != server_id:
        return world, refused(404, _NOT_MINE)
    if build.status == "cancelled":
        return world, Answer(200, {"ok": True, "cancelled": True})
    status, error = body.get("status"), body.get("error")
    if not isinstance(status, str) or not status:
        return world, refused(400, "status must be a non-empty string")
    if "\0" in status or "\0" in str(error):
        return world, refused(400, "status and error must not contain NUL")
    build = replace(
        build,
        status=status,
        error=str(error) if error else build.error,
        started_ms=build.started_ms or (moment.now_ms if status == "cloning" else None),
        completed_ms=moment.now_ms if status in ("completed", "failed") else build.completed_ms,
    )
    world = _with(world, build)
    return (_released(world, build, moment) if status == "completed" else world), Answer(200, {"ok": True})


def status_of(world: World, build_id: str) -> Answer:
    """`GET /builds/{id}/status`, which every registered server may read."""
    build = world.builds.get(BuildId(build_id))
    return Answer(200, {"status": build.status}) if build else refused(404, "Build not found")


def cancelled(world: World, build_id: str, moment: Moment) -> tuple[World, Answer]:
    """The user cancels a build that has not ended."""
    build = world.builds.get(BuildId(build_id))
    if build is None:
        return world, refused(404, "Build not found")
    if build.status in _FINAL:
        return world, refused(409, f"the build is {build.status} already")
    return _with(world, replace(build, status="cancelled", completed_ms=moment.now_ms)), Answer(200, {"ok": True})


def as_json(build: Build) -> Mapping[str, Any]:
    """A build as the lab's lists show it."""
    return {
        **_offer(build),
        "status": build.status,
        "claimedBy": build.claimed_by,
        "claimedAtMs": build.claimed_ms,
        "startedAtMs": build.started_ms,
        "completedAtMs": build.completed_ms,
        "imageUri": build.image_uri,
        "error": build.error,
    }


def clone_url(url: str, token: str | None) -> str:
    """Where to clone from: a web address ends in `.git` and carries the token; anything else stays as it is."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    path = parts.path if parts.path.endswith(".git") else f"{parts.path.rstrip('/')}.git"
    host = f"x-access-token:{token}@{parts.netloc}" if token else parts.netloc
    return urlunsplit(parts._replace(netloc=host, path=path))


def _offer(build: Build) -> Mapping[str, Any]:
    return {
        "id": build.id,
        "commitSha": build.commit_sha,
        "commitMessage": build.commit_message,
        "branch": build.branch,
        "serviceId": build.service_id,
    }


def _image_uri(world: World, build: Build) -> str | None:
    tag = "latest" if build.commit_sha == "HEAD" else build.commit_sha
    return f"{world.registry}/{world.project}/{build.service_id}:{tag}" if world.registry else None


def _released(world: World, build: Build, moment: Moment) -> World:
    """The service's image is the build's from now on, and it is deployed unless a deployment is going on."""
    image_uri = _image_uri(world, build)
    service = world.services.get(build.service_id)
    if image_uri is None or service is None or service.removed:
        return _with(world, replace(build, error="Deployment failed: Error: service or registry host not found"))
    busy = _being_deployed(world, service)
    error = "Deployment failed: Error: A deployment is already in progress" if busy else build.error
    world = _with(world, replace(build, image_uri=image_uri, error=error))
    service = replace(service, built_image=image_uri)
    return with_service(world, service) if busy else redeployed(world, service, moment)


def _being_deployed(world: World, service: Service) -> bool:
    ongoing = (rollout for rollout in world.rollouts.values() if rollout.status is RolloutStatus.IN_PROGRESS)
    return any(rollout.service_id == service.id for rollout in ongoing)


def _with(world: World, build: Build) -> World:
    return replace(world, builds=with_rows(world.builds, build))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
