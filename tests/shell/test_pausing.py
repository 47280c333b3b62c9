"""`shell.pausing`: the pause on disk."""

import stat
import threading
from pathlib import Path

import anyio
import pytest

from core import overview
from core.pause import Pause
from shell import state_file
from shell.failure import CommandError
from shell.pausing import NAME, PauseFile
from tests.lab.wait import PATIENCE_S
from tests.shell import hostile


class Clock:
    """A calendar that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


def test_it_outlives_the_one_who_paused(tmp_path: Path) -> None:
    """Written by a command, seen by an agent, also by the next one."""
    clock = Clock()
    agent = PauseFile(tmp_path, clock)
    assert agent() is None
    wanted = Pause(1000.0, 2000.0, "moving the disk")
    PauseFile(tmp_path, clock).save(wanted)
    assert agent() == wanted
    assert PauseFile(tmp_path, clock)() == wanted
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_it_ends_by_itself_or_when_somebody_says_so(tmp_path: Path) -> None:
    """An end in time needs nobody; without one, only `clear` ends it."""
    clock = Clock()
    pause = PauseFile(tmp_path, clock)
    pause.save(Pause(1000.0, 1010.0))
    clock.now = 1009.9
    assert pause() is not None
    clock.now = 1010.0
    assert pause() is None
    pause.save(Pause(1010.0))
    clock.now = 1e9
    assert pause() is not None
    assert PauseFile(tmp_path, clock).clear()
    assert pause() is None
    assert not pause.clear()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"since_s": "x"}',
        b'{"since_s": 1, "untill_s": 5}',
        b'{"since_s": 1767500000000}',
        b'{"since_s": 1, "until_s": 1e300}',
        b'{"since_s": 1, "until_s": NaN}',
        b'{"since_s": -Infinity}',
    ],
)
def test_a_file_that_makes_no_sense_pauses(tmp_path: Path, content: bytes) -> None:
    """Somebody meant something by it; the reason says what is wrong and what removes it."""
    (tmp_path / NAME).write_bytes(content)
    found = PauseFile(tmp_path, Clock())()
    assert found is not None
    assert found.until_s is None
    assert "agent resume" in found.reason
    assert overview.pause_json(found), "and it can be shown: one in milliseconds must not end the agent"
    assert PauseFile(tmp_path, Clock()).clear()


def test_a_file_by_hand(tmp_path: Path) -> None:
    """A number as text is a number."""
    (tmp_path / NAME).write_bytes(b'{"since_s": 17, "until_s": "2000"}')
    assert PauseFile(tmp_path, Clock())() == Pause(17, 2000)


def test_a_file_that_cannot_be_looked_at_pauses(tmp_path: Path) -> None:
    """Trouble of the disk ends no pause. It is the same pause each time, for each new one would be said."""
    (tmp_path / NAME).symlink_to(NAME)
    clock = Clock()
    pause = PauseFile(tmp_path, clock)
    first = pause()
    clock.now += 60
    assert first is not None
    assert pause() is first
    assert pause.clear()
    assert pause() is None


def test_what_was_changed_by_hand_is_seen(tmp_path: Path) -> None:
    """The file is read again when it is another, and only then."""
    clock = Clock()
    agent = PauseFile(tmp_path, clock)
    for reason in ("disk", "fans"):
        PauseFile(tmp_path, clock).save(Pause(1000.0, None, reason))
        found = agent()
        assert found is not None
        assert found.reason == reason
        assert agent() is found
    (tmp_path / NAME).unlink()
    assert agent() is None


def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    """The person hears why."""
    with pytest.raises(CommandError, match="cannot be written"):
        PauseFile(tmp_path / "missing", Clock()).save(Pause(0.0))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CommandError, match="cannot be removed"):
        PauseFile(tmp_path / "file", Clock()).clear()


@pytest.mark.parametrize("spoil", hostile.CONTENTS)
def test_whatever_lies_there_pauses_until_somebody_says_so(tmp_path: Path, spoil: str) -> None:
    """L60: reading never waits, the pause is one pause, and `agent resume` ends it."""
    hostile.CONTENTS[spoil](tmp_path / NAME)
    pause = PauseFile(tmp_path, Clock())
    first = pause()
    assert first is not None
    assert pause() is first
    assert pause.clear()
    assert pause() is None


def test_a_disk_that_hangs_holds_up_no_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L60: the daemon has the file read in a thread; several loops that ask at once hear the same."""
    PauseFile(tmp_path, Clock()).save(Pause(1000.0, None, "disk"))
    pause, hangs, read = PauseFile(tmp_path, Clock()), threading.Event(), state_file.read
    answers: list[Pause | None] = []

    def slow(path: Path) -> bytes:
        assert hangs.wait(PATIENCE_S)
        return read(path)

    monkeypatch.setattr(state_file, "read", slow)

    async def ask() -> None:
        answers.append(await pause.in_force())

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
            await anyio.sleep(0.1)
            assert answers == [], "nobody goes on before it is known"
            hangs.set()

    anyio.run(main)
    assert answers == [Pause(1000.0, None, "disk")] * 3
    assert anyio.run(pause.is_paused)
