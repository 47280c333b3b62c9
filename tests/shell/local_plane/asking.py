"""Asks an ASGI application without a socket, one request after the other, from an address of the test's choice."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.applications import Starlette


class Asking:
    """A caller of the application at `client`, which is loopback unless told otherwise. Redirects are not followed."""

    def __init__(self, app: Starlette, client: str = "127.0.0.1", base_url: str = "http://127.0.0.1:8000") -> None:
        self._app = app
        self._client = client
        self._base_url = base_url

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> httpx.Response:
        """One request and its answer."""
        return asyncio.run(self._request(method, path, headers, content))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """A GET."""
        return self.request("GET", path, headers)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """A POST of JSON."""
        content = httpx.Request("POST", self._base_url, json=dict(body or {})).content
        return self.request("POST", path, {"content-type": "application/json"}, content)

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str] | None, content: bytes | None
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app, client=(self._client, 40_000))
        async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
            return await client.request(method, path, headers=headers, content=content)
