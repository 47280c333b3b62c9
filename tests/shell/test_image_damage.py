"""`shell.image_fetching`: an image that is here and damaged is fetched anew, and nothing is lost for it (L50)."""

from pathlib import Path

import anyio
import pytest

from core.containers import ContainerId
from core.podman_images import ImageUser
from shell.image_fetching import READ_TOGETHER
from tests.builders import an_actual_container, an_image
from tests.shell.image_stage import SHA, Stage, play
from tests.shell.stand_ins import failing, image_id, taking

NGINX = an_image()
EXACTLY = an_image(f"docker.io/library/nginx@{SHA}")


def user(name: str, *, ours: bool = True, running: bool = False) -> ImageUser:
    """A container of the image."""
    return ImageUser(ContainerId(name), name, ours, running)


def damaged(stage: Stage, *users: ImageUser) -> None:
    """Have an image here that is damaged, and these containers of it."""
    stage.images.add(EXACTLY)
    stage.keep("a", NGINX, image_id(EXACTLY))
    stage.images.damaged[image_id(EXACTLY)] = "file integrity checksum failed"
    stage.images.used_by[image_id(EXACTLY)] = users
    stage.podman.there = {one.id: an_actual_container(id=one.id) for one in users}


def test_an_image_that_is_intact_is_left_as_it_is(tmp_path: Path) -> None:
    """L50: two failed starts are no proof."""

    async def scene(stage: Stage) -> None:
        damaged(stage, user("old"))
        stage.images.damaged.clear()
        stage.ask(("a", NGINX), verify=True)
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert stage.failures == {"a": None}
    assert stage.podman.journal == [("verify", image_id(EXACTLY))]


def test_a_damaged_image_is_fetched_anew(tmp_path: Path) -> None:
    """L50: once its registry is seen to have it; what was made of it goes, with nobody else at work, and is made anew later."""

    async def scene(stage: Stage) -> None:
        damaged(stage, user("old"))
        before = stage.turns.epoch
        stage.ask(("a", NGINX), verify=True)
        await anyio.sleep(1)
        assert stage.turns.epoch > before, "whoever has looked before looks again"

    stage = play(tmp_path, scene)
    assert stage.failures == {"a": None}
    assert [entry[0] for entry in stage.podman.journal] == ["verify", "pull", "remove_forced", "discard", "pull"]


def test_deployments_of_one_damaged_image_repair_it_once(tmp_path: Path) -> None:
    """L50: who comes second finds it gone or whole, and takes away nothing that has been fetched again."""

    async def scene(stage: Stage) -> None:
        damaged(stage, user("old"))
        stage.keep("b", NGINX, image_id(EXACTLY))
        stage.podman.scripts["layers"] = taking(5)
        stage.ask(("a", NGINX), ("b", NGINX), verify=True)
        await anyio.sleep(30)

    stage = play(tmp_path, scene)
    assert stage.failures == {"a": None, "b": None}
    assert [entry[0] for entry in stage.podman.journal] == ["verify", "pull", "remove_forced", "discard", "pull"]


@pytest.mark.parametrize(
    "other", [user("web", running=True), user("x", ours=False)], ids=["one that runs", "one that is not ours"]
)
def test_a_damaged_image_that_others_use_is_said(tmp_path: Path, other: ImageUser) -> None:
    """L50: nothing is stopped for it, and the reason names the container."""

    async def scene(stage: Stage) -> None:
        damaged(stage, user("old"), other)
        stage.ask(("a", NGINX), verify=True)
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert f"container {other.name} uses it" in (stage.failures["a"] or "")
    assert [entry[0] for entry in stage.podman.journal] == ["verify", "pull"]


def test_a_damaged_image_stays_while_no_registry_has_it(tmp_path: Path) -> None:
    """L50: what is here could be the last copy."""

    async def scene(stage: Stage) -> None:
        damaged(stage, user("old"))
        stage.podman.scripts["pull"] = failing("pull", "connection refused")
        stage.ask(("a", NGINX), verify=True)
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert "it is damaged (file integrity checksum failed), and cannot be fetched anew" in (stage.failures["a"] or "")
    assert [entry[0] for entry in stage.podman.journal] == ["verify", "pull"]


def test_few_images_are_verified_at_a_time(tmp_path: Path) -> None:
    """L50, L12: many containers that crash together do not take all of Podman's threads, nor fill the disk with packed images."""
    now, most = 0, 0

    async def scene(stage: Stage) -> None:
        async def reading() -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await anyio.sleep(30)
            now -= 1

        stage.images.scripts["fault"] = reading
        wanted = [(f"d{n}", an_image(f"app{n}:1")) for n in range(12)]
        stage.images.add(*(image for _, image in wanted))
        for key, image in wanted:
            stage.keep(key, image, image_id(image))
        stage.ask(*wanted, verify=True)
        await anyio.sleep(12 / READ_TOGETHER * 30 + 1)

    stage = play(tmp_path, scene)
    assert most == READ_TOGETHER
    assert set(stage.failures.values()) == {None}
    assert len(stage.answers) == 12
