"""Containers that are in Podman's storage and not in its database, after its service was killed between the two writes."""

from pathlib import Path

import pytest

from core.containers import ContainerId, ExpectedContainer
from core.podman import reference
from shell.adapters.podman import Podman
from shell.failure import AdapterError
from tests.lab.agent import Plane
from tests.lab.agents_podman import create, listed, made, page, podman_on, wanted
from tests.lab.doomed_agent import doomed_agent
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.relay import Relay
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio]

_PATIENCE_S = 60
_DATABASES = ("libpod/bolt_state.db", "db.sql")  # of Podman 4, and of 5


class Database:
    """Podman's database of a store, as it is now, to be put back later."""

    def __init__(self, store: PodmanStore) -> None:
        self._store = store
        self._path = next(path for one in _DATABASES if (path := store.directory / "storage" / one).exists())
        self._saved = self._path.read_bytes()

    @property
    def is_read_anew(self) -> bool:
        """Whether Podman reads the file anew for each request."""
        return self._path.suffix == ".db"

    def put_back(self) -> None:
        self._path.write_bytes(self._saved)

    def put_back_with_a_new_service(self) -> None:
        self._store.kill()
        self.put_back()
        self._store.start()


async def cut_off(podman: Podman, store: PodmanStore, container: ExpectedContainer) -> ContainerId:
    """A container of which Podman has written the storage and not the database."""
    await podman.ensure_network()
    before = Database(store)
    container_id = await podman._create(container, {}, reference(container.image))
    before.put_back_with_a_new_service()
    assert await listed(podman) == ()
    assert container_id in stored(store)
    return container_id


def stored(store: PodmanStore) -> list[str]:
    """The ids of all containers in the storage."""
    return store.cli("ps", "--all", "--external", "--quiet", "--no-trunc").split()


async def test_its_name_is_freed_and_nothing_else_goes(podman: Podman, store: PodmanStore) -> None:
    """The service is made; a working container of buildah's and what is left of another name stay."""
    web = store.load(image("web"))
    container = wanted(store, web)
    other = await cut_off(podman, store, wanted(store, web, 6))
    left = await cut_off(podman, store, container)
    store.run(("buildah", "from", "--name", "somebodys", web))
    before = stored(store)
    container_id = await made(podman, container)
    assert page(store.address(5)) == "v1\n"
    assert sorted(stored(store)) == sorted({*before, container_id} - {left})
    assert other in before
    assert len(before) == 3


async def test_another_programs_is_left_alone(podman: Podman, store: PodmanStore) -> None:
    """Also with a name of ours; where it can be seen is said."""
    web = store.load(image("web"))
    container = wanted(store, web)
    store.run(("buildah", "from", "--name", container.name, web))
    before = stored(store)
    await podman.ensure_network()
    with pytest.raises(AdapterError, match=r"already in use .*left alone; `podman ps --all --external` shows"):
        await create(podman, container)
    assert stored(store) == before


async def test_a_creation_that_is_under_way(podman: Podman, store: PodmanStore) -> None:
    """Podman comes to its second write while it is waited for: the container is a known one then, and handled as such."""
    container = wanted(store, store.load(image("web")))
    await podman.ensure_network()
    before = Database(store)
    if not before.is_read_anew:
        pytest.skip("this Podman would not see its database change")
    early = await podman._create(container, {}, reference(container.image))
    after = Database(store)
    before.put_back_with_a_new_service()
    looks = 0

    def finish_at_the_second(chunk: bytes) -> bool:
        nonlocal looks
        if b"external=" in chunk.split(b"\r\n", 1)[0]:
            looks += 1
            if looks == 2:
                after.put_back()
        return False

    with Relay(store.socket_path, trips=finish_at_the_second, path=store.socket_path.with_name("relay.sock")) as relay:
        behind = podman_on(store, socket=Path(relay.address))
        await create(behind, container)
        await behind.aclose()
    assert looks == 2
    (one,) = await listed(podman)
    assert (one.state, one.id != early) == ("running", True)
    assert stored(store) == [one.id]
    assert page(store.address(5)) == "v1\n"


def test_an_agent_heals_it(plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path) -> None:
    """Everything is killed during the creation; the deployment runs afterwards without anybody's help."""
    plane.want({"web": {"image": registry.offer("web")}})
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    options = ("--insecure-registry", registry.address, *unmanaged)
    before = Database(store)
    with doomed_agent(tmp_path / "agent", plane.url, store.socket_path, b"/start", *options) as doomed:
        doomed.arm()
        doomed.agent.start(plane.token("one", store.subnet_id))
        assert doomed.wait_killed(), doomed.agent.last_words()
        before.put_back_with_a_new_service()
        (left,) = stored(store)
        doomed.agent.start()
        wait_for(lambda: [one["status"] for one in plane.lab("deployments")] == ["running"], _PATIENCE_S, "the service")
        (row,) = plane.lab("deployments")
        assert page(row["ipAddress"]) == "v1\n"
        assert stored(store) == [row["containerId"]] != [left]
