"""The agent's own Podman adapter over a store of the lab, and containers to make with it."""

import time
from contextlib import suppress
from typing import Any

import httpx

from core.containers import ActualContainer, ContainerId, DeploymentId, ExpectedContainer, ServiceId
from core.podman import reference
from shell.adapters.podman import Podman, PodmanSettings
from tests.builders import an_expected_container, an_image
from tests.lab.podman_store import PodmanStore
from tests.lab.wait import PATIENCE_S, wait_for


def podman_on(store: PodmanStore, *insecure: str, **changes: Any) -> Podman:
    """The adapter as the agent of this store has it; `insecure` are registries without TLS."""
    settings: dict[str, Any] = {
        "socket": store.socket_path,
        "subnet_id": store.subnet_id,
        "volumes_dir": store.directory / "volumes",
        "insecure_registries": frozenset(insecure),
    }
    return Podman(PodmanSettings(**settings | changes))


def wanted(store: PodmanStore, reference: str, host: int = 5, **changes: Any) -> ExpectedContainer:
    """A deployment at the store's address that ends in `host`, which is in its ids too."""
    plain: dict[str, Any] = {
        "name": f"service-{host}-deploy",
        "deployment_id": DeploymentId(f"deployment-{host}"),
        "service_id": ServiceId(f"service-{host}"),
        "image": an_image(reference),
        "address": store.address(host),
        "ports": (),
    }
    return an_expected_container(**plain | changes)


async def listed(podman: Podman) -> tuple[ActualContainer, ...]:
    """All containers of ours now."""
    return await podman.containers(time.time())


async def made(podman: Podman, container: ExpectedContainer, env: dict[str, str] | None = None) -> ContainerId:
    """Make the network and the container; its id."""
    await podman.ensure_network()
    await create(podman, container, env)
    return next(one.id for one in await listed(podman) if one.name == container.name)


async def create(podman: Podman, container: ExpectedContainer, env: dict[str, str] | None = None) -> None:
    """Make the container, from whatever its image's name means in the store."""
    await podman.create_and_start(container, env or {}, reference(container.image))


def page(address: str, path: str = "") -> str:
    """A page of the container at an address, as soon as it answers."""

    def fetch() -> httpx.Response | None:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://{address}/{path}", timeout=PATIENCE_S)
        return None

    answer = wait_for(fetch, PATIENCE_S, f"a page from {address}")
    assert answer is not None
    return answer.text
