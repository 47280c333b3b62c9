"""Keeps the server's public address: found out once in the background, looked at again every hour; nothing waits for it."""

from typing import Final, Protocol

import anyio

from shell.failure import AdapterError
from shell.log import logger
from shell.parts import Turned, no_turn

REFRESH_S: Final = 3600.0
_FIRST_PAUSE_S: Final = 30.0


class Service(Protocol):
    """Who is asked."""

    async def fetch(self) -> str:
        """The address; may raise AdapterError."""


class PublicAddress:
    """The address as last heard; None while it is not known. What a later failure leaves is the last one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.value: str | None = None

    async def run(self, turned: Turned = no_turn) -> None:
        """Ask; again after an hour, or after a failure sooner, with growing pauses."""
        pause_s = _FIRST_PAUSE_S
        complaint: str | None = None
        while True:
            try:
                await self._ask()
                pause_s, complaint = _FIRST_PAUSE_S, None
                turned()
                await anyio.sleep(REFRESH_S)
            except AdapterError as error:
                turned()
                if str(error) != complaint:
                    complaint = str(error)
                    then = f"{self.value} is reported on" if self.value else "reports leave it out until it is known"
                    logger().warning("public address not found out", why=str(error), then=then)
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, REFRESH_S)

    async def _ask(self) -> None:
        found = await self._service.fetch()
        if found != self.value:
            logger().info("public address", address=found, was=self.value)
            self.value = found
