"""Podman's service missing, dying, hanging: each is one clear line within its time limit, and the next call works again."""

import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest

from shell.adapters.podman import Podman
from shell.failure import AdapterError
from tests.builders import an_image
from tests.lab.agents_podman import create, listed, made, page, podman_on, wanted
from tests.lab.container_processes import processes_of
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio]

T = TypeVar("T")

_LIMIT_S = 3  # of a call that reads
_CALLS = 200  # in turns of all eight threads they would take 75 s


@pytest.fixture
async def podman(store: PodmanStore) -> AsyncIterator[Podman]:
    adapter = podman_on(store, read_limit_s=_LIMIT_S)
    yield adapter
    await adapter.aclose()


def callers() -> list[threading.Thread]:
    """Worker threads that wait for an answer of Podman's."""
    return [one for one in threading.enumerate() if one.name.startswith("AnyIO worker") and _waits(one)]


def _waits(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "in_thread":
            return True
        frame = frame.f_back
    return False


async def answer(call: Callable[[], Awaitable[T]]) -> T:
    """What a call comes to once the service is awake, which on a busy machine may take longer than a call."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                return await call()
            except AdapterError as error:
                if "no answer within" not in error.why:
                    raise


async def test_the_service_comes_and_goes(podman: Podman, store: PodmanStore) -> None:
    """L3: never an empty list. L4: the kept connection is made anew without a failed call."""
    await made(podman, wanted(store, store.load(image("web"))))
    store.kill()
    for call in (partial(listed, podman), podman.ping, partial(podman.images.find, an_image("x"))):
        with pytest.raises(AdapterError, match=f"nothing listens at {store.socket_path}"):
            await call()
    store.start()
    assert [one.state for one in await listed(podman)] == ["running"]
    store.restart()
    assert [one.state for one in await listed(podman)] == ["running"]
    store.stop()
    with pytest.raises(AdapterError, match=f"could not list containers: there is no socket {store.socket_path}"):
        await listed(podman)
    store.start()
    assert len(await listed(podman)) == 1


async def test_a_service_that_hangs(podman: Podman, store: PodmanStore) -> None:
    """L13: the call ends, its thread too, and later ones are answered."""
    await podman.ensure_network()
    store.hang()
    for call in (partial(listed, podman), podman.ping):
        with pytest.raises(AdapterError, match=f"no answer within {_LIMIT_S} s"):
            await call()
    wait_for(lambda: not callers(), PATIENCE_S, "the threads to end")
    store.resume()
    assert await answer(partial(listed, podman)) == ()


async def test_a_call_that_is_cancelled_ends_at_once(podman: Podman, store: PodmanStore) -> None:
    """L13: the agent's end does not wait for a Podman that hangs, whatever was under way."""
    reference = store.load(image("web"))
    container_id = await made(podman, wanted(store, reference))
    podman = podman_on(store, read_limit_s=4 * PATIENCE_S)
    store.hang()
    begun = anyio.current_time()
    calls = (
        partial(create, podman, wanted(store, reference, 6)),
        partial(podman.stop_and_remove, container_id),
        partial(podman.images.pull, an_image(reference), timeout_s=1800),
    )
    with anyio.move_on_after(0.3):
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(call)
    assert anyio.current_time() - begun < PATIENCE_S
    wait_for(lambda: not callers(), PATIENCE_S, "the threads to end")
    store.resume()
    assert container_id in {one.id for one in await answer(partial(listed, podman))}
    await podman.aclose()


async def test_many_calls_to_a_service_that_hangs(podman: Podman, store: PodmanStore) -> None:
    """More than there are threads: those that wait for one fail within their limit, too."""
    store.hang()
    failures: list[str] = []

    async def one() -> None:
        try:
            await podman.ping()
        except AdapterError as error:
            failures.append(error.why)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(_CALLS):
                tasks.start_soon(one)
    assert len(failures) == _CALLS
    wait_for(lambda: not callers(), PATIENCE_S, "the threads to end")
    store.resume()
    await answer(podman.ping)


async def test_the_service_dies_while_a_container_is_being_stopped(podman: Podman, store: PodmanStore) -> None:
    """Said at once; the same again afterwards ends well, and with the container's process (L47)."""
    container_id = await made(podman, wanted(store, store.load(image("stubborn"))))
    failures: list[AdapterError] = []

    async def stop() -> None:
        try:
            await podman.stop_and_remove(container_id, grace_s=600)
        except AdapterError as error:
            failures.append(error)

    with anyio.fail_after(10 * PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            await anyio.to_thread.run_sync(
                partial(
                    wait_for,
                    lambda: "Stopping" in store.cli("ps", "-a", "--format={{.State}}"),
                    PATIENCE_S,
                    "the stop",
                )
            )
            store.kill()
    assert "could not stop container service-5-deploy: the connection broke" in str(failures[0])
    store.start()
    assert [one.state for one in await listed(podman)] in (["stopping"], ["running"])
    await podman.stop_and_remove(container_id, grace_s=0.5)
    assert await listed(podman) == () and processes_of(container_id) == []


async def test_a_crash_between_creation_and_start(podman: Podman, store: PodmanStore) -> None:
    """The call is cancelled in the middle, at any point: what is there afterwards is one container at most, and it can be finished."""
    container = wanted(store, store.load(image("web")))
    await podman.ensure_network()
    for pause_s in (0.005, 0.02, 0.04, 0.08, 0.12):
        with anyio.move_on_after(pause_s):
            await create(podman, container)
        found = await listed(podman)
        assert len(found) <= 1
        for one in found:
            if one.state != "removing":  # Podman made it after an earlier round had ended, and this one was removing it
                await podman.start(one.id)
                assert page(store.address(5)) == "v1\n"
            await podman.stop_and_remove(one.id)
    await made(podman, container)


async def test_a_container_whose_files_a_power_cut_has_damaged(podman: Podman, store: PodmanStore) -> None:
    """L29: one that Podman lists and cannot look into is damaged after the second attempt, and can be replaced."""
    container = wanted(store, store.load(image("web")))
    container_id = await made(podman, container)
    store.cli("stop", "--time", "0", container.name)
    folder = store.cli("inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", container.name).strip()
    (Path(folder).parent / "lower").write_bytes(b"")  # as it was found: there, and empty
    for state in ("exited", "damaged"):
        with pytest.raises(AdapterError, match=r"could not start container service-5-deploy: .*invalid argument"):
            await podman.start(container_id)
        assert [one.state for one in await listed(podman)] == [state]
    await podman.stop_and_remove(container_id)
    assert await listed(podman) == ()
    await made(podman, container)
    assert page(store.address(5)) == "v1\n"
