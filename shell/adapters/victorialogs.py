"""VictoriaLogs: takes batches of log lines. Credentials in the endpoint's URL become a header and are never shown."""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit

import anyio
import anyio.to_thread

from core.log_lines import STREAM_FIELDS
from core.refusal import one_line
from shell.failure import AdapterError, CommandError
from shell.http_client import Answer, HttpClient, HttpError

_LIMIT_S: Final = (
    120.0  # a store that stalls and goes on stores what was given up as well, so that another try stores it twice
)
_CONNECT_S: Final = 10.0
_INSTANCE_LIMIT_S: Final = 10.0
_LARGEST_ANSWER: Final = 64 * 1024  # it says nothing when it has taken the lines
_LARGEST_METRICS: Final = 4 * 1024**2  # VictoriaLogs 1.26 has 40 KiB of them
_LARGEST_REFUSAL: Final = 2000
_GZIP_LEVEL: Final = 3
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GATEWAY_FAILED: Final = (502, 503, 504)
_STARTED_AT: Final = re.compile(rb"^vm_app_start_timestamp (\d{1,15})$", re.MULTILINE)


class LogsError(AdapterError):
    """A batch was not stored. `refused` when another try of the same bytes would end the same way.

    `is_unreached`: there was no connection to the store, or none that lasted until its answer, so that it may have restarted.
    """

    def __init__(self, why: str, *, refused: bool = False, is_unreached: bool = False) -> None:
        super().__init__("logs", "send log lines", why, "they are kept and sent later")
        self.refused = refused
        self.is_unreached = is_unreached


class Store(Protocol):
    """Where lines go."""

    async def send(self, body: bytes) -> None:
        """Have packed lines stored; none is fine, too. Returns when the store has acknowledged them. May raise LogsError."""

    async def instance(self) -> int | None:
        """When the store's process started, in seconds of its clock; None where it does not tell. May raise LogsError."""


def pack(lines: bytes) -> bytes:
    """Whole lines as they are sent and kept on disk: compressed. What is packed already stays as it is. For a thread: 8 ms a MiB."""
    return lines if lines.startswith(_GZIP_MAGIC) else gzip.compress(lines, _GZIP_LEVEL, mtime=0)


def unpack(body: bytes) -> bytes:
    """The lines of what `pack` returned; none of what the disk has damaged."""
    try:
        return gzip.decompress(body) if body.startswith(_GZIP_MAGIC) else body
    except (OSError, EOFError, zlib.error):
        return b""


async def send_each(store: Store, body: bytes, refused: Callable[[bytes, LogsError], None]) -> None:
    """Have packed lines stored, but for those that are `refused`: they are found by halving, and told one by one.

    A line's refusal is believed when a request without any line is taken: what refuses that, too, has not looked at the lines (a server
    that wants TLS, a proxy that knows no way). Raises LogsError when the store cannot take lines now; some may have been stored.
    """
    try:
        await store.send(body)
        return
    except LogsError as error:
        if not error.refused:
            raise
        why = error
    lines = await anyio.to_thread.run_sync(unpack, body)
    parts = lines.split(b"\n")[:-1]
    if len(parts) <= 1:
        try:
            await store.send(pack(b""))
        except LogsError as error:
            raise LogsError(error.why, is_unreached=error.is_unreached) from error
        refused(lines, why)
        return
    for some in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
        await send_each(store, await anyio.to_thread.run_sync(pack, b"\n".join((*some, b""))), refused)


class VictoriaLogs:
    """One endpoint. Every call is bounded in time; raises LogsError."""

    def __init__(self, endpoint: str, limit_s: float = _LIMIT_S, ca_file: Path | None = None) -> None:
        """Raises CommandError for what is no http or https URL; the text repeats no credentials."""
        try:
            parts = urlsplit(endpoint)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise CommandError("--logs-endpoint is not a valid URL") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise CommandError("--logs-endpoint must be the http or https base URL of VictoriaLogs")
        name = f"[{host}]" if ":" in host else host
        self.host = name if port is None else f"{name}:{port}"
        base = urlunsplit((parts.scheme, self.host, parts.path.rstrip("/"), "", ""))
        self._limit_s = limit_s
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._client = HttpClient(base, ca_file=ca_file, auth=auth, connect_s=min(limit_s, _CONNECT_S))

    async def send(self, body: bytes) -> None:
        """Have packed lines stored; returns when they are acknowledged."""
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        path = "/insert/jsonline?" + urlencode({"_stream_fields": ",".join(STREAM_FIELDS)})
        answer = await self._exchange("POST", path, self._limit_s, _LARGEST_ANSWER, body, headers)
        if answer.status not in (200, 204):
            raise self._failure(answer)

    async def instance(self) -> int | None:
        """When the store's process started, as its own metrics tell; None where they are not to be had, as behind a proxy."""
        answer = await self._exchange("GET", "/metrics", min(self._limit_s, _INSTANCE_LIMIT_S), _LARGEST_METRICS)
        if answer.status in _GATEWAY_FAILED:
            raise self._failure(answer)
        found = _STARTED_AT.search(answer.body) if answer.status == 200 else None
        return None if found is None else int(found[1])

    async def _exchange(
        self, method: str, path: str, limit_s: float, most_bytes: int, body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        try:
            return await self._client.exchange(
                method, path, limit_s=limit_s, most_bytes=most_bytes, content=body, headers=headers
            )
        except TimeoutError as error:
            raise LogsError(f"{self._client.where} gave no answer within {limit_s:g} s") from error
        except HttpError as error:
            raise LogsError(f"{self._client.where}: {error}", is_unreached=True) from error

    def _failure(self, answer: Answer) -> LogsError:
        words = one_line(answer.body[:_LARGEST_REFUSAL].decode("utf-8", "replace"))
        refused = 400 <= answer.status < 500 and answer.status not in (401, 403, 404, 407, 408, 429)
        why = f"{self._client.where} answered {answer.status} {words!r}"
        return LogsError(why, refused=refused, is_unreached=answer.status in _GATEWAY_FAILED)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
