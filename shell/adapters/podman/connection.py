"""The Unix socket below the `podman` library, with what the library's own lacks: a call that has been given up can be hung up on.

A worker thread that waits for an answer cannot be cancelled; with its socket shut down it ends at once, so that a hung Podman neither
collects threads nor holds up the agent's end. Also, a socket that cannot connect is closed here (the library leaves it open), nothing is
unpacked, and what is not read piece by piece by the caller (refusals, small answers) is bounded.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

from shell.adapters.podman.library import APIClient, HTTPAdapter, PreparedRequest, Response

LARGEST_REFUSAL: Final = 64 * 1024
LARGEST_SMALL_ANSWER: Final = 4 * 1024**2
_PIECE: Final = 64 * 1024
_OLDEST_ERROR: Final = 400
_CONNECT_S: Final = 5.0  # the kernel connects at once, unless a service that stands still has a full queue of callers


class Call:
    """One call under way, and the connection that it is using."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._given_up = False

    def uses(self, connection: "_Connection") -> None:
        """Told by the connection before each request."""
        with self._lock:
            if self._given_up:
                raise ConnectionAbortedError("the call has been given up")
            self._connection = connection
            connection.user = self

    def hang_up(self) -> None:
        """End whatever the call waits for, now and later."""
        with self._lock:
            self._given_up = True
            used = self._connection
            # An answer may just have come, and the connection gone back for the next call.
            if used is not None and used.user is self and used.sock is not None:
                with contextlib.suppress(OSError):  # it may have ended meanwhile
                    used.sock.shutdown(socket.SHUT_RDWR)

    def done(self) -> None:
        """The connection is somebody else's from now on."""
        with self._lock:
            self._connection = None


_CURRENT: ContextVar[Call] = ContextVar("podman_call")


@contextlib.contextmanager
def under(call: Call) -> Iterator[None]:
    """Requests made by this thread within the block belong to the call."""
    token = _CURRENT.set(call)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        call.done()


def client(path: Path, timeout_s: float) -> APIClient:
    """A client for the service at a socket, which connects when first used. `timeout_s` bounds each wait for an answer's next part.

    The library's `PodmanClient` around it would read the connection files of a person's Podman, and fail on a broken one.
    """
    made = APIClient(base_url=f"unix://{path}", timeout=timeout_s)
    made.headers["Accept-Encoding"] = "identity"
    made.mount("http://", _Adapter(path))
    return made


class _Connection(HTTPConnection):
    user: Call | None = None

    def __init__(self, host: str, port: int | None = None, *, path: str, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT_S)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self.sock = connection

    def request(self, *arguments: Any, **options: Any) -> None:
        _CURRENT.get().uses(self)
        super().request(*arguments, **options)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _Pools(PoolManager):
    """All hosts are one: the socket."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._pool = _Pool("podman", maxsize=size, path=str(path))

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: Mapping[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        return self._pool

    def clear(self) -> None:
        self._pool.close()


class _Adapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    def send(self, request: PreparedRequest, stream: bool = False, *arguments: Any, **options: Any) -> Response:
        answer = super().send(request, stream, *arguments, **options)
        if answer.headers.get("content-encoding", "identity") != "identity":
            answer.close()
            raise ConnectionAbortedError("the answer is packed, which was not asked for")
        if answer.is_redirect:
            answer.close()
            raise ConnectionAbortedError("the answer leads elsewhere, and nobody else is asked")
        if answer.status_code >= _OLDEST_ERROR:
            _read(answer, LARGEST_REFUSAL, is_cut=True)
        elif not stream:
            _read(answer, LARGEST_SMALL_ANSWER, is_cut=False)
        return answer

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **_: Any) -> None:
        self.poolmanager = _Pools(self._path, maxsize)


def _read(answer: Response, most_bytes: int, *, is_cut: bool) -> None:
    """Read a body, so that the library finds it read. What is longer is cut, or an error."""
    content = bytearray()
    for piece in answer.iter_content(_PIECE):
        content += piece
        if len(content) > most_bytes:
            break
    if len(content) > most_bytes:
        answer.close()
        if not is_cut:
            raise ConnectionAbortedError(f"the answer is larger than {most_bytes} bytes")
    answer._content = bytes(content[:most_bytes])
    answer._content_consumed = True  # type: ignore[attr-defined]  # as `Response.content` sets it
