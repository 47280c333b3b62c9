"""`shell.service_manager` and the watchdog: a real socket, and loops that are stuck."""

import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

from shell import environment_file, log, reloading
from shell.log_choices import LogFormat, LogLevel
from shell.loops import watchdog
from shell.loops.watchdog import Pulse
from shell.service_manager import ServiceManager
from tests.shell import virtual_time


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        yield made


def said(listener: socket.socket) -> list[str]:
    """Every datagram so far."""
    found = []
    while True:
        try:
            found.append(listener.recv(4096).decode())
        except BlockingIOError:
            return found


def test_what_is_said(listener: socket.socket) -> None:
    """As sd_notify(3) has it; a status is one line."""
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname()}, 1)
    manager.ready()
    manager.status("two\nlines   " + "x" * 1000)
    manager.alive()
    manager.stopping()
    ready, status, alive, stopping = said(listener)
    assert (ready, alive, stopping) == ("READY=1", "WATCHDOG=1", "STOPPING=1")
    assert status.startswith("STATUS=two lines x")
    assert len(status) < 520
    manager.reloading()
    assert said(listener)[0].startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_an_abstract_socket() -> None:
    """Begins with @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("")
        name = made.getsockname()
        ServiceManager({"NOTIFY_SOCKET": "@" + name[1:].decode()}, 1).ready()
        made.setblocking(False)
        assert said(made) == ["READY=1"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_listens(environ: dict[str, str]) -> None:
    """Nothing happens."""
    ServiceManager(environ, 1).ready()


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "6", "WATCHDOG_PID": "2"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_whose_watchdog_it_is(more: dict[str, str], seconds: float | None) -> None:
    """Only this very process's."""
    assert ServiceManager({"NOTIFY_SOCKET": "/n", **more}, 1).watchdog_s == seconds


async def idle() -> str:
    """A headline."""
    return "IDLE"


def test_a_loop_that_is_stuck_stops_the_pings(listener: socket.socket) -> None:
    """Said once, in the log and in the status; the service manager does the rest."""
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "30000000"}, 1)
    found: list[str] = []

    async def main() -> None:
        pulse = Pulse(anyio.current_time)

        async def loop() -> None:
            while anyio.current_time() < 60:
                pulse.beat("reports", 25)
                await anyio.sleep(20)

        async def drain() -> None:
            while True:
                found.extend(said(listener))
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop)
            tasks.start_soon(drain)
            with anyio.move_on_after(200):
                await watchdog.run(manager, pulse, idle)
            tasks.cancel_scope.cancel()

    with capture_logs() as logged:
        virtual_time.run(main)
    assert found.count("WATCHDOG=1") == 7, "every 10 s until 40 + 25 s"
    assert found[-1] == "STATUS=stuck: reports"
    assert [one["event"] for one in logged] == ["a loop is stuck"]


def test_without_a_service_manager_nothing_runs() -> None:
    """A terminal, a container."""

    async def main() -> None:
        await watchdog.run(ServiceManager({}, 1), Pulse(anyio.current_time), idle)

    virtual_time.run(main)


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    """Logging as it was before."""
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("content", "shows"),
    [
        ("TECHULUS_LOG_LEVEL=debug\n", True),
        ("# x\nTECHULUS_URL=https://a\nTECHULUS_LOG_LEVEL='debug'\n", True),
        ("TECHULUS_LOG_LEVEL=debug\nTECHULUS_LOG_LEVEL=error\n", False),
        ("", False),
        ("TECHULUS_LOG_LEVEL=loud\n", False),
        ("TECHULUS_LOG_LEVEL='open\n", False),
    ],
)
def test_a_reload(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh_logging: None,
    content: str,
    shows: bool,
) -> None:
    """The log level of the unit's file; what makes no sense changes nothing."""
    (tmp_path / "env").write_text(content)
    monkeypatch.setenv(environment_file.VARIABLE, str(tmp_path / "env"))
    log.set_up(LogFormat.JSON, LogLevel.INFO)
    reloading.reload()
    log.logger().debug("a detail")
    assert ("a detail" in capsys.readouterr().err) is shows
