"""A stand-in for VictoriaLogs that checks what it is given: the path, the encoding, each line's fields, times and size.

It can be away (503), slow, or fail at random; what it has answered with 200 it keeps. What is wrong with a line is kept in `faults`.
"""

import gzip
import json
import random
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_FIELDS = {
    "container": {"_msg", "_time", "deployment_id", "service_id", "stream", "log_type"},
    "http": {
        "_msg",
        "_time",
        "service_id",
        "host",
        "method",
        "path",
        "status",
        "duration_ms",
        "size",
        "client_ip",
        "log_type",
    },
    "build": {"_msg", "_time", "build_id", "service_id", "project_id", "log_type"},
    "agent": {"_msg", "_time", "server_id", "level", "log_type"},
}
_STREAMS = {"container": "deployment_id", "build": "build_id", "http": "service_id", "agent": "server_id"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
_LONGEST_LINE = 200_000
_LARGEST_BODY = 4 * 1024**2


class LogStore:
    """Listens on loopback unless told otherwise. Use as a context manager."""

    def __init__(self, seed: int = 1, host: str = "127.0.0.1") -> None:
        self.lines: list[dict[str, Any]] = []
        self.distinct: set[tuple[str, str]] = set()  # stream and text of containers' lines
        self.faults: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.away = False
        self.failing = 0.0  # the share of requests that get 500
        self.delay_s = 0.0
        self.bytes_taken = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        outer = self

        class Handler(_Handler):
            store = outer

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What an agent is given as --logs-endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind, in the order in which they were taken."""
        with self._lock:
            return [line for line in self.lines if line.get("log_type") == kind]

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """The status for a request."""
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.away:
            return 503
        with self._lock:
            if self._random.random() < self.failing:
                return 500
            return self._taken(path, headers, body)

    def _taken(self, path: str, headers: dict[str, str], body: bytes) -> int:
        if not path.startswith("/insert/jsonline") or headers.get("content-type") != "application/json":
            self.faults.append(f"request {path} {headers.get('content-type')}")
            return 400
        raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        if len(raw) > _LARGEST_BODY:
            self.faults.append(f"a request of {len(raw)} bytes")
        self.bytes_taken += len(raw)
        good = [line for line in map(self._line, raw.splitlines()) if line is not None]
        self.lines += good
        self.distinct |= {(line["stream"], line["_msg"]) for line in good if line["log_type"] == "container"}
        return 200 if good else 400

    def _line(self, raw: bytes) -> dict[str, Any] | None:
        if len(raw) > _LONGEST_LINE:
            self.faults.append(f"a line of {len(raw)} bytes")
            return None
        try:
            line: dict[str, Any] = json.loads(raw)
        except ValueError:
            self.faults.append(f"no JSON: {raw[:100]!r}")
            return None
        kind = line.get("log_type", "")
        if (
            not _FIELDS.get(kind, {"?"}) <= line.keys()
            or not line["_msg"].strip()
            or not _TIME.fullmatch(line["_time"])
        ):
            self.faults.append(f"a line that the interface cannot find: {raw[:300]!r}")
            return None
        return line

    def out_of_order(self, kind: str) -> list[str]:
        """Lines whose time is not after that of the line before in their stream."""
        last: dict[str, str] = {}
        found = []
        for line in self.of(kind):
            stream = str(line[_STREAMS[kind]])
            if line["_time"] <= last.get(stream, ""):
                found.append(f"{line['_time']} {line['_msg']}")
            last[stream] = line["_time"]
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    store: LogStore
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        status = self.store.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.store.statuses[status] += 1
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
