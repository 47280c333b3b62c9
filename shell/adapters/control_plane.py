"""The control plane over HTTP: signed requests out, bounded answers in.

Retries connection errors and 5xx answers only, a few times with jitter, and never what must not happen twice. Says in words what went
wrong; a clock that is off is named, since it makes every call fail. Interprets no document.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
import stamina

from core import bounds, protocol, refusal, signing
from core.protocol import RegistrationRequest, sendable
from shell.failure import AdapterError, CommandError
from shell.http_client import Answer, HttpClient, HttpError, is_url
from shell.log import logger

COMPONENT: Final = "control plane"
LARGEST_ANSWER: Final = 16 * 1024**2
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
        _ = parts.port
        if not is_url(url) or not url.isprintable() or " " in url:
            raise ValueError
    except ValueError:
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
        ca_file: Path | None = None,
        timeout_s: float = _CALL_S,
        register_s: float = _REGISTER_S,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """`timeout_s` bounds one try of a call, `register_s` a registration, `pause_s` is the least pause before a second try.

        `ca_file` holds further authorities. Raises CommandError, as HttpClient does.
        """
        self.url = url
        self._register_s = register_s
        self._signer = signer
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._client = HttpClient(url + _BASE, ca_file=ca_file, connect_s=min(_CONNECT_S, timeout_s))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @property
    def via(self) -> str:
        """Host and port of the proxy that calls go through; empty without one."""
        return self._client.via

    async def probe(self) -> float | None:
        """How far the control plane's clock is ahead, in seconds, if it says; any answer will do. Asked once, without a signature."""
        try:
            return _skew_s(await self._exchange(_Call("reach it", "GET", "/expected-state"), {}, self._timeout_s))
        except _RetryError as last:
            raise last.error from last.__cause__

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
        headers = {"accept": "application/json"} | ({"content-type": "application/json"} if call.body else {})
        if call.signed:
            if self._signer is None:
                raise ControlPlaneError(call.what, "this server is not registered")
            stamp_ms = time.time_ns() // 1_000_000
            headers |= signing.headers(self._signer.server_id, self._signer.signing_key, stamp_ms, call.body)
        return _checked(call, await self._exchange(call, headers, limit_s))

    async def _exchange(self, call: _Call, headers: Mapping[str, str], limit_s: float) -> Answer:
        """The answer, whatever it is. Connection trouble may be tried again."""
        where = self._client.where
        try:
            return await self._client.exchange(
                call.method,
                call.path,
                limit_s=limit_s,
                most_bytes=LARGEST_ANSWER,
                content=call.body or None,
                headers=headers,
            )
        except TimeoutError as error:
            raise ControlPlaneError(
                call.what, f"{where} gave no whole answer within {limit_s:g} s", call.then
            ) from error
        except HttpError as error:
            why = f"{where}: {error}" if error.is_sent else f"{where} cannot be reached: {error}"
            failure = ControlPlaneError(call.what, why, call.then if error.is_sent else "tried again later")
            raise (_RetryError(failure) if error.may_pass else failure) from error


def _checked(call: _Call, response: Answer) -> bytes:
    """The body of a good answer."""
    status = response.status
    if status != 200:
        raise _refused(call, response, refusal.said(response.body, call.hidden))
    if not response.is_whole:
        why = f"the answer is larger than {LARGEST_ANSWER // 1024**2} MiB"
        raise ControlPlaneError(call.what, why, "it is not used", status)
    kind = response.headers.get("content-type", "no content type")
    if "json" not in kind:
        why = f"the answer is not JSON but {refusal.one_line(kind)[:60]!r}"
        raise ControlPlaneError(call.what, why, "is --url the control plane's?", status)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        why = f"the answer is encoded as {refusal.one_line(encoding)[:60]!r}, which was not asked for"
        raise ControlPlaneError(call.what, why, "look into what stands before the control plane", status)
    if too_many := bounds.too_many_values(response.body):
        raise ControlPlaneError(call.what, f"the answer {too_many}", "it is not used", status)
    return response.body


def _refused(call: _Call, response: Answer, words: str) -> Exception:
    """What a status other than 200 comes to; one that may pass is tried again."""
    status = response.status
    why = f"HTTP {status}" + (f" {words!r}" if words else "")
    if status >= 500:
        return _RetryError(ControlPlaneError(call.what, why, call.then, status, words))
    hint = refusal.hint(status, words, signed=call.signed, skew_s=_skew_s(response))
    return ControlPlaneError(call.what, why, hint, status, words)


def _skew_s(response: Answer) -> float | None:
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


def _tried_again(details: stamina.instrumentation.RetryDetails) -> None:
    logger().debug("tried again", why=str(details.caused_by), after_s=round(details.wait_for, 2))


# The library would announce every retry in its own words, as a warning; of a call that fails in the end its caller tells.
stamina.instrumentation.set_on_retry_hooks([_tried_again])
