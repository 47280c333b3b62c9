"""`shell.image_fetching`: a deployment is one image, its registry is asked once, and one image that stays away holds up no other."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from core.containers import DeploymentId
from core.deployment_images import KeptImage, StoredImage
from core.image import Image
from shell import image_fetching
from shell.deployment_images import DeploymentImages
from shell.failure import AdapterError
from shell.image_fetching import HEAD_START_S, LONG_S, PULL_LIMIT_S, SILENT_S, FetchSettings
from tests.builders import an_image
from tests.shell.image_stage import SHA, Stage, play
from tests.shell.stand_ins import failing, hanging, image_id, taking

NGINX, REDIS = an_image(), an_image("redis:7")
PINNED = an_image(f"nginx:1.27@{SHA}")
EXACTLY = an_image(f"docker.io/library/nginx@{SHA}")
OWN = an_image("localhost/own:1")
REGISTRY_GONE = failing("pull", "connection refused")


def test_a_first_start_asks_the_registry_whatever_is_here(tmp_path: Path) -> None:
    """L52: a tag that was pushed anew goes live with the next deployment, however recently the last one asked."""

    async def scene(stage: Stage) -> None:
        stage.images.add(NGINX)
        stage.ask(("a", NGINX))
        await anyio.sleep(1)
        stage.images.registry[NGINX] = StoredImage("newer", SHA)
        stage.ask(("b", NGINX))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert stage.pulled == [str(NGINX)] * 2
    assert stage.failures == {"a": None, "b": None}
    assert (stage.kept.id_of(DeploymentId("a"), NGINX), stage.kept.id_of(DeploymentId("b"), NGINX)) == (
        image_id(NGINX),
        "newer",
    )
    assert stage.ledger == [str(NGINX)] * 2
    assert DeploymentImages(tmp_path).known == stage.kept.known, "it is on the disk"


def test_requests_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L58: documents whose deployments or images are all new with every poll, while registries hang; later there is room again."""
    monkeypatch.setattr(image_fetching, "MOST_REQUESTS", 100)

    async def scene(stage: Stage) -> None:
        stage.images.scripts["pull"] = hanging
        for poll in range(10):
            stage.ask(*((f"{poll}-{number}", an_image(f"a:{poll}-{number}")) for number in range(30)))
            stage.ask(*((f"{number}", an_image(f"b:{poll}-{number}")) for number in range(30)))
            await anyio.sleep(1)
        assert len(anyio.get_running_tasks()) < 250
        assert len(stage.answers) == 500

    stage = play(tmp_path, scene)
    assert {failure for _, failure, _ in stage.answers} == {"100 images are waited for already"}


def test_a_repair_asks_nobody(tmp_path: Path) -> None:
    """L19, L52: the image of a deployment is here under its id, although its name means another one, and no registry answers."""

    async def scene(stage: Stage) -> None:
        stage.images.here[an_image("other:1")] = StoredImage("first", SHA)
        stage.keep("a", NGINX, "first")
        stage.images.scripts["pull"] = REGISTRY_GONE
        stage.ask(("a", NGINX))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert (stage.pulled, stage.failures) == ([], {"a": None})
    assert stage.kept.id_of(DeploymentId("a"), NGINX) == "first"


def test_an_image_that_is_gone_is_fetched_by_its_digest(tmp_path: Path) -> None:
    """L52: and by its name when no digest of it is known."""

    async def scene(stage: Stage) -> None:
        stage.keep("a", NGINX, image_id(EXACTLY))
        stage.keep("b", REDIS, "gone", digest=None)
        stage.ask(("a", NGINX), ("b", REDIS))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert stage.pulled == [str(EXACTLY), str(REDIS)]
    assert stage.failures == {"a": None, "b": None}
    assert stage.kept.known[DeploymentId("b")].id == image_id(REDIS)


def test_another_image_under_the_same_digest_is_refused(tmp_path: Path) -> None:
    """L52: a registry that lies does not change what a deployment is."""

    async def scene(stage: Stage) -> None:
        stage.keep("a", NGINX, "first")
        stage.ask(("a", NGINX))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert "this deployment is first" in (stage.failures["a"] or "")
    assert stage.kept.known[DeploymentId("a")].id == "first"


@pytest.mark.parametrize("here", [True, False])
def test_a_digest_that_is_here_is_not_asked_for(tmp_path: Path, *, here: bool) -> None:
    """It cannot mean anything else."""

    async def scene(stage: Stage) -> None:
        if here:
            stage.images.add(PINNED)
        stage.ask(("a", PINNED))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert stage.pulled == ([] if here else [str(PINNED)])
    assert stage.kept.known[DeploymentId("a")] == KeptImage(str(PINNED), image_id(PINNED), SHA)


def test_the_servers_own_images_are_never_asked_for(tmp_path: Path) -> None:
    """Not even when they are missing; then it is said what to do."""

    async def scene(stage: Stage) -> None:
        stage.ask(("a", OWN))
        await anyio.sleep(1)
        assert "load or build it here" in (stage.failures["a"] or "")
        stage.images.add(OWN)
        stage.ask(("a", OWN))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert (stage.pulled, stage.failures) == ([], {"a": None})
    assert not stage.kept.known[DeploymentId("a")].is_unasked


def test_the_servers_own_image_that_is_gone_is_not_asked_for_either(tmp_path: Path) -> None:
    """No registry has it; another that was built under its name since is another image (L52)."""

    async def scene(stage: Stage) -> None:
        stage.images.add(OWN)
        stage.keep("a", OWN, "the first build")
        stage.ask(("a", OWN))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert stage.pulled == []
    assert "load it here again, or deploy anew" in (stage.failures["a"] or "")


def test_a_server_without_a_registry(tmp_path: Path) -> None:
    """`--pull-policy missing`: what is here does, and that is remembered; what is missing is pulled."""

    async def scene(stage: Stage) -> None:
        stage.images.add(NGINX)
        stage.ask(("a", NGINX), ("b", REDIS))
        await anyio.sleep(1)

    stage = play(tmp_path, scene, FetchSettings(policy="missing"))
    assert stage.pulled == [str(REDIS)]
    assert [one.is_unasked for one in stage.kept.known.values()] == [True, False]


def test_an_image_that_is_no_longer_wanted_and_comes_late_is_not_kept(tmp_path: Path) -> None:
    """L52: the image changes under a deployment's id while the first one is on its way, and comes before it."""

    async def scene(stage: Stage) -> None:
        stage.images.scripts[f"pull {NGINX}"] = taking(60)
        stage.ask(("a", NGINX))
        await anyio.sleep(1)
        stage.ask(("a", REDIS))
        await anyio.sleep(100)

    stage = play(tmp_path, scene)
    assert stage.answers[0] == ("a", None, HEAD_START_S)
    assert "another image has been asked for since" in (stage.answers[1][1] or "")
    assert stage.kept.id_of(DeploymentId("a"), REDIS) == image_id(REDIS)


def test_those_asked_for_together_share_a_request_and_nobody_else_does(tmp_path: Path) -> None:
    """One request for thirty replicas; a deployment that comes while it is under way asks anew, since the tag may have moved."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["pull"] = taking(1)
        stage.ask(*((f"d{number}", NGINX) for number in range(30)))
        await anyio.sleep(0.5)
        stage.images.registry[NGINX] = StoredImage("newer", SHA)
        stage.ask(("late", NGINX))
        await anyio.sleep(5)

    stage = play(tmp_path, scene)
    assert stage.pulled == [str(NGINX)] * 2
    assert len(stage.answers) == 31


def test_a_request_that_fails_fails_for_all_that_share_it(tmp_path: Path) -> None:
    """Each in the registry's own words; the next attempt asks again."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["pull"] = failing("pull nginx", "manifest unknown")
        for _ in range(2):
            stage.ask(("a", NGINX), ("b", NGINX))
            await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert len(stage.pulled) == 2
    assert [failure for _, failure, _ in stage.answers] == ["stand-in: could not pull nginx: manifest unknown"] * 4


def names(count: int) -> list[tuple[str, Image]]:
    """That many deployments of as many images."""
    return [(f"d{number}", an_image(f"registry.test/a{number}:1")) for number in range(count)]


def test_three_at_a_time_in_the_order_asked_for(tmp_path: Path) -> None:
    """However many there are."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["layers"] = taking(10)
        stage.ask(*names(7))
        for now, expected in ((1, 1), (HEAD_START_S + 1, 3), (HEAD_START_S + 11, 6), (21, 7)):
            await anyio.sleep(now - anyio.current_time())
            assert len(stage.pulled) == expected
        await anyio.sleep(10)

    stage = play(tmp_path, scene)
    assert stage.pulled == [str(image) for _, image in names(7)]
    assert [when for _, _, when in stage.answers] == pytest.approx([10, 12, 12, 20, 22, 22, 30])


@pytest.mark.parametrize("places", [1, 2, 5])
def test_as_many_at_a_time_as_the_operator_says(tmp_path: Path, places: int) -> None:
    """`--pull-concurrency`."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["layers"] = taking(10)
        stage.ask(*names(7))
        await anyio.sleep(HEAD_START_S + 1)
        assert len(stage.pulled) == places

    play(tmp_path, scene, FetchSettings(concurrency=places))


def test_others_wait_for_the_first_no_longer_than_it_lasts(tmp_path: Path) -> None:
    """A small image, or one that fails at once."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["layers"] = taking(0.5)
        stage.ask(*names(4))
        await anyio.sleep(0.6)
        assert len(stage.pulled) == 4
        await anyio.sleep(0.5)
        assert len(stage.answers) == 4

    play(tmp_path, scene)


def test_a_registry_that_hangs_holds_up_no_other_image(tmp_path: Path) -> None:
    """L11: its places are free again after a few seconds, while it is still waited for."""

    async def scene(stage: Stage) -> None:
        for _, image in names(6):
            stage.podman.scripts[f"pull {image}"] = hanging
        stage.ask(*names(6), ("good", NGINX))
        await anyio.sleep(2 * SILENT_S + 1)
        assert stage.failures == {"good": None}
        assert stage.fetching.under_way() == {str(image) for _, image in names(6)}

    play(tmp_path, scene)


def test_an_image_that_stops_in_its_middle_holds_up_no_other_for_long(tmp_path: Path) -> None:
    """L11: the registry has answered, and then nothing comes."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["layers"] = hanging
        stage.ask(*names(3))
        await anyio.sleep(HEAD_START_S + 1)
        del stage.podman.scripts["layers"]
        stage.ask(("good", NGINX))
        await anyio.sleep(LONG_S - HEAD_START_S - 2)
        assert stage.failures == {}
        await anyio.sleep(2)
        assert stage.failures == {"good": None}

    play(tmp_path, scene)


def test_what_is_here_waits_for_no_registry(tmp_path: Path) -> None:
    """L11: an image that is kept and here is answered at once, behind any number that are fetched."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["pull"] = hanging
        stage.images.add(REDIS)
        stage.keep("here", REDIS, image_id(REDIS))
        stage.ask(*names(9), ("here", REDIS))
        await anyio.sleep(0.1)
        assert stage.failures == {"here": None}

    play(tmp_path, scene)


def test_no_pull_lasts_for_ever(tmp_path: Path) -> None:
    """L13: a registry that never answers is given up, and that is said."""

    async def scene(stage: Stage) -> None:
        stage.podman.scripts["pull"] = hanging
        stage.ask(("a", NGINX))
        await anyio.sleep(PULL_LIMIT_S + 1)

    stage = play(tmp_path, scene)
    assert "no answer in time" in (stage.failures["a"] or "")
    assert stage.fetching.under_way() == frozenset()


@pytest.mark.parametrize("call", ["has", "find"])
def test_an_engine_that_does_not_know_its_images(tmp_path: Path, call: str) -> None:
    """A look that fails is a failure, never a missing image; the others go on."""

    async def scene(stage: Stage) -> None:
        stage.keep("a", NGINX, "first")
        stage.podman.scripts[call] = failing("look for image")
        stage.ask(("a" if call == "has" else "b", NGINX if call == "has" else PINNED), ("c", REDIS))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert stage.pulled == [str(REDIS)]
    assert [failure is None for failure in stage.failures.values()] == [False, True]


def test_images_that_are_kept_together_cost_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L57: one pull may answer hundreds of deployments in one turn of the loop, and a hundred thousand may be kept already."""
    kept = DeploymentImages(tmp_path)
    saved: list[dict[DeploymentId, KeptImage]] = []

    async def save(value: Any) -> None:
        saved.append(value.images)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(256):
                tasks.start_soon(kept.keep, DeploymentId(f"d{number}"), KeptImage(str(NGINX), "i", SHA))

    monkeypatch.setattr(kept.file, "save", save)
    anyio.run(main)
    assert (len(saved), len({id(one) for one in saved}), len(kept.known)) == (256, 1, 256)


def test_a_disk_that_takes_nothing_begins_no_deployment(tmp_path: Path) -> None:
    """L52: else a crash could bring it back with another image."""

    async def scene(stage: Stage) -> None:
        stage.kept.file.path.mkdir()
        stage.ask(("a", NGINX))
        await anyio.sleep(1)
        stage.ask(("a", NGINX))
        await anyio.sleep(1)

    stage = play(tmp_path, scene)
    assert ["could not keep the image of deployment a" in (failure or "") for _, failure, _ in stage.answers] == [
        True
    ] * 2


def test_what_is_not_known_of_a_deployment_is_an_adapters_failure(tmp_path: Path) -> None:
    """Should the machine ever ask for a change before its image."""
    with pytest.raises(AdapterError, match="has not been fetched for this deployment"):
        DeploymentImages(tmp_path).id_of(DeploymentId("a"), NGINX)
