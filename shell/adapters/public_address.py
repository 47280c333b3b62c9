"""Asks a service at which address it sees this server. One small request; nothing of this server is sent."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

import anyio

from core import public_address, refusal
from shell.failure import AdapterError, understood
from shell.http_client import httpx

_LIMIT_S: Final = 10.0
_LARGEST: Final = 1024
_COMPONENT: Final = "public address"


class PublicAddressService:
    """A service that answers GET with the caller's address as text. Every call is bounded in time and size."""

    def __init__(self, url: str, limit_s: float = _LIMIT_S) -> None:
        self._url = url
        self._limit_s = limit_s

    async def fetch(self) -> str:
        """This server's IPv4 address. Raises AdapterError. (Made anew each time: once an hour no connection is worth keeping.)"""
        what = f"ask {urlsplit(self._url).hostname} for this server's address"
        try:
            with anyio.fail_after(self._limit_s):
                raw = await self._ask(what)
        except TimeoutError as error:
            raise AdapterError(_COMPONENT, what, f"no answer within {self._limit_s:g} s") from error
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            OSError,
            UnicodeError,
        ) as error:  # the last: a host, also of a redirect
            raise AdapterError(_COMPONENT, what, refusal.one_line(str(error)) or type(error).__name__) from error
        found = public_address.parse(raw)
        return understood(found, _COMPONENT, what)

    async def _ask(self, what: str) -> bytes:
        async with (
            httpx.AsyncClient(timeout=self._limit_s, trust_env=False) as client,
            client.stream("GET", self._url, headers={"accept": "text/plain", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise AdapterError(_COMPONENT, what, f"status {answer.status_code}")
            raw = b""
            chunks = answer.aiter_raw()
            assert isinstance(
                chunks, AsyncGenerator
            )  # one that is left in the middle must be closed by whoever leaves it
            async with aclosing(chunks):
                async for chunk in chunks:
                    raw += chunk
                    if len(raw) > _LARGEST:
                        raise AdapterError(_COMPONENT, what, "the answer is too long for an address")
            return raw
