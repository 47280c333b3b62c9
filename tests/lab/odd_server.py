"""A web server that misbehaves as it is told, request by request, and remembers exactly what it was sent.

Written with plain streams, since no web framework can be made to cut an answer short or to leave a connection hanging. It runs in a thread
of its own, so that the client under test has its event loop to itself.
"""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

_START_S = 10
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came over the wire. Header names are in lower case; `at_s` is on the monotonic clock."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    at_s: float


@dataclass(slots=True)
class Exchange:
    """What a behaviour may do: write, and see how the server stands."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: Received
    server: "OddServer"

    async def send(self, raw: bytes) -> None:
        """Send, and count what the client's side has taken."""
        self.writer.write(raw)
        await self.writer.drain()
        self.server.sent_bytes += len(raw)


Behaviour: TypeAlias = Callable[[Exchange], Awaitable[bool]]
"""Answers one request; returns whether the connection stays open."""


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} Odd", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(
    status: int = 200, body: bytes = b"{}", kind: str = "application/json", headers: Mapping[str, str] | None = None
) -> Behaviour:
    """A whole answer."""
    whole = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(head(status, whole) + body)
        return True

    return behave


def raw(sent: bytes) -> Behaviour:
    """These bytes, whatever they are, and the end of the connection."""

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(sent)
        return False

    return behave


def endless(size: int, *, announced: bool) -> Behaviour:
    """A good answer of `size` bytes, sent as fast as it is taken; with its length announced or in chunks."""
    length = {"content-length": str(size)} if announced else {"transfer-encoding": "chunked"}

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(head(200, {"content-type": "application/json", **length}))
        piece = b" " * _PIECE
        for _ in range(0, size, _PIECE):
            await exchange.send(piece if announced else b"%x\r\n%b\r\n" % (len(piece), piece))
        if not announced:
            await exchange.send(b"0\r\n\r\n")
        return False

    return behave


def hanging(first: bytes = b"") -> Behaviour:
    """Send this, and then nothing until the client goes away."""

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(first)
        await exchange.reader.read()
        return False

    return behave


def trickling(sent: bytes, pause_s: float) -> Behaviour:
    """One byte at a time, so that no time limit between two bytes ends it."""

    async def behave(exchange: Exchange) -> bool:
        for number in range(len(sent)):
            await exchange.send(sent[number : number + 1])
            await asyncio.sleep(pause_s)
        return False

    return behave


@dataclass
class OddServer:
    """Answers the n-th request with the n-th behaviour, and every later one with the last. Use as a context."""

    script: list[Behaviour] = field(default_factory=lambda: [answer()])
    tls: ssl.SSLContext | None = None
    requests: list[Received] = field(default_factory=list)
    sent_bytes: int = 0
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="odd-server")
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise RuntimeError("the odd server did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            await self._talk(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        stays = True
        while stays:
            request = await _read(reader, connection)
            behave = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(request)
            stays = await behave(Exchange(reader, writer, request, self))


async def _read(reader: asyncio.StreamReader, connection: int) -> Received:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    pairs = (line.split(": ", 1) for line in lines[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body, connection, time.monotonic())
