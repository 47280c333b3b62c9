"""All state files of the agent, as `agent run` meets them: whatever lies there, only the identity and a newer version stop the start."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest
from structlog.testing import capture_logs

from core.protocol import RegistrationRequest
from shell import identity, opening
from shell.building.workplace import left_over
from shell.failure import CommandError
from shell.options import Options
from tests.lab.agent import Agent
from tests.lab.wait import PATIENCE_S, wait_for
from tests.shell import hostile
from tests.shell.command_line import daemon

NOWHERE: Final = "http://127.0.0.1:9"  # where no control plane is: all that is asked of it is no part of this
OPTIONS: Final = ("--unmanaged", "dns", "--unmanaged", "wireguard", "--podman-socket", "/nowhere.sock")
OPTIONS_WITH_LOGS: Final = (*OPTIONS, "--no-builds", "--logs-endpoint", NOWHERE)

# What is read at a start, and whether what cannot be used is moved aside. A pause that makes no sense stays, and pauses.
FILES: Final = {
    "work-done.json": True,
    "images.json": True,
    "ever-up.json": True,
    "deployment-images.json": True,
    "expected-state.json": True,
    "paused.json": False,
    "logs/positions.json": True,
    "logs/spool/0000000000000001-1.batch": False,
    "agent.sock": False,
}
IDENTITY: Final = ("config.json", "signing.key", "wireguard.key")


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an identity and nothing else."""
    folder = tmp_path_factory.mktemp("registered")

    async def answer(request: RegistrationRequest) -> bytes:
        await anyio.lowlevel.checkpoint()
        return json.dumps(
            {"serverId": "s", "subnetId": 3, "wireguardIp": "10.100.3.1", "encryptionKey": "ab" * 32}
        ).encode()

    anyio.run(lambda: identity.register(folder, NOWHERE, "token", False, answer))
    return folder


@pytest.fixture
def data_dir(registered: Path, tmp_path: Path) -> Path:
    """One of its own for a test."""
    folder = tmp_path / "data"
    shutil.copytree(registered, folder)
    folder.chmod(0o700)
    return folder


@pytest.fixture
def agent(data_dir: Path) -> Iterator[Agent]:
    """The agent on it."""
    made = Agent(data_dir, NOWHERE, (*OPTIONS_WITH_LOGS, "--log-format", "json"))
    yield made
    made.kill()


def started(agent: Agent) -> str:
    """Start it, see it answer, stop it: what it logged."""
    agent.start()
    wait_for(
        lambda: not agent.running() or '"agent started"' in agent.log.read_text(), PATIENCE_S, "the agent to start"
    )
    wait_for(lambda: not agent.running() or agent.status()["running"], PATIENCE_S, "the agent to answer")
    assert agent.running(), agent.last_words()
    assert agent.stop() == 0
    return agent.log.read_text()


@pytest.mark.parametrize("spoil", hostile.CONTENTS)
def test_a_start_survives_whatever_lies_there(agent: Agent, data_dir: Path, spoil: str) -> None:
    """L60: in the place of all state files at once: no traceback, and one line for each."""
    (data_dir / "logs" / "spool").mkdir(parents=True)
    for name in FILES:
        hostile.CONTENTS[spoil](data_dir / name)
    text = started(agent)
    assert "Traceback" not in text
    said = [json.loads(line) for line in text.splitlines()]
    unusable = [one["path"] for one in said if one["event"] == "state file not usable"]
    moved = [name for name, is_moved in FILES.items() if is_moved]
    assert sorted(unusable) == sorted(str(data_dir / name) for name in moved)
    assert all(
        data_dir.joinpath(f"{name}.corrupt-1").is_symlink() or data_dir.joinpath(f"{name}.corrupt-1").exists()
        for name in moved
    )
    assert [one["level"] for one in said if one["event"] == "paused"] == ["warning"]


@pytest.mark.parametrize("name", ["logs", "logs/spool"])
def test_a_file_in_the_place_of_a_folder(agent: Agent, data_dir: Path, name: str) -> None:
    """L60: moved aside as well."""
    (data_dir / name).parent.mkdir(exist_ok=True)
    (data_dir / name).write_bytes(b"")
    assert "state folder not usable" in started(agent)
    assert (data_dir / "logs" / "spool").is_dir()


@pytest.mark.parametrize("name", IDENTITY)
@pytest.mark.parametrize("spoil", hostile.CONTENTS)
def test_an_identity_that_cannot_be_used_is_one_clear_line(data_dir: Path, name: str, spoil: str) -> None:
    """L60: it stops the start, since nobody may go on as somebody else."""
    (data_dir / name).unlink()
    hostile.CONTENTS[spoil](data_dir / name)

    async def start() -> None:
        with pytest.raises(CommandError) as caught:
            await opening.registered_now(Options(data_dir=data_dir, url=NOWHERE), None)
        assert len(str(caught.value)) < 500

    anyio.run(start)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("work-done.json", {"version": 99, "done": {}}),
        ("images.json", {"version": 99}),
        ("ever-up.json", {"version": 99, "containers": 5}),
        ("deployment-images.json", {"version": 99, "images": []}),
        ("logs/positions.json", {"version": 99}),
        ("config.json", {"version": 99}),
    ],
)
def test_a_newer_version_is_one_clear_line(data_dir: Path, name: str, content: object) -> None:
    """L60: and the file stays as it is, whatever else has changed in it."""
    (data_dir / "logs").mkdir()
    (data_dir / name).write_text(json.dumps(content))
    done = daemon("run", "--url", NOWHERE, "--data-dir", data_dir, *OPTIONS_WITH_LOGS)
    assert done.status == 1
    assert "Traceback" not in done.err
    *_, last = done.err.splitlines()
    assert last.startswith(f"agent: {data_dir / name} is of version 99")
    assert json.loads((data_dir / name).read_text()) == content


@pytest.mark.parametrize("spoil", hostile.CONTENTS)
@pytest.mark.parametrize("name", ["build.json", "session"])
def test_what_a_build_has_left(tmp_path: Path, name: str, spoil: str) -> None:
    """L60: a record that cannot be used is a build of which nothing is known; one line says so."""
    folder = tmp_path / "build-1"
    folder.mkdir()
    hostile.CONTENTS[spoil](folder / name)
    with capture_logs() as said:
        assert list(left_over(tmp_path)) == [(folder, None)]
    if name == "build.json":
        assert [(one["event"], one["path"]) for one in said] == [("state file not usable", str(folder / name))]
        assert os.path.lexists(folder / f"{name}.corrupt-1")
