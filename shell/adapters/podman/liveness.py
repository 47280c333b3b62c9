"""What Podman's listing leaves out of the truth: processes that are gone, stops that do not end, containers that it has forgotten.

Podman 4.3 forgets a container on its forced removal in the middle of a stop, and leaves its process. Such a one stays listed here, as
`stopping`, for as long as it has a process. Nothing is asked of anybody while all is as Podman says.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import anyio
from msgspec import structs

from core import liveness
from core.containers import ActualContainer, ContainerId
from core.liveness import STOPPING, Stops
from core.podman_processes import Inspection, parse_inspection
from shell.adapters.podman import service as api
from shell.adapters.podman.processes import Processes
from shell.adapters.podman.service import COMPONENT, Service
from shell.failure import AdapterError, understood
from shell.log import logger

_RUNNING: Final = "running"
_MONITOR_TELLS_S: Final = 30.0  # it takes milliseconds; one that is stuck, on a disk that hangs perhaps, never does


class Liveness:
    """Holds the listings of one Podman against the processes that there are."""

    def __init__(self, service: Service, processes: Processes) -> None:
        self._service = service
        self._processes = processes
        self._stops = Stops()
        self._limits_s: dict[ContainerId, float] = {}
        self._judged: dict[ContainerId, tuple[int, bool]] = {}
        self._missing_since: dict[tuple[ContainerId, int], float] = {}
        self._before: Mapping[ContainerId, ActualContainer] = {}
        self.forgotten: Mapping[ContainerId, ActualContainer] = {}

    async def shown(self, containers: tuple[ActualContainer, ...]) -> tuple[ActualContainer, ...]:
        """The containers of a listing as they are."""
        self.forgotten = await self._forgotten(containers)
        everything = (*containers, *self.forgotten.values()) if self.forgotten else containers
        self._before = {one.id: one for one in everything}
        self._stops = self._stops.after_listing(everything, anyio.current_time())
        gone = await self._gone(containers)
        return liveness.marked(everything, gone, await self._overdue() if self._stops.seen_at else frozenset())

    def begun(self, container_id: ContainerId, limit_s: float) -> None:
        """This agent begins a stop that ends the process after so many seconds."""
        self._stops = self._stops.begun(container_id, anyio.current_time() + limit_s)

    def is_listed(self, container_id: ContainerId) -> bool:
        """Whether the last listing had it, as one of ours."""
        return container_id in self._before and container_id not in self.forgotten

    def is_own(self, container_id: ContainerId) -> bool:
        """Whether this agent has begun a stop of the container."""
        return container_id in self._stops.own_until

    async def left_s(self, container_id: ContainerId) -> float:
        """Seconds for which a stop that is under way is still to be waited for; not above zero when it is overdue."""
        commanded = await self._processes.is_somebody_stopping()
        own_s = self._limits_s.get(container_id, 0.0)
        return self._stops.left_s(container_id, anyio.current_time(), own_s, commanded)

    async def inspected(self, container_id: ContainerId) -> Inspection | None:
        """What Podman says of a container's processes; None when there is none such."""
        what = f"look at container {container_id[:12]}"
        raw = await self._service.read(what, partial(api.inspect_container, key=container_id))
        if raw is None:
            return None
        parsed = parse_inspection(raw)
        return understood(parsed, COMPONENT, what, "looked at again")

    async def _forgotten(self, containers: tuple[ActualContainer, ...]) -> dict[ContainerId, ActualContainer]:
        before = self._before
        vanished = before.keys() - {one.id for one in containers}
        if not vanished:
            return {}
        # An older listing may come after a newer one, and miss what has been made in between: Podman itself is asked about each once more.
        living = [one for one in sorted(await self._processes.living(vanished)) if not await self._is_known(one)]
        for one in [one for one in living if one not in self.forgotten]:
            then = "it counts as stopping until its process has ended, and no other is started in its place before"
            logger().error(
                "Podman has forgotten a container whose process lives", container=before[one].name, then=then
            )
        return {one: structs.replace(before[one], state=STOPPING, pid=0) for one in living}

    async def _is_known(self, container_id: ContainerId) -> bool:
        try:
            return await self.inspected(container_id) is not None
        except AdapterError:  # nothing is said of what is not known; the next listing tells
            return True

    async def _gone(self, containers: tuple[ActualContainer, ...]) -> frozenset[ContainerId]:
        listed = {one.id: one.pid for one in containers if one.state == _RUNNING and one.pid > 0}
        missing = await self._processes.not_there(listed)
        self._judged = {one: known for one, known in self._judged.items() if one in missing and known[0] == listed[one]}
        now = anyio.current_time()
        pairs = {(one, listed[one]) for one in missing}
        self._missing_since = {pair: self._missing_since.get(pair, now) for pair in pairs}
        for one in sorted(missing - self._judged.keys()):
            is_late = now - self._missing_since[one, listed[one]] >= _MONITOR_TELLS_S
            verdict = await self._verdict(one, _RUNNING, is_late=is_late)
            if verdict is not None:
                self._judged[one] = (listed[one], verdict)
                if verdict:
                    then = "it is made anew"
                    logger().error("process of a container is gone, and Podman does not know", id=one[:12], then=then)
        return frozenset(one for one, (_, is_gone) in self._judged.items() if is_gone)

    async def _overdue(self) -> frozenset[ContainerId]:
        """Stops that are not waited for any longer: their time is up, or nobody will ever end them, since process and monitor are gone."""
        found = set()
        for one in self._stops.seen_at:
            if await self.left_s(one) <= 0 or (one not in self.forgotten and await self._verdict(one, STOPPING)):
                found.add(one)
        self._limits_s = {one: limit for one, limit in self._limits_s.items() if one in self._stops.seen_at}
        return frozenset(found)

    async def _verdict(self, container_id: ContainerId, state: str, *, is_late: bool = False) -> bool | None:
        """Whether the process of a container in this state is gone for certain, None when that cannot be said now.

        `is_late`: it has been missing for longer than a monitor takes to tell.
        """
        try:
            found = await self.inspected(container_id)
        except AdapterError:  # it is looked at again, or whoever needs it says so
            return None
        if found is None or found.state != state:
            return None
        if state == STOPPING:
            self._limits_s[container_id] = found.stop_timeout_s
        return await self._processes.is_gone(
            found.pid, found.pid_file, found.monitor_pid, container_id, is_late=is_late
        )
