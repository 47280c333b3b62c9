"""`shell.loops.builds`: what is offered is claimed and built, and nothing is left lying about."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from core import bounds
from core.build_plan import Stage
from core.secrets import EncryptionKey, encrypt
from shell.building import pipeline
from shell.building.pipeline import Job, Listener, Workshop
from shell.loops import builds
from tests.shell import builds_desk
from tests.shell.builds_desk import (
    CLAIM,
    DETAILS,
    Desk,
    a_builder,
    bad,
    endless,
    good,
    lies_about,
    refused,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick")]

anyio_backend, quick = builds_desk.anyio_backend, builds_desk.quick
_MANY = {f"S{number}": "%" for number in range(bounds.SECRETS + 1)}


async def test_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage in order, `completed` once, nothing left but the log."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk()
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "completed" and not lies_about(builder))
    assert desk.said == ["cloning", "building", "pushing", "completed"]
    assert builder.now == {}
    (log,) = (tmp_path / "logs").glob("*.jsonl")
    assert [json.loads(line)["_msg"] for line in log.read_text().splitlines()] == ["cloning", "building", "pushing"]


async def test_a_build_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""
    monkeypatch.setattr(pipeline, "build", bad)
    desk = Desk()
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "failed" and not lies_about(builder))
    assert desk.heard[-1] == ("failed", "cloning failed: no such repository\nfatal: nothing there")


async def test_somebody_else_has_it(tmp_path: Path) -> None:
    """409 is normal: nothing is said, nothing is left."""
    desk = Desk(claim=refused(409))
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "building" and not lies_about(builder))
    assert desk.heard == []


@pytest.mark.parametrize(
    "answer", [refused(404), refused(400), refused(500), refused(None), b"{", b'{"build": {}}'], ids=str
)
async def test_a_claim_without_an_answer(tmp_path: Path, answer: Any) -> None:
    """L44: the claim is stored all the same, so the build is reported as failed."""
    desk = Desk(claim=answer)
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "failed" and not lies_about(builder))
    assert desk.said == ["failed"]
    assert "could not begin" in str(desk.heard[0][1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secrets": {"X": "%%%"}}, "the secret 'X' cannot be read"),
        ({"secrets": {"X": encrypt(EncryptionKey(bytes(32)), "v", bytes(12))}}, "the secret 'X' cannot be read"),
        pytest.param({"secrets": _MANY}, "the build has 1001 secrets with 1001 characters", id="too many secrets"),
        pytest.param(
            {"secrets": {"X": "%" * (bounds.SECRETS_TEXT + 1)}},
            "the build has 1 secrets with 262145 characters",
            id="too long a secret",
        ),
        pytest.param(
            {"secrets": {"X": "%" * bounds.SECRETS_TEXT}}, "the secret 'X' cannot be read", id="the longest secret"
        ),
        ({"cloneUrl": "ssh://git.example/a.git"}, "scheme is 'ssh'"),
        ({"build": {**DETAILS, "commitSha": "-x"}}, "is not a commit"),
        ({"build": {**DETAILS, "id": "other"}}, "another build's"),
    ],
)
async def test_a_claim_that_makes_no_sense(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """L41: nothing is cloned; the user hears why, and no secret."""
    desk = Desk(claim=json.dumps(CLAIM | change).encode())
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "failed")
    assert words in str(desk.heard[-1][1])


@pytest.mark.parametrize("status", [404, 500, None])
async def test_a_stage_that_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None) -> None:
    """No reason to stop building."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk(answers={"building": [refused(status)]})
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "completed")


async def test_a_build_that_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed while it goes on; nothing more is said; the next build has its turn."""
    monkeypatch.setattr(pipeline, "build", endless)
    desk = Desk()
    builder = a_builder(tmp_path, desk)

    def cancel() -> bool:
        if desk.status == "building":
            desk.status = "cancelled"
        return desk.status == "cancelled" and not lies_about(builder)

    await until(builder, cancel)
    assert desk.said == ["cloning", "building"]
    assert builder.now == {}


async def test_cancelled_before_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a stage says so."""
    desk = Desk()

    async def cancelled_meanwhile(workshop: Workshop, job: Job, listener: Listener) -> str:
        desk.status = "cancelled"
        await listener.stage(Stage.BUILDING)
        raise AssertionError("it went on")

    monkeypatch.setattr(pipeline, "build", cancelled_meanwhile)
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.said == ["building"] and not lies_about(builder))


async def test_a_folder_that_makes_no_sense_goes(tmp_path: Path) -> None:
    """Whatever a crash has left."""
    desk = Desk(status="claimed")
    builder = a_builder(tmp_path, desk)
    folder = builder.workshop.top / "build-odd"
    folder.mkdir(parents=True)
    (folder / "build.json").write_text("{")
    (builder.workshop.top / "build-empty").mkdir()
    await until(builder, lambda: not lies_about(builder))
    assert desk.heard == []


async def test_a_paused_agent_claims_nothing(tmp_path: Path) -> None:
    """The build waits for another agent, or for the end of the pause."""
    desk = Desk()

    async def paused() -> bool:
        return True

    builder = replace(a_builder(tmp_path, desk), paused=paused)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(builds.run, builder)
        await anyio.sleep(0.2)
        tasks.cancel_scope.cancel()
    assert desk.status == "pending"


async def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """Nothing is claimed that could not be remembered."""
    (tmp_path / "builds").write_text("a file where the folder should be")
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(builds.run, a_builder(tmp_path, desk))
        await anyio.sleep(0.2)
        tasks.cancel_scope.cancel()
    assert desk.status == "pending"
