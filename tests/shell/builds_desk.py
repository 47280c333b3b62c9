"""A control plane with one build, pipelines that end as they are told, and the loop between them."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from core.build_plan import Choice, Host, Settings, Stage
from core.build_sandbox import NO_LIMITS
from core.secrets import EncryptionKey, encrypt
from shell.adapters import build_tools
from shell.adapters.control_plane import ControlPlaneError
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.workplace import Workplace
from shell.loops import builds
from shell.loops.builds import Builder
from tests.lab.wait import PATIENCE_S, wait_for

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


async def no_tools(builder: Choice, folder: Path) -> Host:
    """No tool is asked."""
    return Host()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses in milliseconds."""
    monkeypatch.setattr(build_tools, "find", no_tools)
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
    return Builder(desk, Workshop(folder / "builds", Settings(), NO_LIMITS), folder / "logs", KEY, lambda: 0.0)


async def until(builder: Builder, condition: Callable[[], bool], limit_s: float = PATIENCE_S) -> None:
    """Run the loop until something holds."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(builds.run, builder)
        await anyio.to_thread.run_sync(lambda: wait_for(condition, limit_s, "the loop"))
        tasks.cancel_scope.cancel()


def lies_about(builder: Builder) -> bool:
    """Whether a build has left a folder."""
    return any(builder.workshop.top.glob("build-*"))
