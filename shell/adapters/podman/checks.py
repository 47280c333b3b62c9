"""Health checks: one at a time for each container, ended when it overruns its limit.

Podman 4.3 counts a check that has overrun as failed once it has ended, and ends none. What a check is, Podman says of each command that
runs in a container; the process is found by its monitor, since Podman keeps no number of it.
"""

from functools import partial
from typing import Final

import anyio

from core.containers import ContainerId
from core.podman_processes import Command, parse_session
from core.processes import Process
from shell.adapters.podman import service as api
from shell.adapters.podman.liveness import Liveness
from shell.adapters.podman.processes import Processes
from shell.adapters.podman.service import COMPONENT, Service
from shell.failure import AdapterError, understood
from shell.log import logger

_LEAVE_S: Final = 1.0  # out of the ten seconds that the agent's end may take; it takes milliseconds
_ANSWER_S: Final = 10.0  # for Podman to start the check, and to note the end of one that was ended


class Checks:
    """Runs and ends the health checks of one Podman's containers. Everything raises AdapterError."""

    def __init__(self, service: Service, liveness: Liveness, processes: Processes) -> None:
        self._service = service
        self._liveness = liveness
        self._processes = processes
        self._ended_at: dict[ContainerId, float] = {}

    async def run(self, container_id: ContainerId, limit_s: float) -> str:
        """Run a check; the outcome of this run. It is ended at its limit, and none is started beside one that still runs.

        What an agent that was killed has left is ended here, too: Podman then knows that it failed.
        """
        what = f"check the health of container {container_id[:12]}"
        if await self.end_overrun(container_id, limit_s):
            raise AdapterError(COMPONENT, what, "an earlier check has not ended", "checked again later")
        check = partial(api.run_health_check, container_id=container_id, limit_s=limit_s + _ANSWER_S)
        async with self._service.turn_of_check(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_at, container_id, limit_s)
            failure: AdapterError | None = None
            try:
                outcome = await self._service.check(what, check, limit_s + _ANSWER_S)
            except AdapterError as error:  # raised after the group's end, which would wrap it
                failure = error
            except anyio.get_cancelled_exc_class():  # the agent ends, and nobody else would end the check
                with anyio.move_on_after(_LEAVE_S, shield=True):
                    await self._end_all(container_id)
                raise
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return outcome

    def heard(self, container_id: ContainerId) -> None:
        """Podman has said that a check has ended."""
        self._ended_at[container_id] = anyio.current_time()

    def ended_at(self, container_id: ContainerId) -> float:
        """When a check was last heard to have ended, on the loop's clock; long ago when none was."""
        return self._ended_at.get(container_id, float("-inf"))

    def forget_all_but(self, there: set[ContainerId]) -> None:
        """Of containers that are gone nothing is kept."""
        if self._ended_at.keys() - there:
            self._ended_at = {one: at for one, at in self._ended_at.items() if one in there}

    async def end_overrun(self, container_id: ContainerId, limit_s: float) -> bool:
        """End those checks of a container that have run for longer than the limit; whether any check still runs."""
        remaining = False
        for one in await self._running(container_id):
            if await self._processes.age_s(one) < limit_s:
                remaining = True
                continue
            await self._processes.end_family(container_id, one.pid)
            then = "it counts as failed"
            logger().info(
                "health check ended", id=container_id[:12], why=f"it ran for more than {limit_s:.0f} s", then=then
            )
        return remaining

    async def _end_at(self, container_id: ContainerId, limit_s: float) -> None:
        await anyio.sleep(limit_s)
        while True:  # until the check's own call has ended, which cancels this
            await self._end_all(container_id)
            await anyio.sleep(1)

    async def _end_all(self, container_id: ContainerId) -> None:
        try:
            for one in await self._running(container_id):
                await self._processes.end_family(container_id, one.pid)
        except AdapterError as error:
            logger().warning("health check not ended", id=container_id[:12], why=str(error), then="tried again")

    async def _running(self, container_id: ContainerId) -> tuple[Process, ...]:
        """The first processes of the checks that run in a container."""
        commands = await self._processes.commands_in(container_id)
        if not commands:
            return ()
        found = await self._liveness.inspected(container_id)
        if found is None or found.check is None:
            return ()
        return tuple([one for session, one in commands.items() if await self._command(session) == found.check])

    async def _command(self, session: str) -> Command | None:
        what = f"look at command {session[:12]}"
        raw = await self._service.read(what, partial(api.inspect_session, session=session))
        if raw is None:
            return None
        parsed = parse_session(raw)
        return understood(parsed, COMPONENT, what, "it is left alone")
