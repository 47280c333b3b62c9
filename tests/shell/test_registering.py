"""First runs in processes of their own, really killed, against a control plane that is really there."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from core.protocol import RegistrationRequest
from shell import identity
from shell.adapters.control_plane import ControlPlane
from shell.failure import CommandError
from shell.files import DataDirLock
from shell.local_plane.serving import new_token
from tests.lab.agent import Agent, Plane
from tests.lab.wait import PATIENCE_S, wait_for

# Forks one first run for each line of its input, so that what takes long is loaded once.
PROGRAM = """
import os, signal, sys
from pathlib import Path
import anyio
from shell import files, identity
from shell.adapters.control_plane import ControlPlane

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

async def register(folder, url, token, at, after):
    left = at

    def write(path, content):
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.fsync = lambda descriptor: kill()
        files.write_atomic(path, content)
        if left == 0:
            kill()

    await identity.register(folder, url, token, False, ControlPlane(url).register, write)

for line in sys.stdin:
    folder, url, token, at, when = line.split()
    if os.fork() == 0:
        with files.DataDirLock(Path(folder)):
            anyio.run(register, Path(folder), url, token, int(at), when == "after")
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
FILES = {identity.CONFIG, identity.SIGNING_KEY, identity.WIREGUARD_KEY, "agent.lock"}
UNMANAGED = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One control plane for all of these tests; each registers servers of its own."""
    with Plane(tmp_path_factory.mktemp("registering") / "plane") as running:
        yield running


@pytest.fixture
def agent(plane: Plane, tmp_path: Path) -> Iterator[Agent]:
    """An agent that manages nothing here: its Podman is never there."""
    made = Agent(tmp_path / "agent", plane.url, ("--podman-socket", str(tmp_path / "no.sock"), *UNMANAGED))
    yield made
    made.kill()


def rows(plane: Plane, name: str) -> list[Any]:
    """The servers of a name that have registered."""
    return [row for row in plane.lab("servers") if row["name"] == name and row["status"] == "online"]


STEPS = [(at, when) for at in range(1, 5) for when in ("before", "after")]


@pytest.fixture(scope="module")
def killed(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], tuple[Path, str]]:
    """The data directory and the token of a first run that was killed at its n-th write: before that file has its name, or after."""
    runs = {}
    for at, when in STEPS:
        runs[at, when] = (tmp_path_factory.mktemp("killed"), new_token(plane.directory, f"killed-{at}-{when}"))
    lines = [f"{folder} {plane.url} {token} {at} {when}" for (at, when), (folder, token) in runs.items()]
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, input="\n".join(lines), capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["-9"] * len(STEPS), done.stderr
    return runs


@pytest.mark.parametrize(("at", "when"), STEPS)
def test_killed_at_any_write_the_next_run_goes_on(
    plane: Plane, killed: dict[tuple[int, str], tuple[Path, str]], at: int, when: str
) -> None:
    """L25: SIGKILL at each step of a first run; the next one ends registered, or says exactly what to do."""
    folder, token = killed[at, when]
    kept = at == 4 or (at == 3 and when == "after")
    if (at, when) == (3, "before"):
        with pytest.raises(CommandError, match="delete that server in the control plane, add it again"):
            next_run(folder, plane.url, token)
        token = new_token(plane.directory, "again")
    known = next_run(folder, plane.url, None if kept else token)
    assert {path.name for path in folder.iterdir()} == FILES
    assert next_run(folder, plane.url, None) == known
    assert known.server_id in {row["id"] for row in plane.lab("servers") if row["status"] == "online"}


def next_run(folder: Path, url: str, token: str | None) -> identity.Identity:
    """A run that nobody kills, up to its identity."""

    async def register(request: RegistrationRequest) -> bytes:
        plane = ControlPlane(url)
        try:
            return await plane.register(request)
        finally:
            await plane.aclose()

    with DataDirLock(folder):
        return identity.load(folder) or anyio.run(identity.register, folder, url, token, False, register)


def test_the_installer_may_kill_the_agent_as_soon_as_config_exists(plane: Plane, agent: Agent) -> None:
    """L25, L24: it greps the kind, ends the agent, and later starts it without a token; everything is private."""
    agent.start(new_token(plane.directory, "installed"))
    config = agent.data_dir / identity.CONFIG
    wait_for(config.exists, PATIENCE_S, f"the registration; {agent.last_words()}")
    agent.kill()
    assert '"isProxy": false,\n' in config.read_text()
    assert stat.S_IMODE(agent.data_dir.stat().st_mode) == 0o700
    agent.log.unlink()
    agent.start()
    wait_for(lambda: "agent started" in agent.last_words(), PATIENCE_S, "the second run")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert len(rows(plane, "installed")) == 1
    assert agent.stop() == 0


def test_the_public_address_that_is_given_is_registered(plane: Plane, tmp_path: Path) -> None:
    """The other servers know it at once, before the first report (which never comes here, without Podman)."""
    options = ("--podman-socket", str(tmp_path / "no.sock"), "--public-ip", "198.51.100.7", *UNMANAGED)
    agent = Agent(tmp_path / "agent", plane.url, options)
    try:
        agent.start(new_token(plane.directory, "addressed"))
        wait_for(lambda: bool(rows(plane, "addressed")), PATIENCE_S, f"the registration; {agent.last_words()}")
        assert [row["publicIp"] for row in rows(plane, "addressed")] == ["198.51.100.7"]
    finally:
        agent.kill()


def test_a_second_agent_on_the_same_folder_is_refused(plane: Plane, agent: Agent) -> None:
    """One line that names the first, and a status; the first goes on."""
    agent.start(new_token(plane.directory, "first"))
    wait_for(lambda: "agent started" in agent.last_words(), PATIENCE_S, "the first agent")
    status, said = agent.command("run")
    assert status == 1
    assert said == f"agent: another agent (process {agent.pid}) works on {agent.data_dir}; stop it first\n"
    assert agent.running()


def test_a_folder_that_is_held_is_not_registered_from(plane: Plane, agent: Agent) -> None:
    """The lock comes before anything is made or sent."""
    agent.data_dir.mkdir()
    with DataDirLock(agent.data_dir):
        status, said = agent.command("run", "--token", new_token(plane.directory, "held"))
    assert status == 1
    assert f"another agent (process {os.getpid()})" in said
    assert {path.name for path in agent.data_dir.iterdir()} == {"agent.lock"}


def test_a_control_plane_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """L16: a first run tries until it is there; L37: its log never shows the token."""
    plane = Plane(tmp_path / "plane")
    token = new_token(plane.directory, "early")
    agent = Agent(tmp_path / "agent", plane.url, ("--podman-socket", str(tmp_path / "no.sock"), *UNMANAGED))
    try:
        agent.start(token)
        wait_for(lambda: "cannot be reached" in agent.last_words(), PATIENCE_S, "the first try to fail")
        with plane:
            wait_for(lambda: "agent started" in agent.last_words(), PATIENCE_S, "the registration")
            document = json.loads((agent.data_dir / identity.CONFIG).read_text())
            assert agent.stop() == 0
        keys = [(agent.data_dir / name).read_text().strip() for name in (identity.SIGNING_KEY, identity.WIREGUARD_KEY)]
        secrets = [document["registration"]["encryptionKey"], token, *keys]
        assert not any(secret in agent.log.read_text() for secret in secrets)
    finally:
        agent.kill()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "agent: this server is not registered: give the control plane's address with --url\n"),
        (
            ("--url", "http://127.0.0.1:1"),
            "give a registration token, in TECHULUS_TOKEN or with --token\n",
        ),
        (("--url", "http://192.0.2.1"), "use https, or --allow-http if you must\n"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """One line and status 1, before anything is sent."""
    argv = [str(Path(sys.executable).with_name("agent")), "run", "--data-dir", str(tmp_path / "agent"), *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TECHULUS_")}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=clean)
    assert done.returncode == 1
    assert done.stderr.endswith(said)
    assert done.stderr.count("\n") == 1
