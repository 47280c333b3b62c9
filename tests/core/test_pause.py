"""`core.pause`: durations as people write them, and when a pause is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core.pause import Pause, is_over, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800), ("365d", 31_536_000)],
)
def test_a_duration(text: str, seconds: int) -> None:
    """Numbers with units, joined."""
    assert parse_duration(text).unwrap() == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1 h", "1.5h", "-1h", "1h ", "1H", "1w", "0s", "366d", "٣s", "9" * 40 + "s"]
)
def test_no_duration(text: str) -> None:
    """Refused with what was given, so that a typo does not pause for ever."""
    assert text[:20] in parse_duration(text).failure()


@given(st.text())
def test_any_text(text: str) -> None:
    """A number of seconds from one to a year, or a reason."""
    found = parse_duration(text)
    assert not is_successful(found) or 1 <= found.unwrap() <= 365 * 86_400


def test_when_it_is_over() -> None:
    """At its end and after it; never without one."""
    assert not is_over(Pause(0.0, 10.0), 9.9)
    assert is_over(Pause(0.0, 10.0), 10.0)
    assert not is_over(Pause(0.0), 1e12)
