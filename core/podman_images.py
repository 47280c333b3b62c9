"""What Podman says of its images and of who uses them."""

from dataclasses import dataclass
from typing import Final

import msgspec
from returns.result import Failure, Result, Success

from core.containers import ContainerId, is_ours
from core.deployment_images import StoredImage
from core.image_gc import Store, Stored

_AT_REST: Final = frozenset(
    {"created", "configured", "initialized", "exited", "stopped", "dead"}
)  # no process of it lives


class _Image(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None


class _Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container that was made from an image."""

    id: ContainerId
    name: str
    is_ours: bool
    is_running: bool


class _Listed(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    state: str
    names: list[str] | None = None
    labels: dict[str, str] | None = None
    image_id: str = msgspec.field(name="ImageID", default="")


class _User(msgspec.Struct, frozen=True, rename="pascal"):
    image_id: str = msgspec.field(name="ImageID", default="")


class _Store(msgspec.Struct, frozen=True):
    graph_root: str = msgspec.field(name="graphRoot")


class _Info(msgspec.Struct, frozen=True):
    store: _Store


def parse_store(images: bytes, containers: bytes) -> Result[Store, str]:
    """The answers of `GET /images/json` and `GET /containers/json?all=true`."""
    try:
        found = msgspec.json.decode(images, type=list[_Image])
        users = msgspec.json.decode(containers, type=list[_User])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
    stored = tuple(
        Stored(one.id, tuple(dict.fromkeys((*(one.repo_tags or ()), *(one.repo_digests or ()))))) for one in found
    )
    return Success(Store(stored, frozenset(one.image_id for one in users if one.image_id)))


def parse_image(raw: bytes) -> Result[StoredImage, str]:
    """The answer of `GET /images/{name}/json`."""
    try:
        found = msgspec.json.decode(raw, type=_Inspected)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
    return Success(StoredImage(found.id.removeprefix("sha256:"), found.digest or None))


def parse_users(containers: bytes, image_id: str) -> Result[tuple[ImageUser, ...], str]:
    """Who uses an image, from the answer of `GET /containers/json?all=true`."""
    try:
        found = msgspec.json.decode(containers, type=list[_Listed])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
    return Success(
        tuple(
            ImageUser(
                ContainerId(one.id),
                one.names[0] if one.names else one.id[:12],
                is_ours(one.labels or {}),
                one.state.lower() not in _AT_REST,
            )
            for one in found
            if one.image_id == image_id
        )
    )


def parse_graph_root(raw: bytes) -> Result[str, str]:
    """The folder of Podman's images, from `GET /info`."""
    try:
        return Success(msgspec.json.decode(raw, type=_Info).store.graph_root)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
