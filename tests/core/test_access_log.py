"""`core.access_log`: Caddy's lines to the store's, with the service of the host."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.access_log import AccessLog
from core.caddy import Route

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
