"""`core.access_log`: Caddy's lines to the store's, with the service of the host."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import access_log
from core.access_log import LONGEST_LINE, AccessLog
from core.caddy import Route
from core.caddy_config import Services

ROUTES = (Route("r", "a.test", "s", ("10.200.1.2:80",)), Route("w", "*.b.test", "t", ("10.200.1.3:80",)))
ENTRY: dict[str, Any] = {
    "level": "info",
    "ts": 1767500000.125,
    "logger": "http.log.access.techulus",
    "msg": "handled request",
    "request": {
        "remote_ip": "203.0.113.9",
        "proto": "HTTP/2.0",
        "method": "GET",
        "host": "A.test:443",
        "uri": "/x/y?token=secret",
    },
    "duration": 0.0123456,
    "size": 42,
    "status": 200,
}


def out(*entries: object) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many were left out."""
    made = AccessLog()
    raw = made.feed("".join(f"{json.dumps(one)}\n" for one in entries).encode(), ROUTES)
    assert made.lines == raw.count(b"\n")
    return [json.loads(line) for line in raw.splitlines()], made.left_out


def test_a_request() -> None:
    """Every field of the interface; the query, which may hold secrets, stays here."""
    assert out(ENTRY) == (
        [
            {
                "_msg": "GET /x/y 200 12.346 ms",
                "_time": "2026-01-04T04:13:20.125000000Z",
                "service_id": "s",
                "host": "A.test:443",
                "method": "GET",
                "path": "/x/y",
                "status": 200,
                "duration_ms": 12.346,
                "size": 42,
                "client_ip": "203.0.113.9",
                "log_type": "http",
            }
        ],
        0,
    )


def test_whose_it_is() -> None:
    """By the routes; a host that nobody answers for is left out, and counted."""
    other = {**ENTRY, "request": {**ENTRY["request"], "host": "x.b.test", "client_ip": "198.51.100.1"}}
    nobody = {**ENTRY, "request": {**ENTRY["request"], "host": "c.test"}}
    lines, left_out = out(other, nobody)
    assert [(one["service_id"], one["client_ip"]) for one in lines] == [("t", "198.51.100.1")]
    assert left_out == 1


def test_nonsense() -> None:
    """Left out; the next line is read."""
    lines, left_out = out("text", {}, {"request": 5}, [ENTRY], ENTRY)
    assert (len(lines), left_out) == (1, 4)


def test_a_line_that_is_not_whole_waits() -> None:
    """For its end."""
    made, raw = AccessLog(), json.dumps(ENTRY).encode() + b"\n"
    assert made.feed(raw[:50], ROUTES) == b""
    assert made.held_bytes == 50
    assert made.feed(raw[50:], ROUTES).count(b"\n") == 1
    assert made.held_bytes == 0


@pytest.mark.parametrize("piece", [1000, 128 * 1024, 3 * LONGEST_LINE])
@pytest.mark.parametrize("size", [LONGEST_LINE + 1, 20 * LONGEST_LINE])
def test_a_line_that_is_too_long(size: int, piece: int) -> None:
    """L58: nothing of it is kept, however it comes; it is counted once, and the next line is read."""
    made, good = AccessLog(), json.dumps(ENTRY).encode() + b"\n"
    raw = good + b"x" * size + b"\n" + good
    found = b""
    for start in range(0, len(raw), piece):
        found += made.feed(raw[start : start + piece], ROUTES)
        assert made.held_bytes <= LONGEST_LINE
    assert (found.count(b"\n"), made.left_out, made.too_long) == (2, 1, 1)


def test_a_line_as_long_as_may_be() -> None:
    """Is read."""
    long = json.dumps({**ENTRY, "resp_headers": "x" * (LONGEST_LINE - len(json.dumps(ENTRY)) - 20)})
    assert LONGEST_LINE - 20 < len(long) <= LONGEST_LINE
    assert AccessLog().feed(f"{long}\n".encode(), ROUTES).count(b"\n") == 1


def test_what_may_be_long_in_a_line_is_cut() -> None:
    """L45: it fits into the store's bound, whatever a client sends."""
    long = "\x01" * 40_000
    for field in ("method", "host", "uri", "client_ip", "remote_ip"):
        entry = {**ENTRY, "request": {**ENTRY["request"], field: f"{ENTRY['request'].get(field, '')}{long}"}}
        assert len(AccessLog().feed(f"{json.dumps(entry)}\n".encode(), ROUTES)) < 200_000


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_nul_bytes_end_a_line(size: int) -> None:
    """As a power cut leaves them: the line after them is whole, what they have cut is left out; however the bytes are cut."""
    made, good = AccessLog(), json.dumps(ENTRY).encode()
    raw = good + b"\n" + b"\0" * 300 + good + b"\n" + good[:50] + b"\0" * 300 + good + b"\n"
    found = b"".join(made.feed(raw[at : at + size], ROUTES) for at in range(0, len(raw), size))
    assert (found.count(b"\n"), made.left_out, made.nul_bytes, made.held_bytes) == (3, 1, 600, 0)


def test_a_file_that_ends_in_such_a_line() -> None:
    """The next file begins anew."""
    made = AccessLog()
    made.feed(b"x" * (LONGEST_LINE + 1), ROUTES)
    assert made.end() == b""
    assert made.feed(json.dumps(ENTRY).encode() + b"\n", ROUTES).count(b"\n") == 1


def test_routes_are_put_in_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """L55: not for each line, and again when they have changed. (`benchmarks/access_log.py` measures a line.)"""
    made, raw, begun = AccessLog(), json.dumps(ENTRY).encode() + b"\n", [0]

    def counted(routes: Iterable[Route]) -> Services:
        begun[0] += 1
        return Services(routes)

    monkeypatch.setattr(access_log, "Services", counted)
    for _ in range(5):
        assert made.feed(raw * 100, tuple(ROUTES)).count(b"\n") == 100
    assert begun == [1]
    assert made.feed(raw, ROUTES[1:]) == b""
    assert begun == [2]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_time(stamp: float) -> None:
    """As of a log whose times are in milliseconds: no reason to end, and the next line has its own time."""
    lines, left_out = out({**ENTRY, "ts": stamp, "duration": stamp}, ENTRY)
    assert (len(lines), left_out) == (2, 0)


def test_times_in_milliseconds() -> None:
    """Such a line gets the time after the last one's."""
    lines, _ = out(ENTRY, {**ENTRY, "ts": 1767500000125.0}, {**ENTRY, "ts": 1767500001.0})
    assert [one["_time"][17:] for one in lines] == ["20.125000000Z", "20.125000001Z", "21.000000000Z"]


@given(st.lists(st.binary(), max_size=10))
def test_any_bytes(chunks: list[bytes]) -> None:
    """Nothing raises."""
    made = AccessLog()
    for chunk in chunks:
        made.feed(chunk, ROUTES)
