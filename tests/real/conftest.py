"""Real components for the tests in this folder: a Podman store, a registry with the lab's images, a switch.

Every test process has a network of its own, so that tests may run side by side.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shell.adapters.podman import Podman
from tests.lab.agent import Agent, Plane
from tests.lab.agents_podman import podman_on
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network
from tests.lab.registry import Registry
from tests.lab.switch import Switch


@pytest.fixture(scope="session", autouse=True)
def private_network() -> None:
    """This process alone on a loopback of its own, for all of its tests."""
    enter_private_network()


@pytest.fixture(scope="session")
def registry(private_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry on loopback; `registry.offer("web", "v1")` is the reference of an image in it."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def module_store(
    private_network: None, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PodmanStore]:
    """One Podman for all tests of a module, which trusts `registry`. For tests that do not mind each other."""
    with PodmanStore(tmp_path_factory.mktemp("store")) as running:
        running.trust_registry(registry.address)
        yield running


@pytest.fixture
def store(private_network: None, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanStore]:
    """A new Podman for one test (0.1 s to make, 0.2 s to take away), which trusts `registry`."""
    with PodmanStore(tmp_path_factory.mktemp("store")) as running:
        running.trust_registry(registry.address)
        yield running


@pytest.fixture
def anyio_backend() -> str:
    """The agent's."""
    return "asyncio"


@pytest.fixture
async def podman(store: PodmanStore) -> AsyncIterator[Podman]:
    """The agent's adapter of `store`."""
    adapter = podman_on(store)
    yield adapter
    await adapter.aclose()


@pytest.fixture
def switch(private_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """A network for `LabServer`s."""
    with Switch(tmp_path_factory.mktemp("switch")) as running:
        yield running


@pytest.fixture
def plane(private_network: None, tmp_path: Path) -> Iterator[Plane]:
    """A control plane of its own."""
    with Plane(tmp_path / "plane") as running:
        yield running


@pytest.fixture
def agent(plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path) -> Iterator[Agent]:
    """An agent that is not yet started."""
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    options = ("--podman-socket", str(store.socket_path), "--insecure-registry", registry.address, *unmanaged)
    made = Agent(tmp_path / "agent", plane.url, options)
    yield made
    made.kill()
