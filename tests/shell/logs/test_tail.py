"""`shell.logs.tail` and `positions`: read on through whatever is done to a file."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from shell.logs.positions import Positions
from shell.logs.tail import Position, Tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with a line."""
    path = tmp_path / "log"
    path.write_text("one\n")
    return path


@pytest.fixture
def tail(log: Path) -> Iterator[Tail]:
    """From its beginning."""
    made = Tail(log)
    yield made
    made.close()


def more(path: Path, text: str) -> None:
    """What a writer does."""
    with path.open("a") as file:
        file.write(text)


def test_it_grows(tail: Tail, log: Path) -> None:
    """Each byte once, as many as asked for."""
    assert tail.read(2) == b"on"
    assert tail.read(99) == b"e\n"
    assert tail.read(99) == b""
    more(log, "two\n")
    assert tail.read(99) == b"two\n"


def test_rotated_by_rename(tail: Tail, log: Path) -> None:
    """The old one to its end, also what came after the last look; then the new one."""
    tail.read(99)
    more(log, "two\n")
    log.rename(log.with_suffix(".1"))
    log.write_text("three\n")
    assert [tail.read(99) for _ in range(3)] == [b"two\n", b"three\n", b""]
    assert tail.missed == 0


def test_rotated_by_removal(tail: Tail, log: Path) -> None:
    """As Podman does it; the file that has no name any more is still read."""
    tail.read(1)
    more(log, "two\n")
    log.unlink()
    assert tail.read(99) == b"ne\ntwo\n"
    assert tail.read(99) == b""
    assert tail.is_gone
    log.write_text("three\n")
    assert tail.read(99) == b"three\n"


def test_truncated(tail: Tail, log: Path) -> None:
    """Begun anew."""
    tail.read(99)
    log.write_text("x\n")
    assert tail.read(99) + tail.read(99) == b"x\n"


def test_not_there_yet(tmp_path: Path) -> None:
    """Nothing, until it comes."""
    tail = Tail(tmp_path / "later")
    assert tail.read(99) == b""
    (tmp_path / "later").write_text("x")
    assert tail.read(99) == b"x"
    tail.close()


def test_only_what_is_new(log: Path) -> None:
    """A file that is there is read from its end, what replaces it from its beginning, and one with a position from there."""
    fresh = Tail(log, is_new_only=True)
    assert fresh.read(99) == b""
    position = fresh.position(0, 0)
    more(log, "two\n")
    assert fresh.read(99) == b"two\n"
    log.rename(log.with_suffix(".1"))
    log.write_text("three\n")
    assert fresh.read(99) == b"three\n"
    fresh.close()
    log.with_suffix(".1").rename(log)
    again = Tail(log, position, is_new_only=True)
    assert again.read(99) == b"two\n"
    again.close()


def test_only_what_is_new_of_a_file_that_comes_later(tmp_path: Path) -> None:
    """All of it."""
    tail = Tail(tmp_path / "later", is_new_only=True)
    assert tail.read(99) == b""
    (tmp_path / "later").write_text("one\n")
    assert tail.read(99) == b"one\n"
    tail.close()


def test_read_on_after_a_restart(tail: Tail, log: Path) -> None:
    """From what was safe, in the same file; another file is read from its beginning, and said to be another."""
    tail.read(99)
    position = tail.position(2, 5)
    assert position is not None
    assert (position.offset, position.last_ns) == (2, 5)
    again = Tail(log, position)
    assert again.position(0, 0) == position
    assert again.read(99) == b"e\n"
    assert again.missed == 0
    again.close()
    log.rename(log.with_suffix(".1"))
    log.write_text("new\n")
    other = Tail(log, position)
    assert other.read(99) == b"new\n"
    assert other.missed == 1
    other.close()


def test_positions_outlive_the_agent(tmp_path: Path) -> None:
    """Kept, changed, forgotten."""
    one, two = Position(1, 2, 3, 4), Position(1, 2, 9, 4, (("stderr", b"half \xff"),))
    anyio.run(Positions(tmp_path / "p.json").keep, {"/a": one, "/b": one})
    anyio.run(Positions(tmp_path / "p.json").keep, {"/a": two, "/b": None})
    found = Positions(tmp_path / "p.json")
    assert found.get(Path("/a")) == two
    assert found.get(Path("/b")) is None


@pytest.mark.parametrize("content", ["", "{", '{"version": 1, "positions": {"/a": 5}}'])
def test_positions_that_make_no_sense(tmp_path: Path, content: str) -> None:
    """Moved aside with a warning; a power cut may have done it."""
    (tmp_path / "p.json").write_text(content)
    with capture_logs() as said:
        assert Positions(tmp_path / "p.json").get(Path("/a")) is None
    assert [one["event"] for one in said] == ["state file not usable"]


def test_positions_that_cannot_be_written(tmp_path: Path) -> None:
    """Shipping goes on."""
    with capture_logs() as said:
        anyio.run(Positions(tmp_path / "missing" / "p.json").keep, {"/a": Position(1, 2, 3)})
    assert [one["event"] for one in said] == ["state file not written"]
