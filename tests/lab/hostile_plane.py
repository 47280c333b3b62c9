"""A control plane that is somebody else's now: it answers agents with whatever it is given, by the protocol.

No signature is checked and nothing is judged. Set the attributes and agents see them at their next request; any path may be answered with
bytes of one's own. Knows nothing of agents.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import parse_qs, urlsplit

from tests.lab.ports import free_port

_BASE: Final = "/api/v1/agent"
_CHECK: Final = "/api/v1/caddy/check"
_KEY: Final = "00" * 32
_JOIN_S: Final = 10


class HostilePlane:
    """Serves at `host` while it is entered.

    `document` is the expected state of every server: an object, or bytes to send as they are. `items` are the work items. `answers` are
    bodies for other paths (`"GET /api/v1/agent/pending-builds"`). `reports` are the bodies of status reports, `checked` the domains that
    were asked about, all of which it allows, `requests` all requests as method and path.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host, self.port = host, free_port(host)
        self.document: dict[str, Any] | bytes = expected_state()
        self.items: list[dict[str, Any]] = []
        self.answers: dict[str, bytes] = {}
        self.reports: list[Any] = []
        self.checked: list[str] = []
        self.requests: list[str] = []
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What an agent is given as --url."""
        return f"http://{self.host}:{self.port}"

    def token(self, subnet_id: int) -> str:
        """A registration token for the server that is to have this subnet."""
        return f"subnet-{subnet_id}"

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        """What a request is answered with, with status 200."""
        url = urlsplit(target)
        self.requests.append(f"{method} {url.path}")
        if (given := self.answers.get(f"{method} {url.path}")) is not None:
            return given
        if url.path == _CHECK:
            self.checked += parse_qs(url.query).get("domain", [])
        match method, url.path.removeprefix(_BASE):
            case "POST", "/register":
                return _json(_registered(json.loads(body)["token"]))
            case "GET", "/expected-state":
                return self.document if isinstance(self.document, bytes) else _json(self.document)
            case "POST", "/status":
                self.reports.append(json.loads(body))
            case "GET", "/work-queue":
                return _json({"items": self.items})
            case "POST", "/work-queue":
                done = json.loads(body)["id"]
                self.items = [one for one in self.items if one["id"] != done]
            case "GET", "/pending-builds":
                return _json({"build": None})
        return _json({"ok": True})

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._server is not None and self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_JOIN_S)


def expected_state(
    containers: list[dict[str, Any]] | None = None,
    records: list[dict[str, Any]] | None = None,
    routes: list[dict[str, Any]] | None = None,
    peers: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A document of these lists."""
    return {
        "containers": containers or [],
        "dns": {"records": records or []},
        "caddy": {"routes": routes or []},
        "wireguard": {"peers": peers or []},
    }


def _registered(token: str) -> dict[str, Any]:
    subnet_id = int(token.rpartition("-")[2])
    return {
        "serverId": f"{subnet_id:024x}",
        "subnetId": subnet_id,
        "wireguardIp": f"10.100.{subnet_id}.1",
        "encryptionKey": _KEY,
        "peers": [],
    }


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, plane: HostilePlane) -> None:
        self.plane = plane
        super().__init__((plane.host, plane.port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet about an agent that ends in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = cast(_Server, self.server).plane.answer(self.command, self.path, body)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
