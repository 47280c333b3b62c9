"""A log store in memory, on virtual time, that does what VictoriaLogs does when it is killed: it forgets what it acknowledged last."""

import json
from dataclasses import dataclass, field
from typing import Any

import anyio

from shell.adapters.victorialogs import LogsError, unpack

FORGETS_S = 6.0


@dataclass
class Forgetful:
    """`tells` its start time or not. `stalls_s`: how long the answers to come take, whether or not anybody waits for them."""

    tells: bool = True
    is_up: bool = True
    stalls_s: float = 0.0
    starts: int = 1
    asked: int = 0
    requests: int = 0
    _taken: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    async def send(self, body: bytes) -> None:
        """Acknowledged, and safe some seconds later."""
        self.requests += 1
        with anyio.CancelScope(shield=True):  # what has arrived is stored, though the client may have gone
            await anyio.sleep(0.01 + self.stalls_s)
        if not self.is_up:
            raise LogsError("connection refused", is_unreached=True)
        self._taken += [(anyio.current_time(), json.loads(line)) for line in unpack(body).splitlines()]

    async def instance(self) -> int | None:
        """The number of its start."""
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if not self.is_up:
            raise LogsError("connection refused", is_unreached=True)
        return self.starts if self.tells else None

    def kill(self) -> int:
        """How many lines it forgets; it is away until `start`."""
        before = len(self._taken)
        self._taken = [one for one in self._taken if one[0] < anyio.current_time() - FORGETS_S]
        self.is_up = False
        return before - len(self._taken)

    def start(self) -> None:
        """Another instance."""
        self.starts += 1
        self.is_up = True

    @property
    def texts(self) -> list[str]:
        """What it has, by time."""
        return [str(one["_msg"]) for one in sorted((one for _, one in self._taken), key=lambda one: str(one["_time"]))]

    @property
    def times(self) -> list[str]:
        """As it has them."""
        return [str(one["_time"]) for _, one in self._taken]
