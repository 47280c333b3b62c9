"""A forward proxy as companies run them: `CONNECT` for https, requests in absolute form for http. It alone knows where hosts are.

Writes down the first line of each request. Answers 407 to whoever does not give its credentials, if it has any.
"""

import base64
import contextlib
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK_BYTES = 65536
_JOIN_S = 5


class ForwardProxy:
    """`hosts` says which port on loopback stands for a `host:port`. Use as a context manager."""

    def __init__(self, hosts: Mapping[str, int], credentials: str | None = None) -> None:
        self._hosts = hosts
        self._expected = None if credentials is None else base64.b64encode(credentials.encode()).decode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.requests: list[str] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """As it stands in HTTPS_PROXY, without credentials."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_JOIN_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            raw = b""
            while b"\r\n\r\n" not in raw:
                chunk = client.recv(_CHUNK_BYTES)
                if not chunk:
                    return
                raw += chunk
            first, _, rest = raw.partition(b"\r\n")
            method, target, version = first.decode("latin-1").split(" ")
            self.requests.append(f"{method} {target}")
            if self._expected is not None and f"Basic {self._expected}".encode() not in rest:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            parts = urlsplit(target)
            port = self._hosts.get(target if method == "CONNECT" else parts.netloc)
            if port is None:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                self._open.append(server)
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = target.removeprefix(f"http://{parts.netloc}")
                    server.sendall(f"{method} {path} {version}\r\nConnection: close\r\n".encode("latin-1") + rest)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
