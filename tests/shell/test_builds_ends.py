"""`shell.loops.builds`: whatever happens, the control plane hears how a build ended, once."""

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from core.build_record import Record
from shell.adapters.control_plane import ControlPlaneError
from shell.building import pipeline
from shell.building.workplace import Workplace
from shell.loops import builds
from tests.shell import builds_desk
from tests.shell.builds_desk import (
    OK,
    Desk,
    a_builder,
    endless,
    good,
    lies_about,
    refused,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick")]

anyio_backend, quick = builds_desk.anyio_backend, builds_desk.quick


async def test_completed_is_not_said_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L43: it deploys each time. After no answer the status is read; when it was heard, that is all."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk()
    builder = a_builder(tmp_path, desk)

    async def heard_but_not_answered(build_id: str, status: str, error: str | None = None) -> bytes:
        desk.heard.append((status, error))
        desk.status = status
        if status == "completed":
            raise refused(None)
        return OK

    monkeypatch.setattr(desk, "post_build_status", heard_but_not_answered)
    await until(builder, lambda: desk.status == "completed" and not lies_about(builder))
    assert desk.said.count("completed") == 1


async def test_completed_is_not_said_again_before_the_status_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L43: also when nobody can tell at first how the build stands; here it was heard."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk(answers={"completed": [refused(None)]})
    standing: list[ControlPlaneError | bytes] = [refused(503), b"{}", refused(404, ""), b'{"status": "completed"}']

    async def read(build_id: str) -> bytes:
        if "completed" not in desk.said:
            return b'{"status": "building"}'
        answer = standing.pop(0)
        if isinstance(answer, ControlPlaneError):
            raise answer
        return answer

    monkeypatch.setattr(desk, "fetch_build_status", read)
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: not standing and not lies_about(builder))
    assert desk.said.count("completed") == 1


async def test_a_status_that_never_makes_sense_ends_the_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L44: the builds after it have their turn; what was not heard is told at the next start."""
    monkeypatch.setattr(pipeline, "build", good)
    monkeypatch.setattr(builds, "_PATIENCE", 3)
    desk = Desk(answers={"completed": [refused(None)]})
    read: list[str] = []

    async def unclear(build_id: str) -> bytes:
        read.append(build_id)
        if "completed" in desk.said:
            raise refused(500)
        return b'{"status": "building"}'

    monkeypatch.setattr(desk, "fetch_build_status", unclear)
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: "completed" in desk.said and not builder.ending and not builder.now)
    assert desk.said.count("completed") == 1
    assert lies_about(builder)


async def test_a_build_whose_end_is_being_said_is_not_claimed_again(tmp_path: Path) -> None:
    """Its folder would be removed under it, or its beginning be told as failed."""
    desk = Desk()
    builder = a_builder(tmp_path, desk)
    builder.ending.add("b")
    with anyio.move_on_after(0.2):
        await builds.run(builder)
    assert desk.status == "pending"


async def test_a_404_of_somebody_else_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L43: a proxy says so of everything while the control plane is restarted; the end is said until it is heard."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk(answers={"completed": [refused(404, ""), refused(400, ""), OK]})
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "completed" and not lies_about(builder))
    assert desk.said.count("completed") == 3


async def test_a_claim_whose_failure_the_control_plane_has_stored_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own reason is not overwritten: it could not get a token."""
    desk = Desk()

    async def fails_and_says_so(build_id: str) -> bytes:
        desk.status = "failed"
        raise refused(500)

    monkeypatch.setattr(desk, "claim_build", fails_and_says_so)
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "failed" and not lies_about(builder))
    assert desk.heard == []


async def test_completed_is_said_until_it_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a control plane that is away and one that is broken."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk(answers={"completed": [refused(None), refused(502), refused(401), OK]})
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "completed" and not lies_about(builder))
    assert desk.said.count("completed") == 4


@pytest.mark.parametrize("status", [400, 404])
async def test_an_end_that_nobody_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """The service was deleted meanwhile: said once, and left."""
    monkeypatch.setattr(pipeline, "build", good)
    desk = Desk(answers={"completed": [refused(status)]})
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: "completed" in desk.said and not lies_about(builder))
    await anyio.sleep(0.1)
    assert desk.said.count("completed") == 1


async def test_a_crash_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L27: the next run says that it failed, and cleans up; then it builds what is offered."""
    monkeypatch.setattr(pipeline, "build", endless)
    desk = Desk()
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "building")
    assert lies_about(builder), "the record stays"
    builder = a_builder(tmp_path, desk)
    await until(builder, lambda: desk.status == "failed" and not lies_about(builder))
    assert "restarted" in str(desk.heard[-1][1])


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_a_crash_before_the_end_is_said(tmp_path: Path, outcome: str) -> None:
    """What was found out is what is said."""
    desk = Desk(status="pushing")
    builder = a_builder(tmp_path, desk)
    Workplace(builder.workshop.top, "b").remember(Record("b", outcome, "" if outcome == "completed" else "why"))
    await until(builder, lambda: not lies_about(builder))
    assert desk.heard == [(outcome, "why" if outcome == "failed" else None)]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_crash_after_the_end_was_said(tmp_path: Path, status: str) -> None:
    """Nothing is said again."""
    desk = Desk(status=status)
    builder = a_builder(tmp_path, desk)
    Workplace(builder.workshop.top, "b").remember(Record("b", "completed"))
    await until(builder, lambda: not lies_about(builder))
    assert desk.heard == []
