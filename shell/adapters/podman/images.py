"""Podman's images: what is here and what it is, fetching one, reading one to see whether it is intact, taking one away."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio.to_thread

from core import podman as form
from core import podman_images, registry_auth
from core.deployment_images import StoredImage
from core.image import Image
from core.image_gc import Store
from core.podman_images import ImageUser
from shell import state_file
from shell.adapters.podman import service as api
from shell.adapters.podman.library import APIClient
from shell.adapters.podman.service import COMPONENT, RefusedError, Service
from shell.failure import AdapterError, understood
from shell.log import logger

_LARGEST_AUTH_FILE: Final = 1024**2
_READ_ALL_S: Final = 900.0  # Podman packs the whole image, gigabytes at times
# What keeps Podman from packing an image and says nothing of it.
_NOT_ITS_FAULT: Final = (
    "no space left on device",
    "disk quota exceeded",
    "read-only file system",
    "too many open files",
    "cannot allocate memory",
    "permission denied",
)


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """`registry_auth_file` None leaves logins to Podman's own files."""

    registry_auth_file: Path | None = None
    insecure_registries: frozenset[str] = frozenset()


class Images:
    """The images of one Podman. Every call may raise AdapterError."""

    def __init__(self, service: Service, settings: ImageSettings) -> None:
        self._service = service
        self._settings = settings

    async def find(self, image: Image) -> StoredImage | None:
        """What a reference means in the store; None when nothing has that name. Podman names an image only when all of it is here."""
        return await self._inspect(f"look for image {image}", form.reference(image))

    async def has(self, image_id: str) -> bool:
        """Whether an image of that id is in the store."""
        return await self._service.read(
            f"look for image {image_id[:12]}", partial(api.image_exists, reference=image_id)
        )

    async def pull(
        self, image: Image, *, timeout_s: float, on_answer: Callable[[], None] = lambda: None
    ) -> StoredImage:
        """Fetch an image from its registry, over verified TLS unless the registry is one of the insecure ones; what it is.

        An image that is here stays as it is when the pull fails. `on_answer` is called once the registry has answered.
        """
        insecure = image.registry in self._settings.insecure_registries
        params = {"reference": form.reference(image), "policy": "always", "tlsVerify": not insecure}
        what = f"pull image {image}"
        image_id = await self._service.pull(what, params, await self._login(image), timeout_s, on_answer)
        return await self._inspect(what, image_id) or StoredImage(image_id)

    async def fault(self, image_id: str) -> str | None:
        """Why the content of an image is not what was fetched, None when it is, or when that cannot be told. Reads all of it.

        Podman keeps a checksum of each file of a layer and compares it while it packs the image.
        """
        what = f"verify image {image_id[:12]}"
        try:
            await self._service.call(what, partial(_pack, image_id=image_id), _READ_ALL_S)
        except RefusedError as error:
            if not any(words in error.why.lower() for words in _NOT_ITS_FAULT):
                return error.why
            logger().warning("image not verified", image=image_id[:12], why=error.why, then="it is used as it is")
        except AdapterError as error:
            logger().warning("image not verified", image=image_id[:12], why=error.why, then="it is used as it is")
        return None

    async def users(self, image_id: str) -> tuple[ImageUser, ...]:
        """The containers that were made from an image, whoever made them."""
        what = f"look who uses image {image_id[:12]}"
        found = podman_images.parse_users(await self._service.read(what, api.list_containers), image_id)
        return understood(found, COMPONENT, what, "it is not removed")

    async def discard(self, image_id: str) -> None:
        """Remove an image with all its names; refused while a container uses it."""
        for one in (await self.store()).images:
            if one.id == image_id:
                for name in one.names or (image_id,):
                    await self.remove(name)

    async def store(self) -> Store:
        """What is there, and what containers use."""
        images = await self._service.read("list images", _list_images)
        containers = await self._service.read("list containers", api.list_containers)
        found = podman_images.parse_store(images, containers)
        return understood(found, COMPONENT, "list images", "none is removed")

    async def folder(self) -> str:
        """Where the images lie."""
        found = podman_images.parse_graph_root(await self._service.read("ask Podman where its images are", _info))
        return understood(found, COMPONENT, "ask Podman where its images are")

    async def remove(self, reference: str) -> None:
        """Take a name away, and the image with its last one. Podman refuses one that a container uses; one that is gone is fine."""
        await self._service.call(f"remove image {reference}", partial(_remove_image, reference=reference))

    async def _inspect(self, what: str, reference: str) -> StoredImage | None:
        raw = await self._service.read(what, partial(_inspect_image, reference=reference))
        if raw is None:
            return None
        found = podman_images.parse_image(raw)
        return understood(found, COMPONENT, what, "the container is not made")

    async def _login(self, image: Image) -> dict[str, str]:
        """The header with the credentials for an image, empty when there are none or Podman is to look for them."""
        path = self._settings.registry_auth_file
        if path is None:
            return {}
        what = f"read the login for {image.registry} from {path}"
        try:
            raw = await anyio.to_thread.run_sync(partial(state_file.read, path, _LARGEST_AUTH_FILE, follow=True))
        except OSError as error:
            raise AdapterError(COMPONENT, what, error.strerror or str(error), "the image is not pulled") from error
        login = understood(registry_auth.credentials(raw, image), COMPONENT, what, "the image is not pulled")
        return {} if login is None else {"X-Registry-Auth": registry_auth.header(login)}


def _list_images(client: APIClient) -> bytes:
    return api.body(client.get("/images/json", stream=True))


def _info(client: APIClient) -> bytes:
    return api.body(client.get("/info", stream=True))


def _inspect_image(client: APIClient, reference: str) -> bytes | None:
    return api.body_if_found(client.get(f"/images/{quote(reference, safe='')}/json", stream=True))


def _pack(client: APIClient, image_id: str) -> None:
    api.drain(
        client.get(f"/images/{image_id}/get", params={"format": "docker-archive"}, stream=True, timeout=_READ_ALL_S)
    )


def _remove_image(client: APIClient, reference: str) -> None:
    answer = client.delete(f"/images/{quote(reference, safe='')}", params={"force": False})
    if answer.status_code != 404:
        answer.raise_for_status()
