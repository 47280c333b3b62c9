"""The one HTTP client: requests to what is somewhere else (the control plane, the log store, the address service).

Every exchange is bounded in seconds and in bytes. Bodies are never unpacked, since a megabyte may become two gigabytes. Redirects are not
followed, and no cookie is kept. The proxies of the environment are honoured as every program written in Go on this server does
(`core.http_proxy`), and the operator's own authorities are trusted beside the public ones (`--ca-file`).

Podman and Caddy are spoken to over sockets of this machine by their own adapters. No other module imports `httpx`
(`tests/shell/test_http_client.py`).
"""

import os
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
from returns.pipeline import is_successful

from core import http_proxy, refusal
from shell import light_imports
from shell.failure import CommandError

with light_imports.without("click"):  # httpx has a command of its own, which its package loads where click is installed
    import httpx

_LARGEST_REFUSAL: Final = 64 * 1024  # of an answer that is not 2xx only the first part is of interest
_LARGEST_CA_FILE: Final = 4 * 1024**2  # all public authorities together are below 0.5 MB
_LONGEST_NUMBER: Final = 15  # digits; Python refuses to read thousands
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HttpError(Exception):
    """There is no answer. `is_sent`: the request may have arrived. `may_pass`: another try may go better."""

    def __init__(self, why: str, *, is_sent: bool, may_pass: bool) -> None:
        super().__init__(why)
        self.is_sent = is_sent
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, and the body as it came; only its beginning unless it `is_whole`."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    is_whole: bool = True


class HttpClient:
    """Exchanges with one server. Connections are kept for the next exchange, `keep` of them at most."""

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        auth: tuple[str, str] | None = None,
        connect_s: float = 10.0,
        keep: int = 4,
    ) -> None:
        """`auth` is user and password. Raises CommandError when the proxy to go through or the file of authorities is not usable."""
        self._url = url
        proxy = _proxy_for(url)
        self.via = "" if proxy is None else proxy.url.netloc.decode("ascii", "replace")
        """Host and port of the proxy that is gone through; empty without one."""
        speaks_tls = url.startswith("https:") or (proxy is not None and proxy.url.scheme == "https")
        context = (
            trusted(ca_file) if speaks_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )  # reading them takes a while
        if proxy is not None and proxy.url.scheme == "https":
            proxy.ssl_context = context
        self._client = httpx.AsyncClient(
            verify=context,
            auth=auth,
            timeout=httpx.Timeout(None, connect=connect_s),  # a whole exchange has its limit below
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=keep, keepalive_expiry=60),
            headers={"accept-encoding": "identity", "user-agent": "techulus-agent"},
            cookies=CookieJar(
                DefaultCookiePolicy(allowed_domains=())
            ),  # whoever sends others all the time fills no memory
            follow_redirects=False,
            trust_env=False,
            proxy=proxy,
        )

    @property
    def where(self) -> str:
        """Whom this client asks, for a message: host and port, and the proxy. No credentials."""
        host = urlsplit(self._url).netloc.rpartition("@")[2]
        return f"{host} through the proxy {self.via}" if self.via else host

    async def exchange(
        self,
        method: str,
        path: str = "",
        *,
        limit_s: float,
        most_bytes: int,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer, within `limit_s` seconds, with `most_bytes` of its body at most. `path` is added to the client's URL.

        Raises HttpError, and TimeoutError when the limit is over.
        """
        with _failures(), anyio.fail_after(limit_s):
            async with self._client.stream(method, self._url + path, content=content, headers=headers) as response:
                body, is_whole = await _body(response, most_bytes)
        return Answer(response.status_code, response.headers, body, is_whole)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def is_url(text: str) -> bool:
    """Whether a client can be made for it."""
    try:
        httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return True


@lru_cache(maxsize=1)
def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Public authorities, those that this server's operator trusts, and those in a file in PEM form. Raises CommandError."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if ca_file is not None:
        try:
            context.load_verify_locations(cadata=_pem(ca_file))
        except OSError as error:  # SSLError is one
            raise CommandError(f"--ca-file: {ca_file}: {_reason(error)}") from error
    return context


def _pem(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file")
    with path.open("rb") as file:
        content = file.read(_LARGEST_CA_FILE + 1)
    if len(content) > _LARGEST_CA_FILE:
        raise OSError(f"larger than {_LARGEST_CA_FILE // 1024**2} MiB")
    text = content.decode("ascii", "ignore")  # comments between certificates may be in any language
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise OSError("no certificate in PEM form")
    return text


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "a certificate in it cannot be read"
    return error.strerror or str(error)


def _proxy_for(url: str) -> httpx.Proxy | None:
    try:
        parts = httpx.URL(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        host = parts.raw_host.decode("ascii").strip("[]")
    except (httpx.InvalidURL, UnicodeError):
        return None  # the exchange says what is wrong with it
    found = http_proxy.from_environment(os.environ).choose(http_proxy.Destination(parts.scheme, host, port))
    if not is_successful(found):
        raise CommandError(found.failure())
    chosen = found.unwrap()
    try:
        return None if chosen is None else httpx.Proxy(chosen)
    except (httpx.InvalidURL, ValueError):
        raise CommandError(f"{parts.scheme.upper()}_PROXY is not the URL of a proxy") from None


@contextmanager
def _failures() -> Iterator[None]:
    """The one place where the library's exceptions become ours."""
    try:
        yield
    except TimeoutError:
        raise
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise HttpError(_said(error) or "no connection in time", is_sent=False, may_pass=True) from error
    except httpx.ProxyError as error:
        raise HttpError(f"the proxy refused: {_said(error)}", is_sent=False, may_pass=True) from error
    except (httpx.TransportError, OSError) as error:
        raise HttpError(_said(error) or type(error).__name__, is_sent=True, may_pass=True) from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # a redirect may name an impossible host
        raise HttpError(_said(error) or type(error).__name__, is_sent=True, may_pass=False) from error


def _said(error: Exception) -> str:
    return refusal.one_line(str(error))


async def _body(response: httpx.Response, most_bytes: int) -> tuple[bytes, bool]:
    """The body as it came, and whether that is all of it. What announces itself as too large is not read."""
    if not response.is_success:
        return await _start_of(response, _LARGEST_REFUSAL)
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > _LONGEST_NUMBER or int(announced) > most_bytes):
        return b"", False
    return await _start_of(response, most_bytes)


async def _start_of(response: httpx.Response, most_bytes: int) -> tuple[bytes, bool]:
    content = bytearray()
    parts = response.aiter_raw()
    assert isinstance(parts, AsyncGenerator)  # one that is left in the middle must be closed by whoever leaves it
    async with aclosing(parts):
        async for part in parts:
            content += part
            if len(content) > most_bytes:
                return bytes(content[:most_bytes]), False
    return bytes(content), True
