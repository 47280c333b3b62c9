"""A line of Caddy's access log to one for the log store, with 1,000 routes and with one: in multiples of `json.loads` of the same lines."""

import json
from functools import partial
from typing import Final

from benchmarks.figures import Figure, ratio, timed
from core.access_log import AccessLog
from core.caddy import Route

_ROUTES: Final = 1_000
_LINES: Final = 1_000
_GOAL: Final = 2.0  # 20 µs where `json.loads` of such a line takes 10, as on the machine that the record is of
_GROWTH_GOAL: Final = 1.5


def main() -> list[Figure]:
    """How long a line takes, and how that grows with the number of routes."""
    routes = tuple(
        Route(f"r{n}", f"{'*.' if n % 10 == 0 else ''}site-{n}.test", f"service-{n}", (f"10.200.1.{n % 250 + 1}:80",))
        for n in range(_ROUTES)
    )
    lines = [_line(n) for n in range(_LINES)]
    chunk = b"".join(line + b"\n" for line in lines)
    many, one = AccessLog(), AccessLog()
    assert many.feed(chunk, routes).count(b"\n") == _LINES and not many.left_out
    last = routes[-1:]
    theirs = timed(lambda: [json.loads(line) for line in lines])
    ours = timed(partial(many.feed, chunk, routes))
    own = b"".join(_line(_ROUTES - 1) + b"\n" for _ in range(_LINES))
    assert one.feed(own, last).count(b"\n") == _LINES and not one.left_out
    alone = timed(partial(one.feed, own, last))
    return [
        ratio("access log line, 1,000 routes", "json.loads of it", _ROUTES, ours / _LINES, theirs / _LINES, _GOAL),
        ratio(
            "access log line, 1,000 routes", "the same, one route", _ROUTES, ours / _LINES, alone / _LINES, _GROWTH_GOAL
        ),
    ]


def _line(number: int) -> bytes:
    """As Caddy 2.6 writes it for a browser's request."""
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
    host = f"{'www.' if number % 10 == 0 else ''}site-{number}.test"
    headers = {"User-Agent": [agent], "Accept": ["*/*"], "Accept-Encoding": ["gzip, deflate, br"], "Cookie": []}
    request = {
        "remote_ip": "203.0.113.9",
        "remote_port": "40000",
        "proto": "HTTP/2.0",
        "method": "GET",
        "host": host,
        "uri": f"/articles/{number}?page=1",
        "headers": headers,
        "tls": {"resumed": False, "version": 772, "cipher_suite": 4865, "proto": "h2", "server_name": host},
    }
    entry = {
        "level": "info",
        "ts": 1767500000.125 + number / 1000,
        "logger": "http.log.access.techulus",
        "msg": "handled request",
        "request": request,
        "user_id": "",
        "duration": 0.0123456,
        "size": 4242,
        "status": 200,
        "resp_headers": {"Server": ["Caddy"], "Content-Type": ["text/html"], "Vary": ["Accept-Encoding"]},
    }
    return json.dumps(entry, separators=(",", ":")).encode()
