"""`shell.loops.builds`: whatever happens, the control plane hears how a build ended, once, and nothing is left lying about."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from core.build_plan import Settings, Stage
from core.build_record import Record
from core.secrets import EncryptionKey, encrypt
from shell.adapters.control_plane import ControlPlaneError
from shell.building import pipeline
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.workplace import Workplace
from shell.loops import builds
from shell.loops.builds import Builder
from tests.lab.wait import wait_for

pytestmark = pytest.mark.anyio

KEY = EncryptionKey(bytes(range(32)))
SHA = "41c0ffee" * 5
DETAILS = {"id": "b", "commitSha": SHA, "commitMessage": None, "branch": "main", "serviceId": "s", "projectId": "p"}
CLAIM: dict[str, Any] = {
    "build": DETAILS,
    "cloneUrl": "https://x-access-token:TOKEN@git.example/a.git",
    "imageUri": "registry.example/p/s:1",
    "secrets": {"NPM_TOKEN": encrypt(KEY, "s3cret", bytes(12))},
}
OK, AWAY = b'{"ok": true}', None


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses in milliseconds."""
    monkeypatch.setattr(builds, "POLL_S", 0.02)
    monkeypatch.setattr(builds, "CANCEL_POLL_S", 0.02)
    monkeypatch.setattr(builds, "_AGAIN_S", (0.01,))


def refused(status: int | None, words: str = "no") -> ControlPlaneError:
    """A call that got this status, or no answer; without words it is somebody else's before the control plane."""
    return ControlPlaneError("call", f"HTTP {status}", "", status, "" if status is None else words)


@dataclass
class Desk:
    """A control plane with one build. `answers` are taken in turn for each kind of call; the last one stays; an exception is raised."""

    status: str = "pending"
    claim: Any = field(default_factory=lambda: json.dumps(CLAIM).encode())
    answers: dict[str, list[Any]] = field(default_factory=dict)
    heard: list[tuple[str, str | None]] = field(default_factory=list)

    async def fetch_pending_build(self) -> bytes:
        """The build, while nobody has it."""
        await anyio.lowlevel.checkpoint()
        return json.dumps({"build": DETAILS if self.status == "pending" else None}).encode()

    async def claim_build(self, build_id: str) -> bytes:
        """Stored, and answered as set up."""
        assert build_id == "b"
        await anyio.lowlevel.checkpoint()
        if isinstance(self.claim, ControlPlaneError) and self.claim.status == 409:
            self.status = "building"
            raise self.claim
        self.status = "claimed"
        if isinstance(self.claim, ControlPlaneError):
            raise self.claim
        raw: bytes = self.claim
        return raw

    async def post_build_status(self, build_id: str, status: str, error: str | None = None) -> bytes:
        """Stored unless the answer is an error."""
        await anyio.lowlevel.checkpoint()
        script = self.answers.get(status, [OK])
        answer = script.pop(0) if len(script) > 1 else script[0]
        self.heard.append((status, error))
        if isinstance(answer, ControlPlaneError):
            raise answer
        if self.status != "cancelled":
            self.status = status
        return json.dumps({"ok": True, "cancelled": True}).encode() if self.status == "cancelled" else OK

    async def fetch_build_status(self, build_id: str) -> bytes:
        """As it stands."""
        await anyio.lowlevel.checkpoint()
        return json.dumps({"status": self.status}).encode()

    @property
    def said(self) -> list[str]:
        """The statuses that were sent."""
        return [status for status, _ in self.heard]


Pipe = Callable[[Workshop, Job, Listener], Awaitable[str]]


async def good(workshop: Workshop, job: Job, listener: Listener) -> str:
    """A build that works."""
    assert job.secrets == {"NPM_TOKEN": "s3cret"}
    assert job.source.url == "https://git.example/a.git"
    folder = Workplace(workshop.top, job.id).folder
    assert folder.is_dir(), "it is remembered before it is claimed"
    (folder / "big").write_text("x")
    for stage in Stage:
        await listener.stage(stage)
        listener.say(stage.value)
    return "sha256:1"


async def bad(workshop: Workshop, job: Job, listener: Listener) -> str:
    """A build that does not."""
    await listener.stage(Stage.CLONING)
    raise BuildError("cloning failed: no such repository\nfatal: nothing there")


async def endless(workshop: Workshop, job: Job, listener: Listener) -> str:
    """A build that goes on."""
    await listener.stage(Stage.CLONING)
    await listener.stage(Stage.BUILDING)
    await anyio.sleep_forever()
    raise AssertionError


def a_builder(folder: Path, desk: Desk) -> Builder:
    """One with a key."""
    return Builder(desk, Workshop(folder / "builds", Settings()), folder / "logs", KEY, lambda: 0.0)


async def until(builder: Builder, condition: Callable[[], bool], limit_s: float = 10) -> None:
    """Run the loop until something holds."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(builds.run, builder)
        await anyio.to_thread.run_sync(lambda: wait_for(condition, limit_s, "the loop"))
        tasks.cancel_scope.cancel()


def lies_about(builder: Builder) -> bool:
    """Whether a build has left a folder."""
    return any(builder.workshop.top.glob("build-*"))


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
    builder = replace(a_builder(tmp_path, desk), paused=lambda: True)
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
