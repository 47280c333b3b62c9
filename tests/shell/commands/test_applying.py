"""`agent apply`: once until nothing more can be done now, and a verdict that is true."""

import io
import json
import os
import signal
from pathlib import Path

import anyio
import pytest
from rich.console import Console

from shell.commands.applying import Display, _apply
from shell.daemon import Daemon
from shell.failure import CommandError
from shell.last_good import NAME
from tests.builders import an_actual_container, an_image
from tests.shell import virtual_time
from tests.shell.scenery import Scenery, wanting
from tests.shell.stand_ins import failing, hanging, taking

LIMIT_S = 60.0


def apply(scenery: Scenery) -> tuple[float, str]:
    """How long it took and what was shown; CommandError as the command raises it."""
    shown = io.StringIO()
    display = Display(Console(file=shown, width=200))

    async def main() -> float:
        with anyio.fail_after(LIMIT_S * 60):
            await _apply(Daemon(scenery.node, display.observe), display)
        return anyio.current_time()

    took = virtual_time.run(main)
    assert scenery.plane.closed
    display.verdict()
    return took, shown.getvalue()


def test_until_converged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every change is shown with what is left, and it ends by itself at once."""
    scenery = Scenery(tmp_path, wanting("a", "b"))
    took, shown = apply(scenery)
    assert took <= 1.0, "two reports are a second apart"
    assert [line.split()[:4] for line in shown.splitlines()] == [
        ["2", "left", "deploy", "a"],
        ["1", "left", "deploy", "b"],
    ]
    assert capsys.readouterr().err.startswith("converged: 2 changes in ")
    assert scenery.reported[-1] == ["a", "b"]


def test_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is shown."""
    assert apply(Scenery(tmp_path, wanting())) == (0, "")
    assert capsys.readouterr().err.startswith("converged: 0 changes")


def test_a_change_that_fails(tmp_path: Path) -> None:
    """The others are made; then it ends and says why."""
    scenery = Scenery(tmp_path, wanting("a", "b", "c"))
    engine = scenery.stage.podman

    async def refuse() -> None:
        if engine.journal[-1][1] == "b":
            await failing("create container b", "no space left")()

    engine.scripts["create_and_start"] = refuse
    with pytest.raises(CommandError, match=r"1 changes are left; .*no space left"):
        apply(scenery)
    assert scenery.made == ["a", "b", "c"]
    assert sorted(engine.there) == ["id-a", "id-c"]


def test_a_slow_pull_is_waited_for(tmp_path: Path) -> None:
    """Put aside is not at rest."""
    scenery = Scenery(tmp_path, wanting("a"))
    scenery.stage.podman.scripts["pull"] = taking(45)
    took, _ = apply(scenery)
    assert 45 <= took <= 50
    assert scenery.made == ["a"]


def test_a_suspicious_state_is_asked_for_twice(tmp_path: Path) -> None:
    """L2: held back until the next poll says the same, and that is waited for."""
    scenery = Scenery(tmp_path, wanting())
    for name in "abcd":
        one = an_actual_container(id=name, name=name, deployment_id=name, image=an_image())
        scenery.stage.podman.there[one.id] = one
    took, shown = apply(scenery)
    assert took > 5
    assert shown.count("stop_orphan") == 4


def test_a_container_whose_successor_makes_no_sense(tmp_path: Path) -> None:
    """L7: it stays, and nothing is waited for that no time brings."""
    scenery = Scenery(tmp_path, wanting("new"))
    service = scenery.document["containers"][0]["serviceId"]
    scenery.document["containers"][0]["image"] = "no image!"
    scenery.plane.document = json.dumps(scenery.document).encode()
    old = an_actual_container(id="old", name="old", deployment_id="old", image=an_image(), service_id=service)
    scenery.stage.podman.there[old.id] = old
    with pytest.raises(CommandError, match="1 changes are left"):
        apply(scenery)
    assert list(scenery.stage.podman.there) == ["old"]


@pytest.mark.parametrize("known", [True, False], ids=["last good state", "nothing known"])
def test_a_control_plane_that_is_away(tmp_path: Path, known: bool) -> None:
    """The verdict says so, even when the last good state was applied."""
    if known:
        (tmp_path / NAME).write_bytes(Scenery(tmp_path, wanting("a")).plane.document)
    scenery = Scenery(tmp_path, wanting("never"))
    scenery.plane.scripts["fetch"] = failing("fetch the expected state", "connection refused")
    with pytest.raises(CommandError, match="connection refused"):
        apply(scenery)
    assert scenery.made == (["a"] if known else [])


@pytest.mark.parametrize("known", [True, False], ids=["last good state", "nothing known"])
def test_a_server_that_cannot_be_seen(tmp_path: Path, known: bool) -> None:
    """L3: it did not converge, and the verdict says why."""
    if known:
        (tmp_path / NAME).write_bytes(Scenery(tmp_path, wanting("a")).plane.document)
    scenery = Scenery(tmp_path, wanting("a"))
    scenery.stage.podman.scripts["containers"] = failing("list containers", "socket gone")
    with pytest.raises(CommandError, match="socket gone"):
        apply(scenery)
    assert scenery.made == []


def test_a_server_that_cannot_be_seen_any_more(tmp_path: Path) -> None:
    """L3: in the middle of the work; what was found before says nothing about now."""
    scenery = Scenery(tmp_path, wanting("a", "b"))
    engine = scenery.stage.podman

    async def break_down() -> None:
        engine.scripts["containers"] = failing("list containers", "socket gone")

    engine.scripts["create_and_start"] = break_down
    with pytest.raises(CommandError, match="socket gone"):
        apply(scenery)


def test_being_stopped(tmp_path: Path) -> None:
    """Ctrl-C: the change in hand is finished; the rest is left, and said."""
    scenery = Scenery(tmp_path, wanting("a", "b"))

    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep(3)

    scenery.stage.podman.scripts["create_and_start"] = interrupt
    with pytest.raises(CommandError, match="1 changes are left; stopped"):
        apply(scenery)
    assert scenery.made == ["a"]


@pytest.mark.parametrize("known", [True, False], ids=["last good state", "nothing known"])
def test_being_stopped_before_anything_was_seen(tmp_path: Path, known: bool) -> None:
    """Not converged, whatever was in force before."""
    if known:
        (tmp_path / NAME).write_bytes(Scenery(tmp_path, wanting("a")).plane.document)
    scenery = Scenery(tmp_path, wanting("a"))

    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await hanging()

    scenery.plane.scripts["fetch"] = interrupt
    with pytest.raises(CommandError, match="stopped"):
        apply(scenery)
