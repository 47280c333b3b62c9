"""`agent run` before its loops run: registration is tried until it succeeds or makes no sense, and can be stopped."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from shell import agent_process
from shell.failure import AdapterError, CommandError
from shell.files import DataDirLock
from shell.node import Node
from shell.options import Options
from tests.lab.agent import AGENT
from tests.lab.wait import PATIENCE_S, wait_for
from tests.shell import virtual_time
from tests.shell.command_line import daemon


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A control plane that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_registration_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """L16: with growing pauses up to a minute, said each time; what cannot succeed ends it."""
    tries: list[float] = []

    async def register(options: Options, token: str | None) -> Node:
        tries.append(anyio.current_time())
        if len(tries) < 10:
            raise AdapterError("control plane", "register", "connection refused")
        raise CommandError("token used up")

    async def main() -> None:
        with pytest.raises(CommandError, match="used up"):
            await agent_process._run(Options(), "t0ken")

    monkeypatch.setattr(agent_process, "registered_now", register)
    with capture_logs() as said:
        virtual_time.run(main)
    pauses = [round(later - sooner) for sooner, later in pairwise(tries)]
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert [one["event"] for one in said] == ["not registered"] * 9
    assert all("refused" in one["why"] and "t0ken" not in str(one) for one in said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_registration(tmp_path: Path, silent: socket.socket, number: signal.Signals) -> None:
    """L13, L25: it ends at once, without a traceback, and its keys are kept for the next run."""
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    data_dir = tmp_path / "data"
    argv = [str(AGENT), "--url", url, "--data-dir", str(data_dir)]
    env = {**os.environ, "TECHULUS_TOKEN": "t0ken"}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as child:
        silent.settimeout(PATIENCE_S)
        connection, _ = silent.accept()
        with connection:
            child.send_signal(number)
            _, said = child.communicate(timeout=10)
    assert child.returncode == 0
    assert "Traceback" not in said and "t0ken" not in said
    assert (data_dir / "signing.key").exists()
    assert not (data_dir / "config.json").exists()


def test_one_agent_for_a_data_directory(tmp_path: Path) -> None:
    """The second one is refused on one line that names the first."""
    with DataDirLock(tmp_path):
        why = daemon("run", "--data-dir", tmp_path, "--url", "https://plane.example.org").why
    assert str(os.getpid()) in why
    wait_for(lambda: not (tmp_path / "config.json").exists(), 1, "nothing to be registered")
