"""VictoriaLogs: takes batches of log lines. Credentials in the endpoint's URL become a header and are never shown."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit

from core.log_lines import STREAM_FIELDS
from core.refusal import one_line
from shell.failure import AdapterError, CommandError
from shell.http_client import HttpClient, HttpError

_LIMIT_S: Final = 30.0
_LARGEST_ANSWER: Final = 64 * 1024  # it says nothing when it has taken the lines
_LARGEST_REFUSAL: Final = 2000
_GZIP_LEVEL: Final = 3


class LogsError(AdapterError):
    """A batch was not stored. `refused` when another try of the same bytes would end the same way."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__("logs", "send log lines", why, "they are kept and sent later")
        self.refused = refused


class Store(Protocol):
    """Where lines go."""

    async def send(self, lines: bytes) -> None:
        """Have whole lines stored; none is fine, too. May raise LogsError."""


async def send_each(store: Store, lines: bytes, refused: Callable[[bytes, LogsError], None]) -> None:
    """Have whole lines stored, but for those that are `refused`: they are found by halving, and told one by one.

    A line's refusal is believed when a request without any line is taken: what refuses that, too, has not looked at the lines (a server
    that wants TLS, a proxy that knows no way). Raises LogsError when the store cannot take lines now; some may have been stored.
    """
    try:
        await store.send(lines)
        return
    except LogsError as error:
        if not error.refused:
            raise
        why = error
    parts = lines.split(b"\n")[:-1]
    if len(parts) <= 1:
        try:
            await store.send(b"")
        except LogsError as error:
            raise LogsError(error.why) from error
        refused(lines, why)
        return
    for some in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
        await send_each(store, b"\n".join((*some, b"")), refused)


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
        self._client = HttpClient(base, ca_file=ca_file, auth=auth, connect_s=limit_s)

    async def send(self, lines: bytes) -> None:
        """Have whole lines stored; returns when they are taken."""
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        body = gzip.compress(lines, _GZIP_LEVEL, mtime=0)
        path = "/insert/jsonline?" + urlencode({"_stream_fields": ",".join(STREAM_FIELDS)})
        try:
            answer = await self._client.exchange(
                "POST", path, limit_s=self._limit_s, most_bytes=_LARGEST_ANSWER, content=body, headers=headers
            )
        except TimeoutError as error:
            raise LogsError(f"{self._client.where} gave no answer within {self._limit_s:g} s") from error
        except HttpError as error:
            raise LogsError(f"{self._client.where}: {error}") from error
        if answer.status not in (200, 204):
            words = one_line(answer.body[:_LARGEST_REFUSAL].decode("utf-8", "replace"))
            refused = 400 <= answer.status < 500 and answer.status not in (401, 403, 404, 407, 408, 429)
            raise LogsError(f"{self._client.where} answered {answer.status} {words!r}", refused=refused)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
