"""One exchange with Caddy's admin API: a request out, an answer with its ETag back. Knows nothing of configurations.

Spoken with `h11` and not with `httpx`, because Caddy sends the ETag as a trailer, which httpx drops, and computes it differently in
different versions. Without the ETag a change by somebody else between our reading and our writing would be overwritten.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import anyio
import h11
from anyio.abc import ByteStream

from shell.failure import AdapterError

COMPONENT: Final = "caddy"
UNIX: Final = "unix/"
_CHUNK_BYTES: Final = 65_536
# A thousand routes are below 1 MB. All that a document can ask for fits in: 32 MiB of it, six bytes for each `<`, as Go writes them.
_LONGEST_ANSWER_BYTES: Final = 256 * 1024**2
_BETWEEN_TRIES_S: Final = 0.2  # a Caddy that ends, or opens its address anew, is gone or back by then
_READ_TRIES: Final = 3
_PRECONDITION_FAILED: Final = 412


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, whole body, and the ETag when there is one."""

    status: int
    body: bytes
    etag: str | None

    @property
    def is_outdated(self) -> bool:
        """Whether the request was refused because the configuration is no longer the one it was made for."""
        return self.status == _PRECONDITION_FAILED


class NobodyListensError(AdapterError):
    """Nothing answers at the admin address: Caddy does not run."""


class ConnectionBrokeError(AdapterError):
    """The request may or may not have been carried out: with every new configuration Caddy closes its admin address and opens it anew."""


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin API at `host:port` or `unix//path`; every exchange ends within `timeout_s` seconds."""

    address: str
    timeout_s: float

    async def get(self, path: str) -> Answer:
        """Read; a connection that breaks is tried again."""
        for _ in range(_READ_TRIES - 1):
            with contextlib.suppress(ConnectionBrokeError):
                return await self._exchange("GET", path, [], b"")
            await anyio.sleep(_BETWEEN_TRIES_S)
        return await self._exchange("GET", path, [], b"")

    async def send(self, method: str, path: str, body: bytes, if_match: str) -> Answer:
        """Change, when the configuration still has the ETag `if_match`."""
        headers = [("Content-Type", "application/json"), ("If-Match", if_match)]
        return await self._exchange(method, path, headers, body)

    async def _exchange(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        what = f"{method} {path} at {self.address}"
        try:
            with anyio.fail_after(self.timeout_s):
                async with self._connected(what) as stream:
                    connection = h11.Connection(h11.CLIENT)
                    # A Caddy that listens on a unix socket accepts no host but an empty one.
                    host = "" if self.address.startswith(UNIX) else self.address
                    fixed = [("Host", host), ("Content-Length", str(len(body))), ("Connection", "close")]
                    request = h11.Request(method=method, target=path, headers=[*fixed, *headers])
                    for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                        await stream.send(connection.send(event) or b"")
                    return await _answer(stream, connection, what)
        except TimeoutError as error:
            raise AdapterError(COMPONENT, what, f"no answer within {self.timeout_s:g} s") from error
        except (h11.RemoteProtocolError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            why = f"the connection broke: {str(error) or type(error).__name__}"
            raise ConnectionBrokeError(COMPONENT, what, why) from error

    @contextlib.asynccontextmanager
    async def _connected(self, what: str) -> AsyncIterator[ByteStream]:
        try:
            stream = await self._connect()
        except PermissionError as error:
            raise AdapterError(COMPONENT, what, str(error)) from error
        except OSError as error:
            raise NobodyListensError(COMPONENT, what, f"nothing listens there ({error})", "it is started") from error
        async with stream:
            yield stream

    async def _connect(self) -> ByteStream:
        if self.address.startswith(UNIX):
            return await anyio.connect_unix(self.address.removeprefix(UNIX))
        host, _, port = self.address.rpartition(":")
        return await anyio.connect_tcp(host.strip("[]"), int(port))


async def _answer(stream: ByteStream, connection: h11.Connection, what: str) -> Answer:
    status, etag, body = 0, None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(await stream.receive(_CHUNK_BYTES))
            except anyio.EndOfStream:
                connection.receive_data(b"")
        elif isinstance(event, h11.Response):
            status, etag = event.status_code, _etag(event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _LONGEST_ANSWER_BYTES:
                raise AdapterError(COMPONENT, what, f"the answer is longer than {_LONGEST_ANSWER_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body), _etag(event.headers) or etag)


def _etag(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == b"etag"), None)
