"""A refusal in words: one line, nothing secret, and a hint only where there is one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.refusal import hint, one_line, said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"Build already claimed"}', "Build already claimed"),
        (b'{"error":"two\\nlines\\u001b[2J"}', "two lines [2J"),
        (b'{"error":""}', ""),
        (b'{"error":null}', ""),
        (b'{"error":{"message":"x"}}', ""),
        (b'["error"]', ""),
        (b"<html>", ""),
        (b"", ""),
        (b"[" * 100_000, ""),
        (b'{"error":"\xff"}', ""),
    ],
)
def test_words(body: bytes, words: str) -> None:
    """Only an error of the control plane's form has words."""
    assert said(body) == words


def test_words_are_cut_and_masked() -> None:
    """L37: a hidden value is not repeated, wherever the text is cut."""
    body = json.dumps({"error": "x" * 595 + "hush-hush" + "y" * 1000}).encode()
    assert said(body, ("hush-hush",)) == "x" * 300
    assert said(json.dumps({"error": "no hush-hush!"}).encode(), ("hush-hush",)) == "no ***!"


@given(st.binary(max_size=300))
def test_no_body_breaks_it(body: bytes) -> None:
    """Anything at all is one printable line."""
    assert said(body).isprintable()


@given(st.text(max_size=1000))
def test_one_line(text: str) -> None:
    """Short, printable, and the same when done again."""
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= 300
    assert one_line(line) == line


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [
        (31.0, "this server's clock is 31 s behind the control plane's; set it (NTP)"),
        (-31.0, "this server's clock is 31 s ahead of the control plane's; set it (NTP)"),
        (30.0, "the control plane does not know this server's key"),
        (None, "the control plane does not know this server's key"),
    ],
)
def test_a_clock_is_blamed_only_when_it_is_off(skew_s: float | None, words: str) -> None:
    """Half a minute is half of what the control plane tolerates."""
    assert hint(401, "", signed=True, skew_s=skew_s) == words


def test_a_registration_has_no_time() -> None:
    """So the clock is not to blame for its refusal."""
    assert "token" in hint(401, "", signed=False, skew_s=3600)


def test_a_refused_timestamp_is_about_clocks_whatever_the_date_says() -> None:
    """A proxy in front of the control plane may set the date of its own clock."""
    words = "Request timestamp expired or invalid"
    assert "clock" in hint(401, words, signed=True, skew_s=None)
    assert "clock" in hint(401, words, signed=True, skew_s=0.0)
