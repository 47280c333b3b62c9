"""Addresses that Podman keeps for nobody, after its service was killed in the middle of a container's set-up: freed, and no others."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from core.containers import ContainerId, ExpectedContainer
from core.podman import reference
from shell.adapters.podman import Podman
from shell.failure import AdapterError
from tests.lab.agent import Plane
from tests.lab.agents_podman import create, listed, made, page, podman_on, wanted
from tests.lab.container_processes import processes_of
from tests.lab.doomed_agent import DoomedAgent, doomed_agent
from tests.lab.halting_netavark import HaltingNetavark
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.process import LabError
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio]

_PATIENCE_S = 60


@pytest.fixture
def netavark(store: PodmanStore) -> HaltingNetavark:
    return HaltingNetavark(store)


@pytest.fixture
async def podman(store: PodmanStore, netavark: HaltingNetavark) -> AsyncIterator[Podman]:
    adapter = podman_on(store)
    yield adapter
    await adapter.aclose()


def lose(store: PodmanStore, netavark: HaltingNetavark, name: str, *, alone: bool = False) -> None:
    """Start a container, and have the service killed in the middle of it, `alone` or with netavark."""
    netavark.halt()
    # One request and no more: `podman --remote` repeats it when the connection breaks, and has the container started by the next service.
    request = ("--request", "POST", f"http://podman/v4.0.0/libpod/containers/{name}/start")
    command = store.spawn(
        ("curl", "--silent", "--unix-socket", str(store.socket_path), *request), store.directory / "start.log"
    )
    netavark.kill_service_within(alone=alone)
    command.kill()


async def created(podman: Podman, store: PodmanStore, container: ExpectedContainer) -> ContainerId:
    """A container that exists and has never been started."""
    await podman.ensure_network()
    made_id = await podman._create(container, {}, reference(container.image))
    assert [one.state for one in await listed(podman) if one.id == made_id] == ["created"]
    return made_id


async def test_an_address_kept_for_the_container_itself(
    podman: Podman, store: PodmanStore, netavark: HaltingNetavark
) -> None:
    """L49: freed by Podman itself, with the container, whose process is not started for it; others keep theirs, dynamic ones too."""
    reference = store.load(image("web"))
    neighbour = await made(podman, wanted(store, reference, 6))
    store.cli("network", "create", "others")
    for name in ("one", "two"):
        store.cli("run", "--detach", f"--name={name}", "--network=others", reference)
    container = wanted(store, reference)
    container_id = await created(podman, store, container)
    lose(store, netavark, container.name)
    with pytest.raises(AdapterError, match="was kept by Podman for container service-5-deploy"):
        await podman.start(container_id)
    assert [one.id for one in await listed(podman)] == [neighbour]
    await made(podman, container)
    assert (page(store.address(5)), page(store.address(6))) == ("v1\n", "v1\n")
    kept = {
        store.cli("inspect", "--format", "{{.NetworkSettings.Networks.others.IPAddress}}", one)
        for one in ("one", "two")
    }
    for number in range(3):
        store.cli("run", "--detach", f"--name=new-{number}", "--network=others", reference)
        fresh = store.cli("inspect", "--format", "{{.NetworkSettings.Networks.others.IPAddress}}", f"new-{number}")
        assert fresh not in kept, "nothing of another network is freed"
    taken = store.spawn(
        ("podman", "run", "--rm", "--network=techulus", f"--ip={store.address(6)}", reference),
        store.directory / "taken.log",
    )
    wait_for(lambda: "already allocated" in taken.last_words(), _PATIENCE_S, "the neighbour's address to be refused")


async def test_one_that_is_removed_before_it_ever_ran(
    podman: Podman, store: PodmanStore, netavark: HaltingNetavark
) -> None:
    """L49: also by an orphan's removal nothing stays behind."""
    container = wanted(store, store.load(image("web")))
    container_id = await created(podman, store, container)
    lose(store, netavark, container.name)
    await podman.stop_and_remove(container_id)
    assert (await listed(podman), processes_of(container_id)) == ((), [])
    await made(podman, container)
    assert page(store.address(5)) == "v1\n"


async def test_one_that_ran_and_is_removed_after_its_next_start_was_cut_off(
    podman: Podman, store: PodmanStore, netavark: HaltingNetavark
) -> None:
    """L49: Podman calls it exited, as any other that has ended; its address is free all the same."""
    container = wanted(store, store.load(image("web")))
    container_id = await made(podman, container)
    store.cli("stop", "--time=0", container.name)
    lose(store, netavark, container.name)
    assert [one.state for one in await listed(podman)] == ["exited"]
    await podman.stop_and_remove(container_id)
    await made(podman, container)
    assert page(store.address(5)) == "v1\n"


async def test_an_address_that_podman_chose(podman: Podman, store: PodmanStore, netavark: HaltingNetavark) -> None:
    """L49: with a network of few addresses, as many containers get one afterwards as before."""
    reference = store.load(image("web"))
    _network_of_few(store)
    before = _room(store, reference)
    container = wanted(store, reference, address=None, ports=())
    container_id = await created(podman, store, container)
    lose(store, netavark, container.name)
    await podman.remove_forced(container_id)
    assert (_room(store, reference), before > 1) == (before, True)


@pytest.mark.parametrize("has_run", [False, True])
async def test_an_address_that_podman_chose_and_another_start(
    podman: Podman, store: PodmanStore, netavark: HaltingNetavark, has_run: bool
) -> None:
    """L49: with the next start Podman would choose another one, and forget whose the first is."""
    reference = store.load(image("web"))
    _network_of_few(store)
    before = _room(store, reference)
    container = wanted(store, reference, address=None, ports=())
    container_id = await created(podman, store, container)
    if has_run:
        await podman.start(container_id)
        store.cli("stop", "--time=0", container.name)
    lose(store, netavark, container.name)
    assert [one.state for one in await listed(podman)] == ["exited" if has_run else "created"]
    with pytest.raises(AdapterError, match=r"its last start was cut off: .* it has been removed, and is made anew"):
        await podman.start(container_id)
    container_id = await made(podman, container)
    store.cli("stop", "--time=0", container.name)
    await podman.start(container_id)
    await podman.stop_and_remove(container_id, grace_s=0)
    assert _room(store, reference) == before


async def test_a_set_up_that_is_finished_for_nobody(
    podman: Podman, store: PodmanStore, netavark: HaltingNetavark
) -> None:
    """L49: only the service was killed, and netavark went on: one place in the bridge has the address in the end, and it answers."""
    container = wanted(store, store.load(image("web")))
    await created(podman, store, container)
    lose(store, netavark, container.name, alone=True)
    assert _links_with(store, store.address(5)) == 1, "else this netavark finishes nothing, and this test is not needed"
    with pytest.raises(AdapterError, match="was kept by Podman"):
        await podman.start((await listed(podman))[0].id)
    neighbour = await made(podman, wanted(store, store.load(image("web")), 6))
    await made(podman, container)
    assert _links_with(store, store.address(5)) == 1
    assert (page(store.address(5)), page(store.address(6))) == ("v1\n", "v1\n")
    assert processes_of(neighbour)


async def test_the_service_dies_while_a_new_container_is_started(
    podman: Podman, store: PodmanStore, netavark: HaltingNetavark
) -> None:
    """L49: what the failed attempt has left behind is removed, and its address is free for the next."""
    container = wanted(store, store.load(image("web")))
    await podman.ensure_network()
    netavark.halt()
    failures: list[AdapterError] = []

    async def make() -> None:
        try:
            await create(podman, container)
        except AdapterError as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await anyio.to_thread.run_sync(netavark.kill_service_within)
    assert len(failures) == 1
    for one in await listed(podman):
        await podman.stop_and_remove(one.id)
    await made(podman, container)
    assert page(store.address(5)) == "v1\n"


async def test_one_that_is_gone(podman: Podman, store: PodmanStore, netavark: HaltingNetavark) -> None:
    """L49: a person has removed the container, with which Podman could have been told; the cause and the cures are said."""
    container = wanted(store, store.load(image("web")))
    container_id = await created(podman, store, container)
    lose(store, netavark, container.name)
    # The start that was killed may have left this mounted, and Podman does not remove what is.
    store.run(
        ("sh", "-c", f"umount --lazy {store.directory}/storage/overlay-containers/{container_id}/userdata/shm || true")
    )
    store.cli("rm", container_id)
    with pytest.raises(AdapterError, match=f"is kept by Podman for container {container_id}, which is gone; .*ipam.db"):
        await create(podman, container)


_STEPS = (b"/rename?", b"/disconnect", b"/init", b"/connect", b"DELETE /v")


@pytest.fixture(params=_STEPS, ids=["rename", "disconnect", "init", "connect", "delete"])
def doomed(
    request: pytest.FixtureRequest, plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path
) -> Iterator[DoomedAgent]:
    """An agent that is killed, once armed, before a step of the cure reaches Podman."""
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    options = ("--insecure-registry", registry.address, *unmanaged)
    with doomed_agent(tmp_path / "agent", plane.url, store.socket_path, request.param, *options) as made_one:
        yield made_one


def test_the_agent_is_killed_at_each_step_of_the_cure(
    plane: Plane, doomed: DoomedAgent, store: PodmanStore, netavark: HaltingNetavark, registry: Registry
) -> None:
    """L49: the next start goes on, the service runs with its network, and nothing is left over."""
    netavark.halt()
    plane.want({"web": {"image": registry.offer("web")}})
    doomed.arm()
    doomed.agent.start(plane.token("one", store.subnet_id))
    netavark.kill_service_within()
    assert doomed.wait_killed(), doomed.agent.last_words()
    doomed.agent.start()
    wait_for(lambda: [one["status"] for one in plane.lab("deployments")] == ["running"], _PATIENCE_S, "the service")
    (row,) = plane.lab("deployments")
    assert page(row["ipAddress"]) == "v1\n"
    assert store.cli("ps", "--all", "--quiet", "--no-trunc").split() == [row["containerId"]]


def _network_of_few(store: PodmanStore) -> None:
    subnet, gateway = f"--subnet={store.subnet}", f"--gateway={store.address(1)}"
    store.cli("network", "create", "--disable-dns", subnet, gateway, f"--ip-range={store.address(252)}/30", "techulus")


def _room(store: PodmanStore, reference: str) -> int:
    """How many containers get an address of Podman's choice; none is left."""
    count, said = 0, ""
    while not said:
        try:
            store.cli("run", "--detach", "--network=techulus", reference)
            count += 1
        except LabError as error:
            said = str(error)
    assert "IPAM error" in said, said
    store.cli("rm", "--all", "--force", "--time=0")
    return count


def _links_with(store: PodmanStore, address: str) -> int:
    """How many network namespaces have an interface with this address."""
    script = "for one in /run/netns/*; do nsenter --net=$one ip -oneline -4 address show; done"
    return store.run(("sh", "-c", script)).count(f" {address}/")
