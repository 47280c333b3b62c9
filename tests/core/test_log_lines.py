"""`core.log_lines`: what the log store is sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import log_lines


def test_times_to_the_nanosecond() -> None:
    """RFC 3339, in UTC, with all nine digits."""
    assert log_lines.rfc3339(1_767_500_000_000_000_001) == "2026-01-04T04:13:20.000000001Z"


def test_times_are_unique_and_increase() -> None:
    """L45: also when the clock stands still or goes back."""
    last, seen = 0, []
    for now in (100, 100, 100, 50, 200):
        last = log_lines.next_time(now, last)
        seen.append(last)
    assert seen == [100, 101, 102, 103, 200]


def test_a_clock_that_was_days_ahead() -> None:
    """What it said is not gone on with: the store would drop every line until then. One that begins in 1970 is not believed."""
    day = 86_400 * 10**9
    now = 1_795_000_000 * 10**9
    assert log_lines.next_time(now, now + 3 * day) == now
    assert log_lines.next_time(now, now + day) == now + day + 1
    assert log_lines.next_time(100 * day, now) == now + 1


@given(st.text())
def test_any_text_makes_one_line(text: str) -> None:
    """Of JSON, with the fields by which it is found."""
    raw = log_lines.build_line(text, 0, build_id="b", service_id="s", project_id="p")
    assert b"\n" not in raw
    found = json.loads(raw)
    assert found.keys() == {"_msg", "_time", "build_id", "service_id", "project_id", "log_type"}
    assert found["log_type"] == "build"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_builds_file_line_by_line(size: int) -> None:
    """As it is; torn lines, NUL bytes of a power cut and what has no end are left out, however the bytes are cut."""
    good = log_lines.build_line("x", 1, build_id="b", service_id="s", project_id="p") + b"\n"
    raw = (
        good * 3
        + good[:20]
        + b"\0" * 50
        + good
        + b"\n"
        + good[20:]
        + good
        + b"{"
        + b"x" * 300_000
        + b"}\n"
        + good
        + good[:-1]
    )
    made = log_lines.EncodedLines()
    found = b"".join(made.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    assert (found.replace(good, b""), made.lines, made.nul_bytes) == (b"", found.count(b"\n"), 50)
    assert (found.count(b"\n"), made.held_bytes, made.end()) == (6, len(good) - 1, b"")
