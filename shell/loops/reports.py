"""The heartbeat: status reports go out in every state, whatever else hangs.

The state machine hands over what it saw; a later report replaces an earlier one that has not gone out, so reporting never holds a change
back. When the machine has been silent for a while (a long pull, a hung component), this loop looks at the containers itself. A listing
that fails makes no report.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from core import status
from core.memory import Memory
from core.overview import Exchange
from core.status import Entry, Resources
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.figures import FIGURES
from shell.log import logger
from shell.parts import Parts, Turned, no_turn

HEARTBEAT_S = 12.0  # with a look and the spacing 28 s: the control plane wants a report every 30 s at least
LOOK_AGAIN_S = 5.0  # after a listing that failed, so that one hiccup does not make the server look offline
LEAST_SPACING_S = 1.0
LOOK_LIMIT_S = 15.0
_FORESEEN = (AdapterError, TimeoutError)


class Reports:
    """Sends status reports, one at a time, at least a second apart."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        engine: ContainerEngine,
        memory: Callable[[], Memory],
        resources: Callable[[], Resources],
        wall_clock: Callable[[], float],
        public_ip: Callable[[], str | None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
        parts: Parts | None = None,
    ) -> None:
        self._parts = Parts() if parts is None else parts
        self._send = send
        self._engine = engine
        self._memory = memory
        self._resources = resources
        self._wall_clock = wall_clock
        self._public_ip = public_ip
        self._beat = beat
        self._wanted: tuple[Entry, ...] | None = None
        self._waiting: list[anyio.Event] = []
        self._wake = anyio.Event()
        self._stirred = False
        self._complaint: str | None = None
        self._is_blind = False
        self.last: Exchange | None = None

    def post(self, entries: tuple[Entry, ...]) -> None:
        """Have these entries reported soon; replaces what has not gone out yet."""
        self._wanted = entries
        self._wake.set()

    def stir(self) -> None:
        """Have the containers looked at and reported now: something has happened to one."""
        self._stirred = True
        self._wake.set()

    async def deliver(self, entries: tuple[Entry, ...]) -> None:
        """Have these entries reported and wait until that has been tried."""
        tried = anyio.Event()
        self._waiting.append(tried)
        self.post(entries)
        await tried.wait()

    async def run(self, turned: Turned = no_turn) -> None:
        """Send what is posted, and a heartbeat when nothing is."""
        pause_s = HEARTBEAT_S
        while True:
            self._beat()
            with anyio.move_on_after(pause_s):
                await self._wake.wait()
            self._wake = anyio.Event()
            entries, self._wanted = self._wanted, None
            tried, self._waiting = self._waiting, []
            stirred, self._stirred = self._stirred, False
            try:
                if entries is None or stirred:
                    looked = await self._look()
                    entries = entries if looked is None else looked
                pause_s = LOOK_AGAIN_S if entries is None else HEARTBEAT_S
                if entries is not None:
                    await self._report(entries)
            finally:
                for one in tried:
                    one.set()
            turned()
            await anyio.sleep(LEAST_SPACING_S)

    async def _look(self) -> tuple[Entry, ...] | None:
        try:
            with self._parts.contained("reports", "containers", _FORESEEN), anyio.fail_after(LOOK_LIMIT_S):
                seen = await self._engine.containers(self._wall_clock())
        except (AdapterError, TimeoutError) as error:
            if not self._is_blind:
                why = str(error) or f"no answer within {LOOK_LIMIT_S:.0f} s"
                logger().warning("no heartbeat", why=why, then="nothing is reported until the containers can be listed")
            self._is_blind = True
            return None
        if self._is_blind:
            logger().info("heartbeat goes on")
        self._is_blind = False
        memory = self._memory()
        return status.entries(seen, status.now_up(seen, memory.ever_up), memory.retries)

    async def _report(self, entries: tuple[Entry, ...]) -> None:
        resources = None
        with suppress(AdapterError, OSError), self._parts.contained("reports", "resources", (OSError,)):
            resources = self._resources()  # /proc cannot be opened: the heartbeat matters more
        try:
            with self._parts.contained("reports", "sending"):
                await self._send(status.encode(entries, resources, self._public_ip()))
        except AdapterError as error:
            if self._complaint != str(error):
                logger().warning("report not sent", why=str(error), then="the next one is tried in time")
            self._complaint = str(error)
            self.last = Exchange(self._wall_clock(), str(error))
            FIGURES.add("techulus_reports", outcome="failed")
        else:
            self.last = Exchange(self._wall_clock())
            FIGURES.add("techulus_reports", outcome="ok")
            if self._complaint is not None:
                logger().info("reports go out again")
            self._complaint = None
