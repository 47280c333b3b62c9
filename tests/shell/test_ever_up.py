"""`shell.ever_up`: what has been up is known after a crash, too."""

from pathlib import Path

import anyio
import pytest

from core.containers import ContainerId, DeploymentId
from shell import files
from shell.daemon import Daemon
from shell.ever_up import NAME, EverUp
from tests.builders import an_actual_container
from tests.shell import virtual_time
from tests.shell.scenery import Scenery, wanting
from tests.shell.stand_ins import failing

ONE, TWO = ContainerId("1" * 64), ContainerId("2" * 64)


def kept(folder: Path, *known: frozenset[ContainerId]) -> None:
    """Run a writer that hears of these, one after the other."""
    ever_up = EverUp(folder)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ever_up.file.run)
            for one in known:
                ever_up.keep(one)
                await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    virtual_time.run(main)


def test_what_is_kept_is_known_again(tmp_path: Path) -> None:
    """The latest, for the owner only; a first start knows nothing."""
    assert EverUp(tmp_path).known == frozenset()
    kept(tmp_path, frozenset({ONE}), frozenset({ONE, TWO}))
    assert EverUp(tmp_path).known == {ONE, TWO}
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    kept(tmp_path, frozenset({TWO}))
    assert EverUp(tmp_path).known == {TWO}


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    """The disk hears of containers that come and go only."""
    kept(tmp_path, frozenset({ONE}))
    before = (tmp_path / NAME).stat().st_ino
    kept(tmp_path, frozenset({ONE}), frozenset({ONE}))
    assert (tmp_path / NAME).stat().st_ino == before


def reported(folder: Path, state: str) -> list[list[str]]:
    """What an agent reports whose one container is found in this state after a power cut, and cannot be started."""
    scenery = Scenery(folder, wanting("a"))
    found = an_actual_container(id=ONE, name="a", deployment_id=DeploymentId("a"), state=state)
    scenery.stage.podman.there = {ONE: found}
    for call in ("start", "stop_and_remove"):
        scenery.stage.podman.scripts[call] = failing(call, "no room")

    async def main() -> None:
        with anyio.move_on_after(30):
            await Daemon(scenery.node).run()

    virtual_time.run(main)
    return scenery.reported


@pytest.mark.parametrize("state", ["exited", "dead"])
def test_what_had_run_before_a_power_cut_is_reported_before_it_runs_again(tmp_path: Path, state: str) -> None:
    """L31: Podman knows no end of it then, and the control plane takes what is left out for gone. L17: what has never run is left out."""
    assert {len(one) for one in reported(tmp_path, state)} == {0}
    files.write_atomic(tmp_path / NAME, b'{"version":1,"containers":["%s"]}' % ONE.encode())
    assert {len(one) for one in reported(tmp_path, state)} == {1}
    assert EverUp(tmp_path).known == {ONE}
    assert {len(one) for one in reported(tmp_path, "running")} == {1}


def test_what_runs_is_kept_and_what_is_gone_forgotten(tmp_path: Path) -> None:
    """By the agent as it runs."""
    reported(tmp_path, "running")
    assert EverUp(tmp_path).known == {ONE}
    scenery = Scenery(tmp_path, wanting())

    async def main() -> None:
        with anyio.move_on_after(30):
            await Daemon(scenery.node).run()

    virtual_time.run(main)
    assert EverUp(tmp_path).known == frozenset()
