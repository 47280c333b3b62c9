"""A stand-in for VictoriaLogs that checks what it is given: the path, the encoding, each line's fields, times and size.

It can be away (503), full (429), slow, or fail at random, and it does what VictoriaLogs 1.26 was seen to do: killed, it forgets what it
acknowledged in the last seconds (`crash`); stopped for a while, it stores what clients have given up, too (`stop`); a line of 256 KiB
swallows the rest of its request. Its metrics tell when it started. What is wrong with a line is kept in `faults`.
"""

import gzip
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
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
_SWALLOWS = 256 * 1024
_LARGEST_BODY = 4 * 1024**2
_FORGETS_S = 6.0


class LogStore:
    """Listens on loopback unless told otherwise. Use as a context manager."""

    def __init__(self, seed: int = 1, host: str = "127.0.0.1") -> None:
        self.lines: list[dict[str, Any]] = []
        self.distinct: set[tuple[str, str]] = set()  # stream and text of containers' lines
        self.faults: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.away = False
        self.is_full = False
        self.starts = 0
        self.failing = 0.0  # the share of requests that get 500
        self.delay_s = 0.0
        self.bytes_taken = 0
        self._taken_at: list[float] = []  # of each line
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._server = self._listening((host, 0))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What an agent is given as --logs-endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind, by time, as the store gives them out."""
        with self._lock:
            return sorted((line for line in self.lines if line.get("log_type") == kind), key=lambda line: line["_time"])

    def _listening(self, address: tuple[str, int]) -> "_Server":
        self.starts += 1
        server = _Server(address, self)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def crash(self) -> int:
        """Be killed: nobody listens until `start`, and what was acknowledged last is forgotten. How many lines that is."""
        self._server.end()
        with self._lock:
            kept = sum(at < time.monotonic() - _FORGETS_S for at in self._taken_at)
            forgotten = len(self.lines) - kept
            del self.lines[kept:], self._taken_at[kept:]
            self.distinct = {_distinct(line) for line in self.lines if line["log_type"] == "container"}
        return forgotten

    def start(self) -> None:
        """Listen again at the same port, as another instance."""
        self._server = self._listening(self._server.server_address[:2])  # type: ignore[arg-type]  # IPv4

    def stop(self) -> None:
        """Be stopped as by SIGSTOP: what arrives has no answer until `go_on`, and is stored then, whoever still waits for it."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """Do what has come meanwhile."""
        self._goes_on.set()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """The status for a request."""
        self._goes_on.wait()
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.away:
            return 503
        if self.is_full:
            return 429
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
        whole = list(takewhile(lambda line: len(line) < _SWALLOWS, raw.splitlines()))
        if len(whole) < raw.count(b"\n"):
            self.faults.append("a line that swallows the rest of its request")
        good = [line for line in map(self._line, whole) if line is not None]
        self.lines += good
        self._taken_at += [time.monotonic()] * len(good)
        self.distinct |= {_distinct(line) for line in good if line["log_type"] == "container"}
        return 200 if good or len(whole) < raw.count(b"\n") else 400

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
        """Lines without a place of their own: their time is another line's of the same stream. (The store gives lines out by time.)"""
        seen: set[tuple[str, str]] = set()
        found = []
        for line in self.of(kind):
            place = (str(line[_STREAMS[kind]]), line["_time"])
            if place in seen:
                found.append(f"{line['_time']} {line['_msg']}")
            seen.add(place)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.go_on()
        self._server.end()


def _distinct(line: dict[str, Any]) -> tuple[str, str]:
    return (line["stream"], line["_msg"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], store: LogStore) -> None:
        class Handler(_Handler):
            pass

        Handler.store, Handler.instance = store, store.starts
        self._connections: set[socket.socket] = set()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """As usual, and remembered: a process that is killed loses its connections."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that went away."""

    def end(self) -> None:
        """Listen no more, and let every connection go. Fine twice."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    store: LogStore
    instance: int
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        status = self.store.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self._answer(status)

    def do_GET(self) -> None:
        """When it started, amid other metrics."""
        status = 503 if self.store.away else 200 if self.path == "/metrics" else 404
        metrics = (
            f'vm_app_version{{version="v1.26"}} 1\nvm_app_start_timestamp {1767500000 + self.instance}\nvm_gogc 100\n'
        )
        self._answer(status, metrics.encode())

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.store.statuses[status] += 1
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
