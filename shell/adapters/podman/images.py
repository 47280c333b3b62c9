"""Podman's images as a whole: what is there, who uses it, where it lies, and taking one away."""

from functools import partial
from urllib.parse import quote

from returns.pipeline import is_successful

from core import podman_images
from core.image_gc import Store
from shell.adapters.podman import service as api
from shell.adapters.podman.library import APIClient
from shell.adapters.podman.service import COMPONENT, Service
from shell.failure import AdapterError


class Images:
    """The images of one Podman. Every call may raise AdapterError."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def store(self) -> Store:
        """What is there, and what containers use."""
        images = await self._service.read("list images", _list_images)
        containers = await self._service.read("list containers", api.list_containers)
        found = podman_images.parse_store(images, containers)
        if not is_successful(found):
            raise AdapterError(COMPONENT, "list images", found.failure(), "none is removed")
        return found.unwrap()

    async def folder(self) -> str:
        """Where the images lie."""
        found = podman_images.parse_graph_root(await self._service.read("ask Podman where its images are", _info))
        if not is_successful(found):
            raise AdapterError(COMPONENT, "ask Podman where its images are", found.failure())
        return found.unwrap()

    async def remove(self, reference: str) -> None:
        """Take a name away, and the image with its last one. Podman refuses one that a container uses; one that is gone is fine."""
        await self._service.call(f"remove image {reference}", partial(_remove_image, reference=reference))


def _list_images(client: APIClient) -> bytes:
    return api.body(client.get("/images/json", stream=True))


def _info(client: APIClient) -> bytes:
    return api.body(client.get("/info", stream=True))


def _remove_image(client: APIClient, reference: str) -> None:
    answer = client.delete(f"/images/{quote(reference, safe='')}", params={"force": False})
    if answer.status_code != 404:
        answer.raise_for_status()
