"""`shell.ledger`: what was done is known after a crash."""

import json
from pathlib import Path

import anyio
import pytest

from shell.ledger import NAME, Ledger


def test_what_is_done_is_known_to_the_next_run(tmp_path: Path) -> None:
    """L26: with the error of what failed."""
    ledger = Ledger(tmp_path)
    anyio.run(ledger.add, "good", None)
    anyio.run(ledger.add, "bad", "it would not")
    later = Ledger(tmp_path)
    assert "good" in later
    assert later.error_of("good") is None
    assert later.error_of("bad") == "it would not"
    assert "other" not in later


def test_what_is_begun_is_known_until_it_is_done(tmp_path: Path) -> None:
    """L26: killed in the middle, the next run has the mark."""
    ledger = Ledger(tmp_path)
    ledger.still_pending({"one", "two"})
    anyio.run(ledger.begin, "one", "pid 7")
    anyio.run(ledger.begin, "two", "pid 8")
    later = Ledger(tmp_path)
    later.still_pending({"one", "two"})
    assert later.mark_of("one") == "pid 7"
    anyio.run(later.add, "one", None)
    assert later.mark_of("one") is None
    assert Ledger(tmp_path).mark_of("two") == "pid 8"


def test_marks_of_items_that_vanished_are_forgotten(tmp_path: Path) -> None:
    """An aborted rollout takes its items away; the file does not grow for ever."""
    ledger = Ledger(tmp_path)
    ledger.still_pending({"one"})
    anyio.run(ledger.begin, "one", "pid 7")
    ledger.still_pending(set())
    anyio.run(ledger.add, "other", None)
    assert json.loads((tmp_path / NAME).read_text())["begun"] == []


def test_only_what_is_asked_for_no_longer_is_forgotten(tmp_path: Path) -> None:
    """L26: 1,500 items that wait to be acknowledged are all remembered; later only the newest 1,000 are kept."""
    ids = [f"w{number}" for number in range(1500)]
    (tmp_path / NAME).write_text(json.dumps({"version": 2, "done": [{"id": one} for one in ids]}))
    ledger = Ledger(tmp_path)
    ledger.still_pending(frozenset(ids))
    anyio.run(ledger.add, "new", None)
    assert all(one in Ledger(tmp_path) for one in ids)
    ledger.still_pending(frozenset())
    anyio.run(ledger.add, "newer", None)
    later = Ledger(tmp_path)
    assert ids[0] not in later
    assert ids[-1] in later
    assert "newer" in later


def test_endless_items_are_not_all_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a control plane that takes no acknowledgement and always asks for more the oldest are forgotten."""
    monkeypatch.setattr("shell.ledger._MOST", 3)
    ledger = Ledger(tmp_path)
    ledger.still_pending(frozenset("abcde"))
    for one in "abcde":
        anyio.run(ledger.add, one, None)
    assert [one for one in "abcde" if one in Ledger(tmp_path)] == ["c", "d", "e"]


def test_a_file_of_the_first_version(tmp_path: Path) -> None:
    """An upgrade forgets nothing."""
    (tmp_path / NAME).write_text(json.dumps({"version": 1, "done": [{"id": "w", "error": "no"}]}))
    assert Ledger(tmp_path).error_of("w") == "no"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"done": 5}', '{"done": [{"id": 5}]}'])
def test_a_file_that_makes_no_sense_is_moved_aside(tmp_path: Path, content: str) -> None:
    """L24: the agent starts, and a person finds what was there."""
    (tmp_path / NAME).write_text(content)
    ledger = Ledger(tmp_path)
    anyio.run(ledger.add, "w", None)
    assert "w" in Ledger(tmp_path)
    assert [one.read_text() for one in tmp_path.iterdir() if one.name != NAME] == [content]


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """The caller hears of it, and this run knows all the same."""
    folder = tmp_path / "gone"
    folder.mkdir()
    ledger = Ledger(folder)
    folder.rmdir()
    with pytest.raises(OSError, match="gone"):
        anyio.run(ledger.add, "w", "why")
    assert ledger.error_of("w") == "why"
