"""One writer at a time, and no change that follows from a look which another writer has overtaken.

The state machine looks first and acts later; a work item may change the server in between. `epoch` tells: it differs when one has been at
work since, or still was during the look.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Turns:
    """Whose turn it is to change this server."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.epoch = 0

    @property
    def is_changing(self) -> bool:
        """Whether a work item changes the server now."""
        return self.epoch % 2 == 1

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change the server for a work item, within and holding the lock; whoever has looked meanwhile looks again before acting."""
        self.epoch += 1
        try:
            yield
        finally:
            self.epoch += 1
