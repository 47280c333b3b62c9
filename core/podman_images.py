"""What Podman says of its images and of who uses them."""

import msgspec
from returns.result import Failure, Result, Success

from core.image_gc import Store, Stored


class _Image(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None


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


def parse_graph_root(raw: bytes) -> Result[str, str]:
    """The folder of Podman's images, from `GET /info`."""
    try:
        return Success(msgspec.json.decode(raw, type=_Info).store.graph_root)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
