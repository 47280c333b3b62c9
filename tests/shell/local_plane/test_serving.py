"""The control plane as a process of its own, over real HTTP."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from shell.failure import CommandError
from shell.local_plane.serving import new_token, serve
from tests.lab.agent import AGENT
from tests.lab.ports import free_port
from tests.lab.wait import PATIENCE_S, wait_for

PROGRAM = """
import sys
from pathlib import Path
from shell.local_plane.serving import serve
from shell.log import set_up
from shell.log_choices import LogFormat
set_up(LogFormat.JSON)
serve(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2]))
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A served folder: its address and its process, ended at the end."""
    port = free_port()
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        argv = [sys.executable, "-c", PROGRAM, str(folder), str(port)]
        child = subprocess.Popen(argv, stderr=log, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url) or child.poll() is not None, PATIENCE_S, "the control plane to answer")
        assert child.poll() is None
        yield url, child
    finally:
        child.kill()
        child.wait()


def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """L56: it answers and ends all the same; both of its streams are full from the start."""
    read, write = os.pipe()
    os.write(write, b"x" * fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096))
    port = free_port()
    argv = [str(AGENT), "control-plane", "--state", str(tmp_path / "state"), "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(argv, stdout=write, stderr=write) as child:
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}"), PATIENCE_S, "the control plane to answer")
            child.terminate()
            assert child.wait(PATIENCE_S) == 0
        finally:
            child.kill()
            os.close(read)
            os.close(write)


def test_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """L13: SIGTERM ends it at once with status 0; a token made beside it is good; what it knows survives a SIGKILL."""
    folder = tmp_path / "state"
    with serving(folder) as (url, child):
        registration = {"wireguardPublicKey": "w", "signingPublicKey": "s"}
        token = new_token(folder, "a")
        answer = httpx.post(f"{url}/api/v1/agent/register", json={**registration, "token": token})
        assert answer.status_code == 200
        document = {"services": {"web": {"image": "x"}}}
        (folder / "services.yaml").write_text(yaml.safe_dump(document))
        assert len(httpx.get(f"{url}/lab/deployments").json()["deployments"]) == 1
        child.kill()
    with serving(folder) as (url, child):
        assert len(httpx.get(f"{url}/lab/deployments").json()["deployments"]) == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    (first, *_) = (tmp_path / "state.log").read_text().splitlines()
    said = json.loads(first)
    assert "labs and tests only" in said["event"]
    assert said["listen"] == url.removeprefix("http://")


def test_two_of_them_do_not_share_a_folder(tmp_path: Path) -> None:
    """They would overwrite each other's rows."""
    folder = tmp_path / "state"
    with serving(folder), pytest.raises(CommandError, match="another control plane"):
        serve(folder, "127.0.0.1", 0)


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    """One line, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"127.0.0.1:{port}"):
            serve(tmp_path, "127.0.0.1", port)


def test_a_first_start_leaves_an_example_to_edit(tmp_path: Path) -> None:
    """Valid as it is, and with nothing in it."""
    folder = tmp_path / "state"
    with serving(folder) as (url, _):
        assert httpx.get(f"{url}/lab/problems").json() == {"problems": []}
        assert yaml.safe_load((folder / "services.yaml").read_text()) == {"services": {}}


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/lab/problems", timeout=1).status_code == 200
    except httpx.TransportError:
        return False
