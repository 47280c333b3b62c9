"""`shell.pulls`: each image is pulled once, in the background, and holds up nothing but what needs it."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from shell.failure import AdapterError
from shell.pulls import PATIENCE_S, PULL_LIMIT_S, RECENT_S, Pulls
from tests.builders import an_image
from tests.shell import virtual_time
from tests.shell.stand_ins import Podman, PullEnds, failing, hanging, taking

NGINX = an_image()
LATEST = an_image("docker.io/library/nginx:latest")
PINNED = an_image("docker.io/library/nginx:latest@sha256:" + "a" * 64)

Scene = Callable[[Podman, Pulls, PullEnds], Awaitable[None]]


def play(scene: Scene, podman: Podman | None = None) -> tuple[Podman, PullEnds]:
    """Run a scene on virtual time; what has not ended by its end is cancelled."""
    engine, ends = podman or Podman(), PullEnds()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await scene(engine, ends.pulls(engine, tasks), ends)
            tasks.cancel_scope.cancel()

    virtual_time.run(main)
    return engine, ends


def test_an_image_that_is_here_is_not_pulled() -> None:
    """L19: no registry is asked for a tag that does not move, nor for a digest whatever its tag."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.images |= {NGINX, PINNED}
        assert await pulls.ensure(NGINX)
        assert await pulls.ensure(PINNED)

    engine, ends = play(scene)
    assert (engine.journal, ends.heard) == ([], [])


def test_a_missing_image_is_pulled_and_waited_for() -> None:
    """A quick pull ends within the change's patience, and nobody hears of it."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = taking(PATIENCE_S - 1)
        assert await pulls.ensure(NGINX)
        assert anyio.current_time() == pytest.approx(PATIENCE_S - 1)

    engine, ends = play(scene)
    assert engine.journal == [("pull", str(NGINX))]
    assert ends.heard == []


def test_a_pull_that_fails_at_once_is_the_changes_failure() -> None:
    """The change hears the registry's own words; the next try asks the registry again."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = failing("pull nginx", "manifest unknown")
        for _ in range(2):
            with pytest.raises(AdapterError, match="manifest unknown"):
                await pulls.ensure(NGINX)

    engine, ends = play(scene)
    assert len(engine.journal) == 2
    assert ends.heard == []


@pytest.mark.parametrize("failure", [None, "manifest unknown"])
def test_a_long_pull_goes_on_by_itself(failure: str | None) -> None:
    """L11: the change gives up waiting, and hears once how the pull ended."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = taking(600, None if failure is None else failing("pull nginx", failure))
        assert not await pulls.ensure(NGINX)
        assert anyio.current_time() == pytest.approx(PATIENCE_S)
        assert ends.heard == []
        await anyio.sleep(600)
        assert await podman.has_image(NGINX) == (failure is None)

    engine, ends = play(scene)
    assert engine.journal == [("pull", str(NGINX))]
    ((image, why),) = ends.heard
    assert image == str(NGINX)
    assert why is None if failure is None else failure in (why or "")


def test_changes_that_want_the_same_image_share_its_pull() -> None:
    """One pull, however many wait, at once or later; they all hear of it together, once."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = taking(30)
        answers: list[bool] = []

        async def want() -> None:
            answers.append(await pulls.ensure(NGINX))

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(want)
            waiting.start_soon(want)
            await anyio.sleep(29.5)
            waiting.start_soon(want)
        assert answers == [False, False, True]
        assert anyio.current_time() == pytest.approx(30)

    engine, ends = play(scene)
    assert engine.journal == [("pull", str(NGINX))]
    assert ends.heard == [(str(NGINX), None)]


def test_a_registry_that_hangs_is_not_waited_for_once_for_each_image() -> None:
    """L11: what stands behind twenty of its images (DNS, routes, peers) comes within half a minute."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = hanging
        for number in range(20):
            assert not await pulls.ensure(an_image(f"registry.test/a{number}:1"))
        assert anyio.current_time() < 3 * PATIENCE_S

    engine, _ = play(scene)
    assert len(engine.journal) == 20


def test_two_images_are_pulled_side_by_side() -> None:
    """L11: a registry that hangs holds up no other image."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = hanging
        assert not await pulls.ensure(NGINX)
        del podman.scripts["pull"]
        assert await pulls.ensure(PINNED)

    play(scene)


def test_no_pull_lasts_for_ever() -> None:
    """L13: a registry that never answers is given up, and that is said."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = hanging
        assert not await pulls.ensure(NGINX)
        await anyio.sleep(PULL_LIMIT_S)
        assert [why for _, why in ends.heard] == [f"stand-in: could not pull {NGINX}: no answer in time"]

    play(scene)


def test_a_moving_tag_is_looked_up_now_and_then() -> None:
    """L19: `latest` is asked for when it can be, but not for every container that is made of it."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.images.add(LATEST)
        for _ in range(3):
            assert await pulls.ensure(LATEST)
        assert len(podman.journal) == 1
        await anyio.sleep(RECENT_S + 1)
        assert await pulls.ensure(LATEST)
        assert len(podman.journal) == 2

    play(scene)


def test_a_moving_tag_that_cannot_be_looked_up_is_used_as_it_is() -> None:
    """L19: a registry outage never stops a repair, and is not asked again for a while."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.images.add(LATEST)
        podman.scripts["pull"] = failing("pull nginx", "connection refused")
        assert await pulls.ensure(LATEST)
        assert await pulls.ensure(LATEST)
        assert len(podman.journal) == 1

    play(scene)


def test_a_registry_that_hangs_holds_a_moving_tag_up_for_minutes_at_most() -> None:
    """L19: the change is put aside once; when the look-up is given up, what is here does."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.images.add(LATEST)
        podman.scripts["pull"] = hanging
        assert not await pulls.ensure(LATEST)
        await anyio.sleep(300)
        assert len(ends.heard) == 1
        assert await pulls.ensure(LATEST)
        assert len(podman.journal) == 1

    play(scene)


def test_a_moving_tag_that_is_not_here_must_be_had() -> None:
    """Nothing can do in its place."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["pull"] = failing("pull nginx", "connection refused")
        for _ in range(2):
            with pytest.raises(AdapterError, match="connection refused"):
                await pulls.ensure(LATEST)
        assert len(podman.journal) == 2

    play(scene)


def test_an_engine_that_does_not_know_its_images() -> None:
    """A look that fails is a failure, never a missing image."""

    async def scene(podman: Podman, pulls: Pulls, ends: PullEnds) -> None:
        podman.scripts["has_image"] = failing("look for image")
        with pytest.raises(AdapterError, match="look for image"):
            await pulls.ensure(NGINX)

    engine, _ = play(scene)
    assert engine.journal == []
