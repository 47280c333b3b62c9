"""A relay that can be slow, silent or shut while it runs, to stand before a registry, a control plane or a Podman.

Decides when bytes go on. Knows nothing of what they mean.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65536
_CONNECT_S = 5
_JOIN_S = 5
# How soon a relay notices that it was told to stop or to speed up.
_STEP_S = 0.05


class Relay:
    """Listens on a free port at `address`, or at the socket `path`, and passes connections to `target`. Use as a context manager.

    The target is a host and its port, or the path of a socket.

    `trips` is asked about all bytes on their way to the target; when it says so, they are not passed on and the connection is broken.
    """

    def __init__(
        self,
        target: tuple[str, int] | Path,
        address: str = "127.0.0.1",
        trips: Callable[[bytes], bool] = lambda chunk: False,
        path: Path | None = None,
    ) -> None:
        self._target = target
        self._trips = trips
        self._listener = socket.create_server((address, 0)) if path is None else _unix_server(path)
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._bytes_per_s: int | None = None
        self._is_shared = False
        self._line = threading.Lock()
        self._line_free_at = 0.0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.address = str(path) if path is not None else f"{address}:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def flow(self, bytes_per_s: int | None = None, *, together: bool = False) -> None:
        """Pass bytes on, each connection and direction at most this fast, or all of them `together`; None is without a limit."""
        self._bytes_per_s, self._is_shared = bytes_per_s, together
        self._flowing.set()

    def hang(self) -> None:
        """Accept connections and bytes, and pass nothing on until `flow` is called."""
        self._flowing.clear()

    def cut(self) -> None:
        """Break all connections that are open now."""
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break everything and wait for the threads. Fine twice."""
        self._closed.set()
        self._flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in tuple(self._threads):
            thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = _connected(self._target)
            except OSError:
                return
            with server:
                server.settimeout(None)
                self._sockets += (client, server)
                back = threading.Thread(target=self._pump, args=(server, client, lambda chunk: False), daemon=True)
                back.start()
                self._pump(client, server, self._trips)
                back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, trips: Callable[[bytes], bool]) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(self._chunk_bytes()):
                self._flowing.wait()
                if trips(chunk):
                    source.shutdown(socket.SHUT_RDWR)
                    break
                if self._bytes_per_s is not None:
                    self._closed.wait(self._wait_s(len(chunk) / self._bytes_per_s))
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _wait_s(self, takes_s: float) -> float:
        if not self._is_shared:
            return takes_s
        with self._line:
            now = time.monotonic()
            self._line_free_at = max(now, self._line_free_at) + takes_s
            return self._line_free_at - now

    def _chunk_bytes(self) -> int:
        limit = self._bytes_per_s
        return _CHUNK_BYTES if limit is None else max(1, min(_CHUNK_BYTES, int(limit * _STEP_S)))


def _unix_server(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    return server


def _connected(target: tuple[str, int] | Path) -> socket.socket:
    if not isinstance(target, Path):
        return socket.create_connection(target, timeout=_CONNECT_S)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_S)
    try:
        connection.connect(str(target))
    except OSError:
        connection.close()
        raise
    return connection
