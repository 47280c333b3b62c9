"""`shell.loops.logs.Access`: what is said of lines of Caddy's log that are not sent."""

import json
from pathlib import Path
from typing import cast

import anyio
import pytest
from structlog.testing import capture_logs

from core.access_log import LONGEST_LINE, AccessLog
from core.caddy import Route
from shell.logs import pump as pump_module
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops.logs import Access, LogFiles, Logs
from tests.shell import virtual_time
from tests.shell.logs.forgetful import Forgetful


def request(path: str) -> str:
    """A line as Caddy writes it."""
    return json.dumps({"ts": 1767500000.5, "request": {"method": "GET", "host": "a.test", "uri": path}}) + "\n"


def test_a_proxys_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old access log is not shipped. What is written from then on is, also while the agent does not run before the first line."""
    monkeypatch.setattr(pump_module, "BATCH_AGE_S", 0.0)  # counted in real time
    log, store = tmp_path / "access.log", Forgetful()
    route = Route("r", "a.test", "service", ("10.200.1.2:80",))

    async def agent(seconds: float, *written: str) -> None:
        pump = Pump(Sender(store, Spool(tmp_path / "spool", 1024**2)), Positions(tmp_path / "positions.json"))
        logs = Logs(pump, cast(LogFiles, None), lambda: (), log, lambda: (route,))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(logs.run)
            await anyio.sleep(1)
            write(*written)
            await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()

    def write(*paths: str) -> None:
        with log.open("a") as file:
            file.writelines(map(request, paths))

    async def scene() -> None:
        write("/old")
        await agent(2)
        write("/between")
        await agent(20, "/new")
        write("/last")
        await agent(20)

    virtual_time.run(scene)
    assert [text.split()[1] for text in store.texts] == ["/between", "/new", "/last"]


def test_lines_that_are_too_long_are_said_now_and_then() -> None:
    """L59: a hundred of them are not a hundred lines."""
    access = Access(AccessLog(), lambda: ())
    with capture_logs() as said:
        for _ in range(100):
            assert access.feed(b"x" * (LONGEST_LINE + 1) + b"\n") == b""
    assert [one["lines"] for one in said] == [1, 2, 4, 8, 16, 32, 64]
    assert access.held_bytes == access.lines == 0
