"""Caddy's access log to log lines: one JSON object per line in, one per line out, with the service that answers for the host."""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from core.caddy import Route
from core.caddy_config import Services
from core.log_lines import next_time, rfc3339

LONGEST_LINE: Final = 256 * 1024
"""Bytes of a line; what is longer is skipped. A request's headers, which Caddy writes down, are rarely above 64 KiB."""

_LONGEST: Final = 8192  # of a path or a host; a URL of any length is somebody else's choice
_MILLION: Final = 1_000_000  # a float holds a time of our days to the microsecond
_THOUSAND: Final = 1000
_NULS: Final = re.compile(rb"\0+")
_YEAR_10000_S: Final = 253_402_300_799  # beyond any date; a log in milliseconds says such times


class _Request(msgspec.Struct, frozen=True):
    method: str = ""
    host: str = ""
    uri: str = ""
    remote_ip: str = ""
    client_ip: str = ""


class _Entry(msgspec.Struct, frozen=True):
    request: _Request
    ts: float = 0.0
    status: int = 0
    size: int = 0
    duration: float = 0.0


class AccessLog:
    """Bytes of Caddy's log in, encoded lines out. A line that makes no sense, or whose host has no service, is left out and counted.

    `too_long` counts those of them that were too long; of such a line nothing is kept. A run of NUL bytes, as a power cut leaves it in a
    file, ends a line.
    """

    def __init__(self, last_ns: int = 0) -> None:
        self.last_ns = last_ns
        self.lines = 0
        self.left_out = 0
        self.too_long = 0
        self.nul_bytes = 0
        self._left = b""
        self._is_skipping = False  # the rest of a line that was too long
        self._routes: tuple[Route, ...] = ()
        self._services = Services(())

    @property
    def held_bytes(self) -> int:
        """Bytes at the end of what was fed that are in no line yet."""
        return len(self._left)

    def feed(self, chunk: bytes, routes: Iterable[Route]) -> bytes:
        """The encoded lines that are whole now, each with its newline."""
        self._know(tuple(routes))
        if b"\0" in chunk:
            self.nul_bytes += chunk.count(b"\0")
            chunk = _NULS.sub(b"\n", chunk)
        if self._is_skipping:
            _, newline, chunk = chunk.partition(b"\n")
            self._is_skipping = not newline
        *whole, self._left = (self._left + chunk).split(b"\n")
        if len(self._left) > LONGEST_LINE:
            self._skip()
            self._left, self._is_skipping = b"", True
        return b"".join(self._encoded(line) for line in whole if line)

    def _know(self, routes: tuple[Route, ...]) -> None:
        if routes != self._routes:
            self._routes, self._services = routes, Services(routes)

    def _skip(self) -> None:
        self.left_out += 1
        self.too_long += 1

    def end(self) -> bytes:
        """What is left is no whole line. What is fed next is another file, or the same from its beginning: with its own times."""
        self._left, self._is_skipping, self.last_ns = b"", False, 0
        return b""

    def _encoded(self, line: bytes) -> bytes:
        if len(line) > LONGEST_LINE:
            self._skip()
            return b""
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.left_out += 1
            return b""
        request = entry.request
        host = request.host[:_LONGEST]
        service = self._services.of(host)
        if service is None:
            self.left_out += 1
            return b""
        seconds = entry.ts if 0 <= entry.ts < _YEAR_10000_S else 0.0
        self.last_ns = next_time(round(seconds * _MILLION) * _THOUSAND, self.last_ns)
        self.lines += 1
        path, method = request.uri[:_LONGEST].partition("?")[0], request.method[:_LONGEST]
        milliseconds = round(entry.duration * 1000, 3)
        fields = {
            "_msg": f"{method} {path} {entry.status} {milliseconds:g} ms",
            "_time": rfc3339(self.last_ns),
            "service_id": service,
            "host": host,
            "method": method,
            "path": path,
            "status": entry.status,
            "duration_ms": milliseconds,
            "size": entry.size,
            "client_ip": (request.client_ip or request.remote_ip)[:_LONGEST],
            "log_type": "http",
        }
        return msgspec.json.encode(fields) + b"\n"
