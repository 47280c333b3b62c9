"""`core.container_log`: Podman's files to lines, none lost, none too long, with times that increase."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import container_log
from core.container_log import LONGEST_ENCODED, Assembler, Source, parse_time

SOURCE = Source("d", "s")
AT = b"2026-11-23T11:30:04.%09d+00:00"


def a_line(text: bytes, stream: bytes = b"stdout", kind: bytes = b"F", at: int = 1) -> bytes:
    """One line of the file."""
    return AT % at + b" " + stream + b" " + kind + b" " + text + b"\n"


def out(*chunks: bytes, end: bool = False, last_ns: int = 0) -> list[dict[str, Any]]:
    """What comes of it."""
    made = Assembler(SOURCE, last_ns)
    raw = b"".join(made.feed(chunk) for chunk in chunks) + (made.end() if end else b"")
    assert made.lines == raw.count(b"\n")
    return [json.loads(line) for line in raw.splitlines()]


def test_a_line_with_all_that_it_is_found_by() -> None:
    """As the interface asks for it."""
    assert out(a_line(b"hello world", b"stderr", at=877028358)) == [
        {
            "_msg": "hello world",
            "_time": "2026-11-23T11:30:04.877028358Z",
            "deployment_id": "d",
            "service_id": "s",
            "log_type": "container",
            "stream": "stderr",
        }
    ]


def test_parts_are_joined_per_stream() -> None:
    """L45: the rest may come after lines of the other stream."""
    raw = a_line(b"par", kind=b"P") + a_line(b"other", b"stderr") + a_line(b"ti", kind=b"P") + a_line(b"al")
    assert [(one["stream"], one["_msg"]) for one in out(raw)] == [("stderr", "other"), ("stdout", "partial")]


NULS = b"\0" * 5000


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        (a_line(b"one") + NULS + a_line(b"two", at=7), ["one", "two"]),
        (a_line(b"one")[:-1] + NULS + a_line(b"two", at=7), ["one", "two"]),
        (a_line(b"half")[:-3] + NULS + a_line(b"two", at=7), ["ha", "two"]),
        (a_line(b"one") + NULS + b"rest\n" + a_line(b"two", at=7), ["one", "rest", "two"]),
        (a_line(b"one") + NULS + b"\n" + a_line(b"two", at=7), ["one", "two"]),
        (a_line(b"o\0n\0\0e", b"stderr") + a_line(b"two", at=7), ["one", "two"]),
        (a_line(b"on", kind=b"P") + NULS + a_line(b"e", at=7), ["one"]),
    ],
    ids=["between lines", "for a newline", "for an end", "for a beginning", "a line", "a container's own", "parts"],
)
@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_nul_bytes_are_left_out(raw: bytes, texts: list[str], size: int) -> None:
    """As a power cut leaves them: counted, and the line after them has its own time, however the bytes are cut."""
    made = Assembler(SOURCE)
    encoded = b"".join(made.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    shown = [json.loads(line) for line in encoded.splitlines()]
    assert [one["_msg"] for one in shown] == texts
    assert shown[-1]["_time"].endswith("000000007Z")
    assert made.nul_bytes == raw.count(b"\0")


def test_a_block_of_nul_bytes_takes_no_memory() -> None:
    """L58: whatever its size; what stands before it is read again after a crash."""
    made = Assembler(SOURCE)
    made.feed(a_line(b"half")[:-3])
    for _ in range(2000):
        assert made.feed(b"\0" * 65_536) == b""
    assert len(made._left) < 100
    assert made.held_bytes == len(a_line(b"half")[:-3]) + 2000 * 65_536


@given(st.integers(1, 300))
def test_however_the_bytes_are_cut(size: int) -> None:
    """The same lines."""
    raw = b"".join(a_line(b"line %d" % number, kind=b"P" if number % 3 else b"F", at=number) for number in range(20))
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert out(*chunks) == out(raw)


@pytest.mark.parametrize(
    ("stamp", "time"),
    [
        (b"2026-11-23T11:30:04.000000005+00:00", "2026-11-23T11:30:04.000000005Z"),
        (b"2026-11-23T13:30:04.000000005+02:00", "2026-11-23T11:30:04.000000005Z"),
        (b"2026-11-23T03:00:04.000000005-08:30", "2026-11-23T11:30:04.000000005Z"),
        (b"2026-11-23T11:30:04.5Z", "2026-11-23T11:30:04.500000000Z"),
        (b"2026-11-23T11:30:04+00:00", "2026-11-23T11:30:04.000000000Z"),
        (b"2026-13-23T11:30:04.000000005+00:00", "1970-01-01T00:00:00.000000001Z"),
        (b"0001-01-01T00:00:00.000000000+00:00", "1970-01-01T00:00:00.000000001Z"),
    ],
)
def test_a_time_of_any_form(stamp: bytes, time: str) -> None:
    """In UTC; one that is none is just after the last."""
    assert out(stamp + b" stdout F x\n")[0]["_time"] == time


def test_times_increase() -> None:
    """L45: equal ones, ones that go back, and after a restart."""
    raw = b"".join(a_line(b"x", at=at) for at in (5, 5, 3, 9))
    assert [one["_time"][-4:-1] for one in out(raw)] == ["005", "006", "007", "009"]
    assert out(raw, last_ns=parse_time(AT % 100))[0]["_time"] == "2026-11-23T11:30:04.000000101Z"


def test_blank_lines_are_left_out() -> None:
    """The store would drop them."""
    assert out(a_line(b""), a_line(b"  \t"), a_line(b"x"))[0]["_msg"] == "x"


def test_what_is_not_utf8_or_not_podmans() -> None:
    """Repaired, and shown as it is."""
    assert out(a_line(b"a\xffb"))[0]["_msg"] == "a\N{REPLACEMENT CHARACTER}b"
    assert [one["_msg"] for one in out(b"garbage\n", a_line(b"x", b"stdin"), b"\n")] == [
        "garbage",
        f"{(AT % 1).decode()} stdin F x",
    ]


@pytest.mark.parametrize("unit", [b"x", "ä".encode(), b"\x01", b'"', b"\xff"])
def test_long_lines(unit: bytes) -> None:
    """L45: in marked pieces, each short enough once encoded, cut between characters, nothing lost."""
    text = unit * (300_000 // len(unit))
    parts = [text[at : at + 8000] for at in range(0, len(text), 8000)]
    raw = b"".join(a_line(part, kind=b"P") for part in parts[:-1]) + a_line(parts[-1])
    made = Assembler(SOURCE)
    encoded = made.feed(raw).splitlines()
    assert max(map(len, encoded)) < LONGEST_ENCODED
    shown = [json.loads(line)["_msg"] for line in encoded]
    assert all(one.endswith(" …") for one in shown[:-1])
    assert "".join(one.removesuffix(" …") for one in shown) == text.decode("utf-8", "replace")


def test_a_file_without_a_newline() -> None:
    """Bounded memory; the end of a complete file is given out."""
    made = Assembler(SOURCE)
    for _ in range(100):
        made.feed(b"y" * 65_536)
    assert made.held_bytes < 200_000
    assert [one["_msg"] for one in out(a_line(b"last")[:-1], end=True)] == ["last"]
    assert [one["_msg"] for one in out(a_line(b"half", kind=b"P"), end=True)] == ["half"]


@given(
    st.lists(st.tuples(st.sampled_from([b"stdout", b"stderr"]), st.sampled_from([b"F", b"P"]), st.integers(0, 3))),
    st.data(),
)
def test_a_crash_at_any_byte_loses_nothing(lines: list[tuple[bytes, bytes, int]], data: st.DataObject) -> None:
    """L28: read on from where the position stands, with what had begun, comes every line that was not out yet, and no other."""
    raw = b"".join(
        a_line(b"t%d" % number * size, s, k, number) + b"\0" * (number % 3) for number, (s, k, size) in enumerate(lines)
    )
    cut = data.draw(st.integers(0, len(raw)))
    first = Assembler(SOURCE)
    before = first.feed(raw[:cut])
    again = Assembler(SOURCE, first.last_ns, first.begun).feed(raw[cut - first.held_bytes :])
    assert [json.loads(line) for line in (before + again).splitlines()] == out(raw)


TEXTS = st.sampled_from(
    [b"a", b"", b" \t", b"\xc2\xa0", b'say "no" \\ \x01\x1b', b"caf\xc3\xa9", b"torn \xe2\x82", b"x" * 8000, b"\r"]
)
ODD = st.sampled_from(
    [b"", b"no line of Podman's\n", a_line(b"p", kind=b"P"), b"\0", AT.replace(b"+00", b"+01") % 2 + b" stdout F z\n"]
)


@given(
    st.lists(st.tuples(TEXTS, st.sampled_from([b"stdout", b"stderr"]), st.integers(0, 3))),
    st.integers(0, 3),
    ODD,
    st.sampled_from([b"2026-11-23", b"2026-13-23", b"1969-01-01", b"9999-12-31"]),
    st.sampled_from([b"+00:00", b"+02:00", b"-11:30"]),
)
def test_many_at_once_are_the_same_lines(
    lines: list[tuple[bytes, bytes, int]], last: int, odd: bytes, day: bytes, zone: bytes
) -> None:
    """Whether they are taken apart together or one by one, as they are when one of them is unusual."""
    raw = (
        b"".join(a_line(text, stream, at=at) for text, stream, at in lines)
        .replace(b"2026-11-23", day)
        .replace(b"+00:00", zone)
        + odd
    )
    last_ns = parse_time(AT % last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container_log, "_USUAL", re.compile("(?!)"))
        one_by_one = Assembler(SOURCE, last_ns)
        expected = one_by_one.feed(raw)
    together = Assembler(SOURCE, last_ns)
    assert together.feed(raw) == expected
    assert (together.last_ns, together.lines) == (one_by_one.last_ns, one_by_one.lines)


@given(st.lists(st.binary(), max_size=10))
def test_any_bytes(chunks: list[bytes]) -> None:
    """Lines of JSON, never an exception."""
    out(*chunks, end=True)


@pytest.mark.parametrize(
    ("stamp", "time_ns"),
    [
        (b"1970-01-01T00:00:01.000000002+00:00", 1_000_000_002),
        (b"1970-01-01T01:00:01.5+01:00", 1_500_000_000),
        (b"1970-01-01T00:00:01Z", 1_000_000_000),
        (b"1969-12-31T19:00:01.25-05:00", 1_250_000_000),
        (b"yesterday", 0),
        (b"", 0),
        (b"2026-13-99T00:00:00Z", 0),
    ],
)
def test_times(stamp: bytes, time_ns: int) -> None:
    """In any zone, with any number of digits."""
    assert parse_time(stamp) == time_ns
