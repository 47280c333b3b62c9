"""The control plane over HTTP: signed requests out, bounded answers in.

Retries connection errors and 5xx answers only, a few times with jitter, and never what must not happen twice. Says in words what went
wrong; a clock that is off is named, since it makes every call fail. Interprets no document.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import anyio
import httpx
import msgspec
import stamina

from core import signing
from core.protocol import RegistrationRequest
from shell.failure import AdapterError, CommandError

COMPONENT: Final = "control plane"
LARGEST_ANSWER: Final = 16 * 1024**2
_CONNECT_S: Final = 5.0
_CALL_S: Final = 10.0
_SLOW_CALL_S: Final = 60.0  # `completed` makes the control plane deploy before it answers
_ATTEMPTS: Final = 3
_TOLERATED_SKEW_S: Final = 30.0  # half of what the control plane tolerates
_BASE: Final = "/api/v1/agent"


class ControlPlaneError(AdapterError):
    """A call that failed; `status` is the HTTP status, or None when there was no answer."""

    def __init__(self, what: str, why: str, then: str = "", status: int | None = None) -> None:
        super().__init__(COMPONENT, what, why, then)
        self.status = status


class _RetryError(Exception):
    """Carries a failure that may pass when it is tried again."""

    def __init__(self, error: ControlPlaneError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: the server id and the raw Ed25519 key."""

    server_id: str
    signing_key: bytes

    def __repr__(self) -> str:
        return f"Signer({self.server_id})"


def check_url(url: str, *, allow_http: bool) -> str:
    """The base URL without a trailing slash. Plain HTTP is refused unless it stays on this machine or is allowed by name.

    Registration answers with the key that protects every secret, so it must not cross a network in the clear.
    """
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise CommandError(f"--url is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise CommandError("--url must be the http or https address of a control plane")
    if parts.username is not None or parts.query or parts.fragment:
        raise CommandError("--url must have no user, query or fragment")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise CommandError(
            f"--url http://{host} would send secrets in the clear; use https, or --allow-http if you must"
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


class ControlPlane:
    """The calls an agent makes. Every method may raise ControlPlaneError; every one is bounded in time and size."""

    def __init__(self, url: str, signer: Signer | None = None, *, timeout_s: float = _CALL_S) -> None:
        self.url = url
        self._signer = signer
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=url + _BASE,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=60),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "techulus-agent"},
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def register(self, request: RegistrationRequest) -> bytes:
        """Register; the answer's bytes. Tried once: the token may be used up even when no answer came."""
        body = request.model_dump_json(by_alias=True, exclude_none=True).encode()
        return await self._call("register", "POST", "/register", body, signed=False, attempts=1)

    async def fetch_expected_state(self) -> bytes:
        """The expected state's bytes."""
        return await self._call("fetch the expected state", "GET", "/expected-state")

    async def post_status(self, body: bytes) -> None:
        """Send a status report."""
        await self._call("send the status report", "POST", "/status", body)

    async def fetch_work(self) -> bytes:
        """The pending work items' bytes."""
        return await self._call("fetch the work queue", "GET", "/work-queue")

    async def complete_work(self, item_id: str, error: str | None = None) -> None:
        """Acknowledge a work item as completed, or as failed with a reason."""
        body = (
            {"id": item_id, "status": "completed"}
            if error is None
            else {"id": item_id, "status": "failed", "error": error}
        )
        await self._call("acknowledge a work item", "POST", "/work-queue", msgspec.json.encode(body))

    async def fetch_pending_build(self) -> bytes:
        """The oldest pending build's bytes."""
        return await self._call("fetch the pending build", "GET", "/pending-builds")

    async def claim_build(self, build_id: str) -> bytes:
        """Claim a build; status 409 in the error means that somebody else has it. Tried once: the claim may be stored."""
        return await self._call("claim a build", "POST", f"/builds/{quote(build_id, safe='')}/claim", attempts=1)

    async def post_build_status(self, build_id: str, status: str, error: str | None = None) -> bytes:
        """Send a build's status. `completed` deploys, so it is tried once and waited for longer."""
        body = {"status": status} if error is None else {"status": status, "error": error}
        final = status == "completed"
        return await self._call(
            f"report the build {status}",
            "POST",
            f"/builds/{quote(build_id, safe='')}/status",
            msgspec.json.encode(body),
            attempts=1 if final else _ATTEMPTS,
            timeout_s=_SLOW_CALL_S if final else None,
        )

    async def fetch_build_status(self, build_id: str) -> bytes:
        """A build's status, as bytes."""
        return await self._call("fetch the build's status", "GET", f"/builds/{quote(build_id, safe='')}/status")

    async def _call(
        self,
        what: str,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        signed: bool = True,
        attempts: int = _ATTEMPTS,
        timeout_s: float | None = None,
    ) -> bytes:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async for attempt in stamina.retry_context(
                on=_RetryError, attempts=attempts, timeout=limit_s, wait_initial=0.2, wait_max=2.0, wait_jitter=0.5
            ):
                with attempt:
                    return await self._once(what, method, path, body, signed, limit_s)
        except _RetryError as last:
            raise last.error from last.__cause__
        raise AssertionError("a retry loop ends by returning or raising")

    async def _once(self, what: str, method: str, path: str, body: bytes, signed: bool, limit_s: float) -> bytes:
        headers = {"content-type": "application/json"} if body else {}
        if signed:
            if self._signer is None:
                raise ControlPlaneError(what, "this server is not registered")
            headers |= signing.headers(
                self._signer.server_id, self._signer.signing_key, time.time_ns() // 1_000_000, body
            )
        async with _failures(what, self.url, limit_s):
            with anyio.fail_after(limit_s):
                async with self._client.stream(method, path, content=body or None, headers=headers) as response:
                    content = await _bounded(what, response)
        return _checked(what, response, content)


@asynccontextmanager
async def _failures(what: str, url: str, limit_s: float) -> AsyncIterator[None]:
    """Turn whatever the library raises into our failure; connection trouble may be tried again."""
    where = urlsplit(url).netloc
    try:
        yield
    except TimeoutError as error:
        raise ControlPlaneError(
            what, f"{where} gave no whole answer within {limit_s:.0f} s", "tried again later"
        ) from error
    except httpx.TimeoutException as error:
        raise ControlPlaneError(what, f"{where} did not answer in time", "tried again later") from error
    except httpx.TransportError as error:
        why = f"{where}: {str(error) or type(error).__name__}"
        raise _RetryError(ControlPlaneError(what, why, "tried again later")) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ControlPlaneError(what, f"{where}: {error}") from error


async def _bounded(what: str, response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > LARGEST_ANSWER:
            raise ControlPlaneError(
                what, f"the answer is larger than {LARGEST_ANSWER // 1024**2} MiB", "it is not used"
            )
        parts.append(part)
    return b"".join(parts)


def _checked(what: str, response: httpx.Response, content: bytes) -> bytes:
    status = response.status_code
    if status >= 500:
        raise _RetryError(
            ControlPlaneError(what, f"HTTP {status}{_said(response, content)}", "tried again later", status)
        )
    if status != 200:
        raise ControlPlaneError(what, f"HTTP {status}{_said(response, content)}", _hint(status, response), status)
    if "json" not in response.headers.get("content-type", ""):
        kind = response.headers.get("content-type", "no content type")
        raise ControlPlaneError(
            what, f"the answer is not JSON but {kind[:60]!r}", "is --url the control plane's?", status
        )
    return content


def _said(response: httpx.Response, content: bytes) -> str:
    """The control plane's own words, cut short and on one line; nothing when the body is no error of its form."""
    try:
        text = msgspec.json.decode(content, type=dict[str, object]).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f" {' '.join(str(text).split())[:300]!r}" if text else ""


def _hint(status: int, response: httpx.Response) -> str:
    skew_s = _skew_s(response)
    if status == 401 and skew_s is not None and abs(skew_s) > _TOLERATED_SKEW_S:
        side = "behind" if skew_s > 0 else "ahead of"
        return f"this server's clock is {abs(skew_s):.0f} s {side} the control plane's; set it (NTP)"
    match status:
        case 401:
            return "the control plane does not know this key or token"
        case 404:
            return "the control plane does not know this server; was it deleted there?"
        case 301 | 302 | 307 | 308:
            return "redirects are not followed; is --url complete?"
        case _:
            return ""


def _skew_s(response: httpx.Response) -> float | None:
    """How far the control plane's clock is ahead of this one's, from the answer's Date."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
