"""One writer at a time, and no change that follows from a look which another writer has overtaken.

The state machine looks first and acts later; a work item may change the server in between. `epoch` tells: it differs when one has been at
work since, or still was during the look.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Turns:
    """Whose turn it is to change this server."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.epoch = 0

    @asynccontextmanager
    async def work_item(self) -> AsyncIterator[None]:
        """Change the server for a work item, within; whoever has looked meanwhile looks again before acting."""
        async with self.lock:
            self.epoch += 1
            try:
                yield
            finally:
                self.epoch += 1
