"""Asks a service at which address it sees this server. One small request; nothing of this server is sent."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from core import public_address
from shell.failure import AdapterError, understood
from shell.http_client import HttpClient, HttpError

_LIMIT_S: Final = 10.0
_LARGEST: Final = 1024
_OK: Final = 200
_COMPONENT: Final = "public address"


class PublicAddressService:
    """A service that answers GET with the caller's address as text. Every call is bounded in time and size."""

    def __init__(self, url: str, limit_s: float = _LIMIT_S, ca_file: Path | None = None) -> None:
        """Raises CommandError, as HttpClient does."""
        self._host = urlsplit(url).hostname
        self._client = HttpClient(url, ca_file=ca_file, connect_s=limit_s, keep=0)  # it is asked once an hour
        self._limit_s = limit_s

    async def fetch(self) -> str:
        """This server's IPv4 address. Raises AdapterError."""
        what = f"ask {self._host} for this server's address"
        try:
            answer = await self._client.exchange(
                "GET", limit_s=self._limit_s, most_bytes=_LARGEST, headers={"accept": "text/plain"}
            )
        except TimeoutError as error:
            raise AdapterError(_COMPONENT, what, f"no answer within {self._limit_s:g} s") from error
        except HttpError as error:
            raise AdapterError(_COMPONENT, what, str(error)) from error
        if answer.status != _OK:
            raise AdapterError(_COMPONENT, what, f"status {answer.status}")
        if not answer.is_whole:
            raise AdapterError(_COMPONENT, what, "the answer is too long for an address")
        return understood(public_address.parse(answer.body), _COMPONENT, what)
