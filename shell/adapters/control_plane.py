"""The control plane over HTTP: signed requests out, bounded answers in.

Retries connection errors and 5xx answers only, a few times with jitter, and never what must not happen twice. Says in words what went
wrong; a clock that is off is named, since it makes every call fail. Interprets no document.
"""

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import anyio
import msgspec
import stamina

from core import protocol, refusal, signing
from core.protocol import RegistrationRequest, sendable
from shell.failure import AdapterError, CommandError
from shell.http_client import httpx
from shell.log import logger

COMPONENT: Final = "control plane"
LARGEST_ANSWER: Final = 16 * 1024**2
_LARGEST_REFUSAL: Final = 64 * 1024
_CONNECT_S: Final = 5.0
_CALL_S: Final = 10.0
_SLOW_CALL_S: Final = (
    60.0  # `completed` makes the control plane deploy before it answers, a claim asks GitHub for a token
)
_REGISTER_S: Final = 55.0  # nobody can ask for its answer again, and whoever installs waits a minute
_ATTEMPTS: Final = 3
_PAUSE_S: Final = 1.0  # the least between two calls of one kind
_BASE: Final = "/api/v1/agent"


class ControlPlaneError(AdapterError):
    """A call that failed; `status` is the HTTP status, or None when there was no answer.

    `words` are the control plane's own; empty when somebody before it has answered, whose 404 says nothing of what was asked for.
    """

    def __init__(self, what: str, why: str, then: str = "", status: int | None = None, words: str = "") -> None:
        super().__init__(COMPONENT, what, why, then)
        self.status = status
        self.words = words


class _RetryError(Exception):
    """Carries a failure that may pass when it is tried again."""

    def __init__(self, error: ControlPlaneError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: the server id and the raw Ed25519 key."""

    server_id: str
    signing_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what it is for, its exact bytes, how often and how long it is tried, and what no message may repeat."""

    what: str
    method: str
    path: str
    body: bytes = field(default=b"", repr=False)
    signed: bool = True
    once: bool = False
    limit_s: float | None = None
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @property
    def then(self) -> str:
        """What follows when no answer came."""
        return "whether it was done is not known" if self.once else "tried again later"


def check_url(url: str, *, allow_http: bool) -> str:
    """The base URL without a trailing slash. Plain HTTP is refused unless it stays on this machine or is allowed by name.

    Registration answers with the key that protects every secret, so it must not cross a network in the clear. Raises CommandError, which
    repeats no more of the URL than its host: a password may stand in it.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port, httpx.URL(url)
        if not url.isprintable() or " " in url:
            raise ValueError
    except (ValueError, httpx.InvalidURL):
        raise CommandError("--url is not a valid URL") from None
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

    def __init__(
        self,
        url: str,
        signer: Signer | None = None,
        *,
        timeout_s: float = _CALL_S,
        register_s: float = _REGISTER_S,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """`timeout_s` bounds one try of a call, `register_s` a registration, `pause_s` is the least pause before a second try."""
        self.url = url
        self._register_s = register_s
        self._signer = signer
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._client = httpx.AsyncClient(
            base_url=url + _BASE,
            verify=_authorities(url),
            timeout=httpx.Timeout(None, connect=min(_CONNECT_S, timeout_s)),  # the whole call has its limit below
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
        body = protocol.encode(request)
        return await self._answer_to(
            _Call(
                "register",
                "POST",
                "/register",
                body,
                signed=False,
                once=True,
                limit_s=self._register_s,
                hidden=(request.token,),
            )
        )

    async def fetch_expected_state(self) -> bytes:
        """The expected state's bytes."""
        return await self._answer_to(_Call("fetch the expected state", "GET", "/expected-state"))

    async def post_status(self, body: bytes) -> None:
        """Send a status report."""
        await self._answer_to(_Call("send the status report", "POST", "/status", body))

    async def fetch_work(self) -> bytes:
        """The pending work items' bytes."""
        return await self._answer_to(_Call("fetch the work queue", "GET", "/work-queue"))

    async def complete_work(self, item_id: str, error: str | None = None) -> None:
        """Acknowledge a work item as completed, or as failed with a reason."""
        status = "completed" if error is None else "failed"
        body = _with_error({"id": item_id, "status": status}, error)
        await self._answer_to(_Call("acknowledge a work item", "POST", "/work-queue", body))

    async def fetch_pending_build(self) -> bytes:
        """The oldest pending build's bytes."""
        return await self._answer_to(_Call("fetch the pending build", "GET", "/pending-builds"))

    async def claim_build(self, build_id: str) -> bytes:
        """Claim a build; status 409 in the error means that somebody else has it. Tried once: the claim may be stored."""
        return await self._answer_to(
            _Call("claim a build", "POST", f"{_build(build_id)}/claim", once=True, limit_s=_SLOW_CALL_S)
        )

    async def post_build_status(self, build_id: str, status: str, error: str | None = None) -> bytes:
        """Send a build's status. `completed` deploys, so it is tried once and waited for longer."""
        final = status == "completed"
        return await self._answer_to(
            _Call(
                f"report the build {status}",
                "POST",
                f"{_build(build_id)}/status",
                _with_error({"status": status}, error),
                once=final,
                limit_s=_SLOW_CALL_S if final else None,
            )
        )

    async def fetch_build_status(self, build_id: str) -> bytes:
        """A build's status, as bytes."""
        return await self._answer_to(_Call("fetch the build's status", "GET", f"{_build(build_id)}/status"))

    async def _answer_to(self, call: _Call) -> bytes:
        """The answer to a call, retried within about twice its time limit."""
        limit_s = self._timeout_s if call.limit_s is None else call.limit_s
        attempts = 1 if call.once else _ATTEMPTS
        tries = stamina.retry_context(
            on=_RetryError,
            attempts=attempts,
            timeout=limit_s,
            wait_initial=self._pause_s,
            wait_max=10 * self._pause_s,
            wait_jitter=2 * self._pause_s,
        )
        try:
            async for attempt in tries:
                with attempt:
                    return await self._once(call, limit_s)
        except _RetryError as last:
            raise last.error from last.__cause__
        raise AssertionError("a retry loop ends by returning or raising")

    async def _once(self, call: _Call, limit_s: float) -> bytes:
        headers = {"content-type": "application/json"} if call.body else {}
        if call.signed:
            if self._signer is None:
                raise ControlPlaneError(call.what, "this server is not registered")
            stamp_ms = time.time_ns() // 1_000_000
            headers |= signing.headers(self._signer.server_id, self._signer.signing_key, stamp_ms, call.body)
        async with _failures(call, self.url, limit_s):
            with anyio.fail_after(limit_s):
                async with self._client.stream(
                    call.method, call.path, content=call.body or None, headers=headers
                ) as response:
                    content = await _bounded(call, response)
        return _checked(call, response, content)


@asynccontextmanager
async def _failures(call: _Call, url: str, limit_s: float) -> AsyncIterator[None]:
    """Turn whatever the library raises into our failure; connection trouble may be tried again."""
    where = urlsplit(url).netloc
    try:
        yield
    except TimeoutError as error:
        raise ControlPlaneError(call.what, f"{where} gave no whole answer within {limit_s:g} s", call.then) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
        why = f"{where} cannot be reached: {refusal.one_line(str(error)) or 'no connection in time'}"
        raise _RetryError(ControlPlaneError(call.what, why, "tried again later")) from error
    except httpx.TransportError as error:
        why = f"{where}: {refusal.one_line(str(error)) or type(error).__name__}"
        raise _RetryError(ControlPlaneError(call.what, why, call.then)) from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # a redirect may name an impossible host
        raise ControlPlaneError(call.what, f"{where}: {refusal.one_line(str(error))}", call.then) from error


async def _bounded(call: _Call, response: httpx.Response) -> bytes:
    """The body. What is too large is not read to its end; of a refusal only the first part is of interest."""
    if response.status_code != 200:
        return await _start_of(response, _LARGEST_REFUSAL)
    announced = response.headers.get("content-length", "")
    if not announced.isdecimal() or int(announced) <= LARGEST_ANSWER:
        content = await _start_of(response, LARGEST_ANSWER + 1)
        if len(content) <= LARGEST_ANSWER:
            return content
    raise ControlPlaneError(
        call.what, f"the answer is larger than {LARGEST_ANSWER // 1024**2} MiB", "it is not used", response.status_code
    )


async def _start_of(response: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    parts = response.aiter_raw()
    assert isinstance(parts, AsyncGenerator)  # one that is left in the middle must be closed by whoever leaves it
    async with aclosing(parts):
        async for part in parts:
            content += part
            if len(content) >= limit:
                break
    return bytes(content[:limit])


def _checked(call: _Call, response: httpx.Response, content: bytes) -> bytes:
    """The body of a good answer."""
    status = response.status_code
    if status != 200:
        raise _refused(call, response, refusal.said(content, call.hidden))
    kind = response.headers.get("content-type", "no content type")
    if "json" not in kind:
        why = f"the answer is not JSON but {refusal.one_line(kind)[:60]!r}"
        raise ControlPlaneError(call.what, why, "is --url the control plane's?", status)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        why = f"the answer is encoded as {refusal.one_line(encoding)[:60]!r}, which was not asked for"
        raise ControlPlaneError(call.what, why, "look into what stands before the control plane", status)
    return content


def _refused(call: _Call, response: httpx.Response, words: str) -> Exception:
    """What a status other than 200 comes to; one that may pass is tried again."""
    status = response.status_code
    why = f"HTTP {status}" + (f" {words!r}" if words else "")
    if status >= 500:
        return _RetryError(ControlPlaneError(call.what, why, call.then, status, words))
    hint = refusal.hint(status, words, signed=call.signed, skew_s=_skew_s(response))
    return ControlPlaneError(call.what, why, hint, status, words)


def _skew_s(response: httpx.Response) -> float | None:
    """How far the control plane's clock is ahead of this one's, from the answer's Date."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _with_error(body: dict[str, str], error: str | None) -> bytes:
    return msgspec.json.encode(body if error is None else body | {"error": sendable(error)})


def _build(build_id: str) -> str:
    name = quote(build_id, safe="")
    return (
        f"/builds/{name.replace('.', '%2E') if build_id in ('.', '..') else name}"  # which would lead out of the path
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _authorities(url: str) -> ssl.SSLContext:
    """Public authorities, and those that this server's operator trusts; nobody where no TLS is spoken (reading them takes a while)."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _tried_again(details: stamina.instrumentation.RetryDetails) -> None:
    logger().debug("tried again", why=str(details.caused_by), after_s=round(details.wait_for, 2))


# The library would announce every retry in its own words, as a warning; of a call that fails in the end its caller tells.
stamina.instrumentation.set_on_retry_hooks([_tried_again])
