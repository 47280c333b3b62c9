"""Containers and their processes on the real Podman: removed means gone, running means that a process lives."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from core import liveness
from core.containers import ContainerId, Volume
from shell.adapters.podman import Podman
from shell.adapters.podman import liveness as podmans_liveness
from shell.failure import AdapterError
from tests.lab.agents_podman import listed, made, page, podman_on, wanted
from tests.lab.container_processes import (
    a_persons_stop,
    commands_of,
    kill_processes,
    kill_unseen,
    monitor_of,
    processes_of,
)
from tests.lab.images import custom_image, image
from tests.lab.podman_store import PodmanStore
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio]

_DATA = (Volume("data", "/data"),)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that nobody will end is overdue at once, and not after half a minute."""
    monkeypatch.setattr(liveness, "LEFT_LIMIT_S", 0.0)
    left_s = liveness.Stops.left_s
    monkeypatch.setattr(
        liveness.Stops,
        "left_s",
        lambda stops, one, now, own_limit_s, commanded: left_s(stops, one, now, 0.0, commanded),
    )


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait without holding up the event loop."""
    await anyio.to_thread.run_sync(partial(wait_for, condition, PATIENCE_S, what))


async def state_of(podman: Podman) -> list[str]:
    """The states of all that is listed."""
    return [one.state for one in await listed(podman)]


async def stubborn(podman: Podman, store: PodmanStore) -> ContainerId:
    """A container that does not hear SIGTERM, with a volume."""
    return await made(podman, wanted(store, store.load(image("stubborn")), volumes=_DATA))


async def test_a_forced_removal_in_the_middle_of_a_stop(podman: Podman, store: PodmanStore, tmp_path: Path) -> None:
    """L47: Podman alone would forget the container and leave its process."""
    container_id = await stubborn(podman, store)
    with a_persons_stop(store, container_id, 60, tmp_path / "stop.log") as command:
        command.kill()
        await podman.remove_forced(container_id)
    assert (processes_of(container_id), await listed(podman)) == ([], ())


async def test_a_persons_slow_stop_is_waited_for(podman: Podman, store: PodmanStore, tmp_path: Path) -> None:
    """L47: the process is not killed while the one who stops it waits; when it has ended by itself, the container can be removed."""
    slow = custom_image(
        "slow",
        "v1",
        (
            "sh",
            "-c",
            "trap 'while [ ! -e /data/go ]; do sleep 0.1; done; echo clean >/data/end; exit 0' TERM; while :; do sleep 0.1; done",
        ),
    )
    container_id = await made(podman, wanted(store, store.load(slow), volumes=_DATA))
    data = store.directory / "volumes/service-5/data"
    with a_persons_stop(store, container_id, 60, tmp_path / "stop.log"):
        assert await state_of(podman) == ["stopping"]
        with pytest.raises(AdapterError, match="somebody else is stopping it; it is waited for"):
            await podman.stop_and_remove(container_id, grace_s=0.2)
        assert processes_of(container_id)
        (data / "go").touch()
        await until(lambda: not processes_of(container_id), "the process to end")
        await podman.stop_and_remove(container_id)
    assert (data / "end").read_text() == "clean\n"
    assert (processes_of(container_id), await listed(podman)) == ([], ())


async def test_a_stop_that_nobody_will_end(podman: Podman, store: PodmanStore, tmp_path: Path, impatient: None) -> None:
    """L47: waited for as long as a person's command runs; then overdue, so that it is replaced, and its process seen gone."""
    container_id = await stubborn(podman, store)
    with a_persons_stop(store, container_id, 60, tmp_path / "stop.log") as command:
        assert await state_of(podman) == ["stopping"]
        command.kill()
        assert await state_of(podman) == ["stop_overdue"]
        await podman.stop_and_remove(container_id)
    assert (processes_of(container_id), await listed(podman)) == ([], ())


async def test_a_container_that_podman_has_forgotten(
    podman: Podman, store: PodmanStore, tmp_path: Path, impatient: None
) -> None:
    """L47: it stays listed while its process lives, its volume stays, and its end is that of the process."""
    container_id = await stubborn(podman, store)
    assert await state_of(podman) == ["running"]
    with a_persons_stop(store, container_id, 60, tmp_path / "stop.log") as command:
        command.kill()
        store.cli("rm", "--force", "--time", "0", container_id)
    assert processes_of(container_id), "else this Podman forgets nothing, and this test is not needed"
    assert [(one.id, one.state) for one in await listed(podman)] == [(container_id, "stop_overdue")]
    with pytest.raises(AdapterError, match=r"process \d+ has one of them mounted; nothing is deleted"):
        await podman.remove_volumes("service-5")
    await podman.stop_and_remove(container_id)
    assert (processes_of(container_id), await listed(podman)) == ([], ())
    await podman.remove_volumes("service-5")


@pytest.mark.parametrize("volumes", [_DATA, ()], ids=["by its volume", "by its name"])
async def test_what_podman_forgot_before_this_agent_began(
    store: PodmanStore, tmp_path: Path, volumes: tuple[Volume, ...]
) -> None:
    """L47: never two processes of one deployment, never two on one volume, whatever the agent remembers."""
    before = podman_on(store)
    container = wanted(store, store.load(image("stubborn")), volumes=volumes)
    old = await made(before, container)
    await before.aclose()
    with a_persons_stop(store, old, 60, tmp_path / "stop.log") as command:
        command.kill()
        store.cli("rm", "--force", "--time", "0", old)
    assert processes_of(old)
    podman = podman_on(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made, podman, container)
        await until(lambda: store.cli("ps", "--quiet").split(), "the new container")
        assert not processes_of(old)
    await podman.aclose()


async def test_a_process_and_its_monitor_are_killed(podman: Podman, store: PodmanStore) -> None:
    """L48: Podman says running for ever; it is seen, and can be made anew."""
    container = wanted(store, store.load(image("web")))
    container_id = await made(podman, container)
    assert await state_of(podman) == ["running"]
    kill_unseen(container_id)
    assert store.cli("inspect", "--format", "{{.State.Status}}", container_id).strip() == "running"
    for _ in range(2):  # seen again without being asked again
        assert await state_of(podman) == ["process_gone"]
    await podman.stop_and_remove(container_id)
    assert await made(podman, container) != container_id
    assert (await state_of(podman), page(store.address(5))) == (["running"], "v1\n")


async def test_a_monitor_that_is_stuck(podman: Podman, store: PodmanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """L48: it tells nobody that the process has ended; when its time is over, the container can be made anew."""
    container = wanted(store, store.load(image("web")))
    container_id = await made(podman, container)
    os.kill(monitor_of(container_id), signal.SIGSTOP)
    await anyio.to_thread.run_sync(kill_processes, container_id)
    assert await state_of(podman) == ["running"], "the monitor may yet tell"
    monkeypatch.setattr(podmans_liveness, "_MONITOR_TELLS_S", 0.0)
    assert await state_of(podman) == ["process_gone"]
    await podman.stop_and_remove(container_id)
    assert await made(podman, container) != container_id


async def test_only_the_monitor_is_killed(podman: Podman, store: PodmanStore) -> None:
    """L48: the process serves on, so it stays as it is until it ends; and it can be stopped."""
    container_id = await made(podman, wanted(store, store.load(image("web"))))
    os.kill(monitor_of(container_id), signal.SIGKILL)
    assert (await state_of(podman), page(store.address(5))) == (["running"], "v1\n")
    await podman.stop_and_remove(container_id, grace_s=5)
    assert (processes_of(container_id), await listed(podman)) == ([], ())


async def test_a_service_that_cannot_be_seen_is_believed(podman: Podman, store: PodmanStore) -> None:
    """L48: a socket that leads elsewhere, as one behind a relay: numbers of processes mean nothing there, and nothing is replaced."""
    await made(podman, wanted(store, store.load(image("web"))))
    (one,) = await listed(podman)
    view = podman._processes  # what a relay in this process's own namespace would look like
    elsewhere = "/run/nobody/pidfile"
    assert await view.is_gone(4_000_000, elsewhere, 0, one.id) is False


async def test_a_process_beside_a_container_that_is_not_up(podman: Podman, store: PodmanStore) -> None:
    """L47: a container is not started beside its own process of before."""
    container_id = await made(podman, wanted(store, store.load(image("web"))))
    page(store.address(5))  # its shell has started the server, and nothing else runs any more
    await podman.start(container_id)
    assert len(commands_of(container_id)) == 2, "one that runs is left as it is"


async def test_another_podmans_container_on_the_same_volume(podman: Podman, store: PodmanStore, tmp_path: Path) -> None:
    """L49: a person's own, from a store of its own, a backup perhaps: what the agent makes beside it does not end it."""
    container = wanted(store, store.load(image("stubborn")), volumes=_DATA)
    await podman.stop_and_remove(await made(podman, container))
    folder = store.directory / "volumes/service-5/data"
    with PodmanStore(tmp_path / "other") as other:
        reference = other.load(image("stubborn"))
        theirs = other.cli("run", "--detach", "--network", "none", "--volume", f"{folder}:/data", reference).strip()
        await made(podman, container)
        assert processes_of(theirs)
