"""VictoriaLogs: takes batches of log lines. Credentials in the endpoint's URL become a header and are never shown."""

import gzip
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import anyio

from core.log_lines import STREAM_FIELDS
from core.refusal import one_line
from shell.failure import AdapterError, CommandError
from shell.http_client import httpx

_LIMIT_S: Final = 30.0
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

    def __init__(self, endpoint: str, limit_s: float = _LIMIT_S) -> None:
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
        self._client = httpx.AsyncClient(
            base_url=base,
            auth=(unquote(parts.username), unquote(parts.password or "")) if parts.username else None,
            timeout=limit_s,
            trust_env=False,
            follow_redirects=False,
        )

    async def send(self, lines: bytes) -> None:
        """Have whole lines stored; returns when they are taken."""
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        body = gzip.compress(lines, _GZIP_LEVEL, mtime=0)
        query = {"_stream_fields": ",".join(STREAM_FIELDS)}
        try:
            with anyio.fail_after(self._limit_s):
                answer = await self._client.post("/insert/jsonline", params=query, content=body, headers=headers)
        except TimeoutError as error:
            raise LogsError(f"{self.host} gave no answer within {self._limit_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise LogsError(f"{self.host}: {one_line(str(error)) or type(error).__name__}") from error
        if answer.status_code not in (200, 204):
            words = one_line(answer.text[:_LARGEST_REFUSAL])[:300]
            refused = 400 <= answer.status_code < 500 and answer.status_code not in (401, 403, 404, 408, 429)
            raise LogsError(f"{self.host} answered {answer.status_code} {words!r}", refused=refused)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
