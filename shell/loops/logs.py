"""Logs: which there are (each container of a deployment, Caddy's access log on a proxy, builds', the agent's own), followed and sent.

Never in anybody's way: reconciliation does not wait for it, except that a container's last lines are made safe before it is removed, for
half a second at most.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread

from core.access_log import LONGEST_LINE, AccessLog
from core.caddy import Route
from core.container_log import Assembler, Begun, Source
from core.containers import ActualContainer, ContainerId
from core.log_lines import EncodedLines
from shell.building import log as build_log
from shell.failure import AdapterError
from shell.log import logger
from shell.logs.pump import Pump
from shell.parts import PartError, Turned, no_turn

END_S: Final = 3.0  # the store's last answers, and the disk
FAREWELL_S: Final = 0.5  # what is not safe by then is read all the same, since the file stays open
_ACCESS: Final = "access log"
_BUILD: Final = "build log "


class LogFiles(Protocol):
    """What this loop asks of Podman."""

    async def log_file(self, container_id: ContainerId) -> str | None:
        """Where a container's log is; None when it is kept elsewhere than in a file. May raise AdapterError."""


@dataclass
class Logs:
    """What the loop works with. `containers` is the last listing; `access_log` is None on a worker, `build_logs` without builds."""

    pump: Pump
    files: LogFiles
    containers: Callable[[], tuple[ActualContainer, ...]]
    access_log: Path | None
    routes: Callable[[], tuple[Route, ...]]
    build_logs: Path | None = None
    _seen: tuple[ActualContainer, ...] = ()
    _without_file: set[str] = field(default_factory=set)

    async def run(self, turned: Turned = no_turn) -> None:
        """Follow and send until `end`."""
        if self.access_log is not None:
            self.pump.follow(
                _ACCESS,
                self.access_log,
                lambda last_ns, _: Access(AccessLog(last_ns), self.routes),
                is_new_only=True,  # what Caddy served before the agent came may be months old
            )
        turned()
        async with anyio.create_task_group() as tasks:
            self.pump.parts.start(tasks, "log sender", self.pump.sender.run)
            self.pump.parts.start(tasks, "logs", lambda turned: self.pump.run(self._discover, turned))

    async def end(self) -> None:
        """Nothing more is sent, and what has been is known to have been: a restart repeats no line."""
        with anyio.move_on_after(END_S):
            await self.pump.end()

    async def farewell(self) -> None:
        """Make safe what containers have written so far: one of them is about to be removed."""
        with suppress(PartError), self.pump.parts.contained("logs", "farewell"):
            await self._discover()
            await self.pump.drained(FAREWELL_S)

    async def _discover(self) -> None:
        await self._discover_builds()
        found = self.containers()
        if found is self._seen:
            return
        self._seen = found
        here = {one.id: one for one in found if one.deployment_id is not None}
        self.pump.leave(
            key for key in self.pump.logs if key != _ACCESS and not key.startswith(_BUILD) and key not in here
        )
        self._without_file &= set(here)
        for one in _new(here.values(), {*self.pump.logs, *self._without_file}):
            await self._follow(one)

    async def _discover_builds(self) -> None:
        """Each build's log; of one that has ended or gone nothing more will come."""
        if self.build_logs is None:
            return
        found = await anyio.to_thread.run_sync(build_log.listed, self.build_logs)
        here = {f"{_BUILD}{path.name}": (path, has_ended) for path, has_ended in found}
        for key, (path, _) in here.items():
            if key not in self.pump.logs:
                self.pump.follow(key, path, lambda *_: EncodedLines(), remove=partial(build_log.remove, path))
        goes_on = {key for key, (_, has_ended) in here.items() if not has_ended}
        self.pump.leave(key for key in self.pump.logs if key.startswith(_BUILD) and key not in goes_on)

    async def _follow(self, one: ActualContainer) -> None:
        try:
            path = await self.files.log_file(one.id)
        except AdapterError as error:
            logger().debug("log file not found", container=one.name, why=str(error), ship=False)
            self._seen = ()  # asked again at the next look
            return
        if path is None:
            self._without_file.add(one.id)
            logger().info("container's log is in no file", container=one.name, then="it is not sent")
            return
        source = Source(str(one.deployment_id), one.service_id)
        self.pump.follow(one.id, Path(path), lambda last_ns, begun: Assembler(source, last_ns, begun))


class Access:
    """Caddy's log, with the routes of the moment."""

    def __init__(self, form: AccessLog, routes: Callable[[], tuple[Route, ...]]) -> None:
        self._form = form
        self._routes = routes

    @property
    def last_ns(self) -> int:
        """As the form's."""
        return self._form.last_ns

    @property
    def lines(self) -> int:
        """As the form's."""
        return self._form.lines

    @property
    def nul_bytes(self) -> int:
        """As the form's."""
        return self._form.nul_bytes

    @property
    def held_bytes(self) -> int:
        """As the form's."""
        return self._form.held_bytes

    @property
    def begun(self) -> Begun:
        """Caddy writes whole lines."""
        return ()

    def feed(self, chunk: bytes) -> bytes:
        """With the routes as they are now."""
        before = self._form.too_long
        found = self._form.feed(chunk, self._routes())
        if self._form.too_long.bit_length() > before.bit_length():  # the first, and whenever there are twice as many
            reason = f"longer than {LONGEST_LINE} bytes"
            logger().warning("access log lines skipped", lines=self._form.too_long, reason=reason, ship=False)
        return found

    def end(self) -> bytes:
        """As the form's."""
        return self._form.end()


def _new(found: Iterable[ActualContainer], known: set[str]) -> list[ActualContainer]:
    return [one for one in found if one.id not in known and one.state not in ("created", "configured")]
