"""`shell.state_file`: whatever lies in a state file's place, a start goes on; writing is tried until the disk takes the latest."""

import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
import pytest
from structlog.testing import capture_logs

from shell import state_file
from shell.failure import CommandError
from shell.state_file import AGAIN_S, StateFile, json_format
from tests.lab.small_disk import fill, small_disk
from tests.shell import hostile, virtual_time

NAME: Final = "things.json"


class Things(msgspec.Struct, frozen=True):
    """A state file's content."""

    version: int
    names: tuple[str, ...]


FORMAT: Final = json_format(Things, "things", lost="things are made anew", unwritten="things get lost", version=2)
A, B = Things(2, ("a",)), Things(2, ("b",))


@pytest.fixture
def file(tmp_path: Path) -> StateFile[Things]:
    """A state file that is not there."""
    return StateFile(tmp_path / NAME, FORMAT)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    with small_disk(tmp_path / "disk", "size=1m") as found:
        yield found


def events(said: list[Any]) -> list[str]:
    """What was logged, in order."""
    return [one["event"] for one in said]


def test_a_first_start_has_none(file: StateFile[Things]) -> None:
    """And logs nothing about it."""
    with capture_logs() as said:
        assert file.load() is None
    assert said == []


def test_what_is_saved_is_loaded(file: StateFile[Things]) -> None:
    """For the owner only."""
    anyio.run(file.save, A)
    assert file.load() == A
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.write(B)
    assert file.load() == B


@pytest.mark.parametrize("spoil", hostile.CONTENTS)
def test_whatever_lies_there_is_moved_aside(file: StateFile[Things], spoil: str) -> None:
    """L60: nothing blocks and nothing is lost; one line says what was wrong; the next start finds nothing to say."""
    hostile.CONTENTS[spoil](file.path)
    before = os.lstat(file.path)
    with capture_logs() as said:
        assert file.load() is None
        assert file.load() is None
    (one,) = said
    assert (one["event"], one["file"]) == ("state file not usable", "things")
    assert one["then"] == f"moved to {file.path}.corrupt-1; things are made anew"
    assert os.lstat(f"{file.path}.corrupt-1").st_ino == before.st_ino
    file.write(A)
    assert file.load() == A


def test_what_cannot_be_moved_stops_nothing(file: StateFile[Things], monkeypatch: pytest.MonkeyPatch) -> None:
    """L60: even when there are too many such files already."""
    monkeypatch.setattr("shell.files._ASIDE_LIMIT", 1)
    file.path.write_bytes(b"torn")
    with capture_logs() as said:
        assert file.load() is None
    assert "look into" in said[0]["then"]


@pytest.mark.parametrize("names", [[], 5, {"a": 1}])
def test_a_newer_file_is_refused_and_stays(file: StateFile[Things], names: object) -> None:
    """L60: whatever else has changed in it."""
    file.path.write_text(json.dumps({"version": 3, "names": names}))
    with pytest.raises(CommandError, match=rf"{NAME} is of version 3, written by a newer agent; this one knows 2"):
        file.load()
    assert file.path.exists()


def test_reading_follows_a_link_only_when_asked(tmp_path: Path) -> None:
    """Keys may be mounted as links."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_bytes(b"content")
    with pytest.raises(OSError, match="is a symbolic link"):
        state_file.read(tmp_path / "link")
    assert state_file.read(tmp_path / "link", follow=True) == b"content"


def test_the_latest_is_written_as_soon_as_the_disk_takes_it(disk: Path) -> None:
    """L60: on a disk that is really full; the complaint and its end are logged once."""
    file = StateFile(disk / NAME, FORMAT)
    file.write(A)
    fill(disk)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(file.run)
            file.put(Things(2, ("x" * 10_000,)))
            await anyio.sleep(2.5 * AGAIN_S)
            assert file.load() == A
            file.put(B)
            await anyio.to_thread.run_sync((disk / "filling").unlink)
            await anyio.sleep(AGAIN_S)
            tasks.cancel_scope.cancel()

    with capture_logs() as said:
        virtual_time.run(main)
    assert events(said) == ["state file not written", "state file written again"]
    assert "things get lost" in said[0]["then"]
    assert file.load() == B


def test_who_must_know_hears_that_the_disk_refused_it(disk: Path) -> None:
    """And the writer goes on trying."""
    file = StateFile(disk / NAME, FORMAT)
    fill(disk)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(file.run)
            with pytest.raises(OSError, match="No space left"):
                await file.save(B)
            await anyio.to_thread.run_sync((disk / "filling").unlink)
            await anyio.sleep(2 * AGAIN_S)
            tasks.cancel_scope.cancel()

    virtual_time.run(main)
    assert file.load() == B


def test_an_end_writes_what_is_left(file: StateFile[Things]) -> None:
    """A value that was put just before the agent ends."""

    async def main() -> None:
        file.put(A)
        await file.flush()
        await file.flush()

    anyio.run(main)
    assert file.load() == A


def test_savers_at_once_leave_the_latest(file: StateFile[Things]) -> None:
    """One writer, and each returns once its value or a later one is there."""

    async def main() -> None:
        async def save(number: int) -> None:
            await file.save(Things(2, (str(number),)))
            found = file.load()
            assert found is not None and int(found.names[0]) >= number

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(save, number)

    anyio.run(main)
    assert file.load() == Things(2, ("19",))


def test_nothing_is_written_on_the_event_loop(tmp_path: Path) -> None:
    """L60: a disk that hangs holds up nothing else."""
    threads: list[int] = []

    def encode(things: Things) -> bytes:
        threads.append(threading.get_ident())
        return msgspec.json.encode(things)

    anyio.run(StateFile(tmp_path / NAME, replace(FORMAT, encode=encode)).save, A)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_disk_that_hangs_holds_up_no_stop(tmp_path: Path) -> None:
    """L13: whoever waits for it is let go, and the next writer waits for the one that hangs."""
    going, began = threading.Event(), threading.Event()

    def encode(things: Things) -> bytes:
        began.set()
        assert going.wait(60)
        return msgspec.json.encode(things)

    file = StateFile(tmp_path / NAME, replace(FORMAT, encode=encode))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(file.save, A)
            assert await anyio.to_thread.run_sync(began.wait, 60)
            tasks.cancel_scope.cancel()
        assert not file.path.exists()
        going.set()
        await file.save(B)

    anyio.run(main)
    assert file.load() == B
