"""An HTTPS client that keeps its connection, verifies the server against one root, and asks by any name at one address."""

import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TIMEOUT_S = 15
# X509_V_FLAG_NO_CHECK_TIME. Caddy's own authority issues in the handshake a certificate that is valid from that second on, and OpenSSL's
# clock, time(2), is some milliseconds behind Caddy's: in a new second the certificate is "not yet valid" to it.
_ANY_TIME = 0x200000


@dataclass(frozen=True)
class Reply:
    status: int
    body: str


class HttpsClient:
    """Requests for one host. A connection that has served and was closed since is opened again, once a request."""

    def __init__(self, port: int, host: str, root: Path, address: str = "127.0.0.1") -> None:
        self._address, self._port, self._host = address, port, host
        self._context = ssl.create_default_context(cafile=str(root))
        self._context.verify_flags = ssl.VerifyFlags(self._context.verify_flags | _ANY_TIME)
        self._connection: http.client.HTTPConnection | None = None
        self.reopened = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str = "/") -> Reply:
        """One request. Nothing is forgiven on a new connection."""
        kept = self._connection
        if kept is not None:
            try:
                return self._ask(kept, path)
            except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):
                self.close()
                self.reopened += 1
        return self._ask(self._connect(), path)

    def upgraded(self, path: str = "/") -> ssl.SSLSocket:
        """A stream behind a switch of protocols, as WebSockets have it."""
        stream = self._open()
        lines = (f"GET {path} HTTP/1.1", f"Host: {self._host}", "Connection: Upgrade", "Upgrade: websocket")
        stream.sendall("\r\n".join([*lines, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA", "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return stream

    def close(self) -> None:
        """Give the connection up. Fine without one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> ssl.SSLSocket:
        raw = socket.create_connection((self._address, self._port), timeout=_TIMEOUT_S)
        try:
            return self._context.wrap_socket(raw, server_hostname=self._host)
        except OSError:
            raw.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.sock = self._open()
        self._connection = connection
        return connection

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> Reply:
        connection.request("GET", path, headers={"Host": self._host})
        response = connection.getresponse()
        reply = Reply(response.status, response.read().decode())
        if response.will_close:
            self.close()
        return reply
