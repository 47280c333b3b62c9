"""Web servers on loopback: backends that say who they are and echo upgraded streams, and the control plane's certificate check.

Plain HTTP/1.1 with kept-alive connections, one thread each. Knows nothing of proxies.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, urlsplit

_JOIN_S = 10


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, name: str, allowed: frozenset[str]) -> None:
        self.name = name
        self.allowed = allowed
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        server = cast(_Server, self.server)
        server.seen.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        if self.headers.get("Upgrade"):
            self._echo()
        elif url.path == "/api/v1/caddy/check":
            (domain,) = parse_qs(url.query)["domain"]
            self._answer(200 if domain in server.allowed else 404, b"")
        else:
            self._answer(200, server.name.encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _echo(self) -> None:
        """Whatever comes after the switch of protocols goes back as it came."""
        self.send_response(101)
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        while chunk := self.connection.recv(4096):
            self.connection.sendall(chunk)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class WebServer:
    """A running server; `seen` are the requests so far."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def seen(self) -> tuple[str, ...]:
        return tuple(self._server.seen)


@contextmanager
def web_server(name: str = "", port: int = 0, allowed: frozenset[str] = frozenset()) -> Iterator[WebServer]:
    """A server that answers every path with `name`, and the certificate check with 200 for the `allowed` domains. Port 0 is any."""
    server = _Server(port, name, allowed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield WebServer(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_JOIN_S)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of loopback that refuses connections: bound, so that nobody else gets it, but not listened on."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
