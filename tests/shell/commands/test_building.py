"""`agent build`: however it is ended, nothing goes on behind the terminal's back."""

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lab.agent import AGENT
from tests.lab.process import commands_about
from tests.lab.wait import PATIENCE_S, wait_for


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """L13: the children, which are in sessions of their own, and the folder, which has secrets in it."""
    folder = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes what is asked and never answers
        repo = f"http://127.0.0.1:{silent.getsockname()[1]}/site.git"
        argv = [str(AGENT), "build", "--repo", repo, "--ref", "a" * 40, "--image", "127.0.0.1:9/hand/made:1"]
        argv += ["--data-dir", str(folder), "--build-allow-scheme", "http", "--builder", "podman"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as command:
            silent.settimeout(PATIENCE_S)
            asked, _ = silent.accept()
            command.send_signal(number)
            _, said = command.communicate(timeout=PATIENCE_S)
        # What was killed may need a moment; what was not would wait for the silent server.
        wait_for(lambda: commands_about(repo) == [], PATIENCE_S, "the last of its processes to end")
        asked.close()
    assert command.returncode != 0
    assert "Traceback" not in said
    assert list((folder / "builds").glob("build-*")) == []
