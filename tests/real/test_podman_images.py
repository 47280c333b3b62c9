"""Images on the real Podman: what is here, what comes from where, and what is said when it does not come."""

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from core import containers
from core.image import Image
from shell.adapters.podman import Podman
from shell.failure import AdapterError
from tests.builders import an_image
from tests.lab.agents_podman import listed, made, page, podman_on, wanted
from tests.lab.images import custom_image, image
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import PASSWORD, USER, Registry
from tests.lab.relay import Relay

pytestmark = [pytest.mark.real, pytest.mark.anyio]

LIMIT_S = 30


@pytest.fixture
async def podman(store: PodmanStore, registry: Registry) -> AsyncIterator[Podman]:
    adapter = podman_on(store, registry.address)
    yield adapter
    await adapter.aclose()


async def test_an_image_is_pulled(podman: Podman, registry: Registry) -> None:
    """And is here from then on; only the tag that was asked for."""
    wished = an_image(registry.offer("web"))
    assert await podman.images.find(wished) is None
    await podman.images.pull(wished, timeout_s=LIMIT_S)
    assert await podman.images.find(wished) is not None
    assert await podman.images.find(an_image(f"{registry.address}/web:v2")) is None


@pytest.mark.parametrize("tag", ["", ":v1"])
async def test_by_digest(podman: Podman, store: PodmanStore, registry: Registry, tag: str) -> None:
    """L5: the container that comes of it matches what was asked for, with and without a tag beside the digest. L9."""
    reference = registry.offer("web")
    wished = f"{reference.removesuffix(':v1')}{tag}@{registry.digest(reference)}"
    assert await podman.images.find(an_image(wished)) is None
    await podman.images.pull(an_image(wished), timeout_s=LIMIT_S)
    assert await podman.images.find(an_image(wished)) is not None
    container = wanted(store, wished)
    await made(podman, container)
    assert containers.image_matches(container, (await listed(podman))[0])


async def test_an_image_that_does_not_exist(podman: Podman, registry: Registry) -> None:
    """An error although Podman answers 200."""
    with pytest.raises(
        AdapterError, match=f"could not pull image {registry.address}/web:none: .*manifest unknown"
    ) as caught:
        await podman.images.pull(an_image(f"{registry.address}/web:none"), timeout_s=LIMIT_S)
    assert "\n" not in str(caught.value)


async def test_a_dead_registry_harms_nothing_that_is_here(podman: Podman, store: PodmanStore, tmp_path: Path) -> None:
    """L19: a container of an image that is here is made all the same; the failed pull leaves the image."""
    with Registry(tmp_path / "registry") as own:
        own_podman = podman_on(store, own.address)
        wished = own.offer("web")
        await own_podman.images.pull(an_image(wished), timeout_s=LIMIT_S)
        own.kill()
        with pytest.raises(AdapterError, match="connection refused"):
            await own_podman.images.pull(an_image(wished), timeout_s=LIMIT_S)
        assert await own_podman.images.find(an_image(wished)) is not None
        await made(own_podman, wanted(store, wished))
        assert page(store.address(5)) == "v1\n"
        await own_podman.aclose()


async def test_tls_is_verified_unless_the_registry_is_named(store: PodmanStore, registry: Registry) -> None:
    """L39: a registry without TLS is refused, also one that the server's own configuration would trust."""
    strict = podman_on(store, "other.example:5000", registry.address.partition(":")[0])
    with pytest.raises(AdapterError, match="HTTP response to HTTPS client"):
        await strict.images.pull(an_image(registry.offer("web")), timeout_s=LIMIT_S)
    assert await strict.images.find(an_image(registry.offer("web"))) is None
    await strict.aclose()


async def test_a_moving_tag_moves_with_a_pull(podman: Podman, store: PodmanStore, registry: Registry) -> None:
    """And only then: a container made before keeps what it was made of."""
    moving = registry.retag(registry.offer("web", "v1"), "latest")
    await podman.images.pull(an_image(moving), timeout_s=LIMIT_S)
    await made(podman, wanted(store, moving, 5))
    registry.retag(registry.offer("web", "v2"), "latest")
    await podman.images.pull(an_image(moving), timeout_s=LIMIT_S)
    await made(podman, wanted(store, moving, 6))
    assert (page(store.address(5)), page(store.address(6))) == ("v1\n", "v2\n")
    assert all(one.image == an_image(moving) for one in await listed(podman))


async def test_logins_from_a_file(store: PodmanStore, tmp_path: Path) -> None:
    """L37: what a wrong login says does not show it."""
    wrong = tmp_path / "wrong.json"
    with Registry(tmp_path / "registry", protected=True) as guarded:
        wished = an_image(guarded.offer("web"))
        wrong.write_text(guarded.auth_file.read_text().replace("bGFi", "TEFC"))
        assert json.loads(wrong.read_text()) != json.loads(guarded.auth_file.read_text())
        for file in (None, wrong):
            with pytest.raises(AdapterError, match=r"unauthorized|authentication required") as caught:
                await podman_on(store, guarded.address, registry_auth_file=file).images.pull(wished, timeout_s=LIMIT_S)
            assert PASSWORD not in str(caught.value)
            assert USER.upper() not in str(caught.value).replace("LABEL", "")
        await podman_on(store, guarded.address, registry_auth_file=guarded.auth_file).images.pull(
            wished, timeout_s=LIMIT_S
        )
    assert await podman_on(store).images.find(wished) is not None


@pytest.mark.parametrize("text", [None, "not json"])
async def test_a_file_without_logins(store: PodmanStore, registry: Registry, tmp_path: Path, text: str | None) -> None:
    """The path is in the message, and the registry."""
    file = tmp_path / "auth.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(AdapterError, match=f"read the login for {registry.address} from {file}"):
        await podman_on(store, registry_auth_file=file).images.pull(an_image(registry.offer("web")), timeout_s=LIMIT_S)


async def test_a_pull_that_hangs_ends(store: PodmanStore, registry: Registry) -> None:
    """L13: within its limit; other calls go on meanwhile, and the same pull works once the registry answers."""
    with Relay((registry.host, registry.port)) as relay:
        podman = podman_on(store, relay.address)
        wished = an_image(registry.offer("web").replace(registry.address, relay.address))
        relay.hang()
        async with anyio.create_task_group() as tasks:
            pulled = anyio.Event()
            tasks.start_soon(_expect_too_long, podman, wished, pulled)
            assert await listed(podman) == ()
            assert await podman.images.find(wished) is None
            assert not pulled.is_set()
        relay.cut()
        relay.flow()
        await podman.images.pull(wished, timeout_s=LIMIT_S)
        assert await podman.images.find(wished) is not None
        await podman.aclose()


async def test_a_full_disk(store: PodmanStore, registry: Registry, tmp_path: Path) -> None:
    """Said as such; the image is not here, and what runs goes on."""
    big = registry.push(custom_image("big", "v1", ("true",), payload_bytes=16_000_000))
    with PodmanStore(tmp_path / "small", disk_size_bytes=14_000_000) as small:
        podman = podman_on(small, registry.address)
        await made(podman, wanted(small, small.load(image("web"))))
        with pytest.raises(AdapterError, match="no space left on device"):
            await podman.images.pull(an_image(big), timeout_s=LIMIT_S)
        assert await podman.images.find(an_image(big)) is None
        assert [one.state for one in await listed(podman)] == ["running"]
        assert page(small.address(5)) == "v1\n"
        await podman.aclose()


async def test_podman_dies_during_a_pull(store: PodmanStore) -> None:
    """An answer that ends early is no success; half an image is not here."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        podman = podman_on(store, address)
        wished = an_image(f"{address}/web:v1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_expect_broken, podman, wished)
            caller, _ = await anyio.to_thread.run_sync(silent.accept)
            store.kill()
        caller.close()
        store.start()
        assert await podman.images.find(wished) is None
        await podman.aclose()


async def _expect_too_long(podman: Podman, wished: Image, pulled: anyio.Event) -> None:
    with pytest.raises(AdapterError, match="no answer"):  # neither within the limit nor, as long, in a single reading
        await podman.images.pull(wished, timeout_s=10)
    pulled.set()


async def _expect_broken(podman: Podman, wished: Image) -> None:
    with pytest.raises(AdapterError, match=r"pull image .*: the connection broke"):
        await podman.images.pull(wished, timeout_s=LIMIT_S)


async def test_images_as_a_whole(podman: Podman, store: PodmanStore, registry: Registry) -> None:
    """L46: what is there and who uses it; one in use is not removed, one that is gone is fine."""
    used, idle = registry.offer("web"), registry.offer("env")
    for reference in (used, idle):
        await podman.images.pull(an_image(reference), timeout_s=LIMIT_S)
    await made(podman, wanted(store, used))
    found = await podman.images.store()
    by_name = {name: one.id for one in found.images for name in one.names}
    assert by_name[used] in found.used
    assert by_name[idle] not in found.used
    assert Path(await podman.images.folder()).is_absolute()
    with pytest.raises(AdapterError, match="in use"):
        await podman.images.remove(used)
    await podman.images.remove(idle)
    await podman.images.remove(idle)
    assert await podman.images.find(an_image(idle)) is None
    assert await podman.images.find(an_image(used)) is not None
