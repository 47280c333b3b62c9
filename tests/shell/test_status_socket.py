"""`shell.status_socket`: who asks is answered, and nobody who does not listen holds anything up."""

import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from core.render import Json
from shell import status_socket
from shell.status_socket import NAME
from tests.lab.wait import PATIENCE_S

pytestmark = pytest.mark.anyio

LARGE: dict[str, Json] = {"text": "x" * 3_000_000}


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


@asynccontextmanager
async def answering(folder: Path, document: dict[str, Json]) -> AsyncIterator[None]:
    """A status socket that is there."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(status_socket.run, folder, lambda: document)
        with anyio.fail_after(PATIENCE_S):
            while await anyio.to_thread.run_sync(status_socket.ask, folder) is None:
                await anyio.lowlevel.checkpoint()
        yield
        tasks.cancel_scope.cancel()


async def asked(folder: Path) -> object:
    """What a command gets."""
    raw = await anyio.to_thread.run_sync(status_socket.ask, folder)
    return None if raw is None else json.loads(raw)


def left(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


async def test_it_answers_and_goes_with_the_agent(tmp_path: Path) -> None:
    """For its owner only; nothing is left behind."""
    async with answering(tmp_path, {"running": True}):
        assert await asked(tmp_path) == {"running": True}
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert await asked(tmp_path) is None
    assert left(tmp_path) == []


async def test_a_long_path_and_a_long_answer(tmp_path: Path) -> None:
    """A socket's own path may have 107 bytes; a data directory's may have more."""
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    async with answering(folder, LARGE):
        assert await asked(folder) == LARGE


async def test_what_a_killed_agent_leaves(tmp_path: Path) -> None:
    """A dead socket is no agent, and no hindrance to the next one."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / NAME))
    assert await asked(tmp_path) is None
    async with answering(tmp_path, {"running": True}):
        assert await asked(tmp_path) == {"running": True}


async def test_callers_that_do_not_listen(tmp_path: Path) -> None:
    """One that leaves at once and one that never reads; the next is answered."""
    async with answering(tmp_path, LARGE):
        with status_socket.address(tmp_path) as path, socket.socket(socket.AF_UNIX) as silent:
            with socket.socket(socket.AF_UNIX) as leaving:
                leaving.connect(path)
            silent.connect(path)
            assert await asked(tmp_path) == LARGE


async def test_a_folder_in_which_none_can_be_made(tmp_path: Path) -> None:
    """Said, and the agent goes on."""
    with capture_logs() as said:
        await status_socket.run(tmp_path / "missing", dict)
    assert [one["event"] for one in said] == ["no status socket"]


def test_no_folder_no_agent(tmp_path: Path) -> None:
    """As for a data directory that was mistyped."""
    assert status_socket.ask(tmp_path / "missing") is None
