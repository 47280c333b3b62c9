"""Ending containers: a stop is polite, then by force; the processes are seen gone, and only then is the container removed.

A forced removal alone would do neither: Podman 4.3 forgets a container in the middle of a stop and leaves its process. What it keeps for a
container that never came up (the address of one whose network was being set up when its service was killed) it forgets with nothing but
the end of that container's own network: so it is given one that leads nowhere, and that is ended.
"""

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from math import ceil
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Final

import anyio

from core.containers import ContainerId, ExpectedContainer
from core.liveness import STOPPING
from core.podman import LOOSE_ADDRESS, removal_name
from core.podman_answers import Holder
from shell.adapters.podman import service as api
from shell.adapters.podman.hosts import Hosts
from shell.adapters.podman.inspector import Inspector
from shell.adapters.podman.liveness import Liveness
from shell.adapters.podman.processes import Processes
from shell.adapters.podman.service import CHANGE_S, COMPONENT, RefusedError, Service
from shell.failure import AdapterError
from shell.log import logger

_RUNNING: Final = "running"
_HAS_ENDED: Final = "exited"
_KILLED_S: Final = (
    10.0  # a process that got SIGKILL is gone at once, unless it waits for a disk or a network file system
)
_BEHIND_S: Final = (
    3.0  # Podman ends the process itself when the grace is over; later than this it is no longer there to do it
)
_SETTLES_S: Final = 1.0
NOT_UP: Final = frozenset({"created", "exited"})
"""The states of a container that has no process, as Podman sees it."""
_LOOK_AGAIN: Final = "the server is looked at again"


class Removal:
    """Removes containers of one Podman. `before` is called before each. Everything raises AdapterError, and can be done again."""

    def __init__(
        self,
        service: Service,
        inspector: Inspector,
        liveness: Liveness,
        processes: Processes,
        hosts: Hosts,
        network: str,
        before: Callable[[], Awaitable[None]],
    ) -> None:
        self._service = service
        self._inspector = inspector
        self._liveness = liveness
        self._processes = processes
        self._hosts = hosts
        self._network = network
        self._before = before

    async def politely(self, container_id: ContainerId, grace_s: float) -> None:
        """Stop a container of ours, after `grace_s` seconds by force, and remove it. Fine when it is gone.

        A stop that somebody else has begun is waited for; AdapterError when it takes longer, and its time is not yet up.
        """
        holder = await self._inspector.ours("stop", container_id)
        if holder is None:
            await self._end_forgotten(container_id, grace_s)
            return
        if holder.state == _RUNNING:  # in any other state nobody would hear a polite word
            self._liveness.begun(holder.id, grace_s + _BEHIND_S)
            with contextlib.suppress(RefusedError):  # whatever kept it from stopping, force comes next
                await self._stop(holder, grace_s)
        elif holder.state == STOPPING:
            await self._await_stop(holder, grace_s)
        await self.by_force(holder)

    async def by_force(self, holder: Holder) -> None:
        """Remove a container at once, when its processes are gone, with what Podman may keep for a start that was cut off."""
        what = f"remove container {holder.name}"
        await self._before()
        if holder.state in NOT_UP:
            if holder.state == _HAS_ENDED:  # one that was only prepared has a process of the runtime's, which is needed
                await self._see_gone(what, holder.id)
            await self._release(holder)
        else:
            await self._end(what, holder)
        await self._service.call(what, partial(api.remove_container, container_id=holder.id), CHANGE_S)
        if await self._inspector.holder(holder.id) is not None:
            raise AdapterError(COMPONENT, what, "it is still there", _LOOK_AGAIN)
        await self._hosts.remove(holder.name)
        await self._see_gone(what, holder.id)  # what was started meanwhile, by a restart or an exec
        logger().info(
            "container removed", container=holder.name, id=holder.id[:12]
        )  # why and for whom: bound by the caller

    async def forced(self, container_id: ContainerId) -> None:
        """Remove a container of ours at once. Fine when it is gone."""
        holder = await self._inspector.ours("remove", container_id)
        if holder is None:
            await self._end_forgotten(container_id, 0)
        else:
            await self.by_force(holder)

    async def end_unseen(self, holder: Holder) -> None:
        """End processes of a container that is not up, as Podman sees it: what is to be started must not run beside them."""
        before = await self._processes.of(holder.id)
        if not before:
            return
        await anyio.sleep(_SETTLES_S)  # Podman itself may just be starting it again, after a crash
        found = await self._liveness.inspected(holder.id)
        if found is not None and found.state in NOT_UP and set(before) & set(await self._processes.of(holder.id)):
            await self.end_leftover(holder.id, 0)

    async def was_cut_off(self, holder: Holder) -> bool:
        """Whether the last start of a container that is not up was never finished: Podman may keep an address for it.

        Started again it would get another, if its address is of Podman's choice, and nobody could free the first any more.
        """
        found = await self._liveness.inspected(holder.id)
        if (
            found is None or found.state not in NOT_UP
        ):  # Podman's own word: one that is prepared or has just ended is mounted as it should
            return False
        return bool(found.shared_memory) and await self._processes.has_mount(found.shared_memory)

    async def end_leftover(self, container_id: ContainerId, grace_s: float) -> None:
        """End the processes of a container of which Podman knows none, after a grace for their own end. Fine when there are none."""
        if not await self._processes.of(container_id):
            return
        if grace_s > 0:
            await self._processes.signal(container_id, SIGTERM)
            await self._processes.ended(container_id, grace_s)
        await self._see_gone(f"end what is left of container {container_id[:12]}", container_id)
        logger().warning("processes ended that Podman did not know of", id=container_id[:12])

    async def end_forgotten_of(
        self,
        container: ExpectedContainer,
        folders: tuple[Path, ...],
        store: Callable[[], Awaitable[str]],
        grace_s: float,
    ) -> None:
        """End what a container that is to be made would run beside, though Podman does not know of it.

        That is a container with one of its volumes, or with its name. One of another store is a person's own, and left alone.
        """
        monitors = await self._processes.monitors()
        named = {one for one, monitor in monitors.items() if monitor.name == container.name}
        users = await self._processes.users(container.service_id, folders) if folders else frozenset()
        for one in sorted(users | named):
            if self._liveness.is_listed(one) or await self._inspector.holder(one) is not None:
                continue
            if one not in monitors or monitors[one].bundle.startswith(f"{await store()}/"):
                await self.end_leftover(one, grace_s)

    async def require_unused(self, service_id: str, folders: tuple[Path, ...]) -> None:
        """AdapterError while a process has one of a service's folders mounted, whoever's it is and whatever Podman lists."""
        pid = await self._processes.user_of(service_id, folders)
        if pid is not None:
            why = f"process {pid} has one of them mounted"
            raise AdapterError(COMPONENT, f"remove the volumes of {service_id!r}", why, "nothing is deleted")

    async def _end_forgotten(self, container_id: ContainerId, grace_s: float) -> None:
        if container_id not in self._liveness.forgotten:
            return
        if grace_s > 0 and (left_s := await self._liveness.left_s(container_id)) > 0:
            await self._processes.ended(container_id, min(left_s, grace_s))
        await self.end_leftover(container_id, 0)

    async def _await_stop(self, holder: Holder, grace_s: float) -> None:
        left_s = await self._liveness.left_s(holder.id)
        if left_s <= 0 or await self._processes.ended(holder.id, min(left_s, grace_s)):
            return
        if grace_s < left_s and not self._liveness.is_own(holder.id):
            then = "it is waited for, and the container removed when it has ended"
            raise AdapterError(COMPONENT, f"remove container {holder.name}", "somebody else is stopping it", then)

    async def _end(self, what: str, holder: Holder) -> None:
        """Podman's own stop without a grace also ends one that is under way; it never restarts what it has stopped."""
        found = await self._liveness.inspected(holder.id) if holder.fault is None else None
        if found is not None and found.state in (_RUNNING, STOPPING):
            with contextlib.suppress(RefusedError):
                await self._stop(holder, 0)
            await self._see_gone(what, holder.id)

    async def _see_gone(self, what: str, container_id: ContainerId) -> None:
        if not await self._processes.of(container_id):
            return
        await self._processes.signal(container_id, SIGKILL)
        if not await self._processes.ended(container_id, _KILLED_S):
            there = await self._processes.of(container_id)
            pid = there[0].pid if there else 0
            why = f"its process {pid} does not end, not even by SIGKILL"
            raise AdapterError(COMPONENT, what, why, "nothing is started in its place; tried again later")

    async def _stop(self, holder: Holder, grace_s: float) -> None:
        stop = partial(api.stop_container, container_id=holder.id, grace_s=ceil(grace_s))
        await self._service.call(f"stop container {holder.name}", stop, grace_s + CHANGE_S)

    async def _release(self, holder: Holder) -> None:
        """Have Podman forget the addresses that it keeps for a container without a network.

        The container gets a network namespace without any network in it, then networks whose set-up Podman refuses before it has
        reserved anything; their end, which comes with the removal, frees what is kept for this container's id and for no other. Its
        process is not started. The name says from the first step on that it is to go: whoever finds it half done removes it.
        """
        found = await self._liveness.inspected(holder.id) if holder.fault is None else None
        if found is None:
            return
        what = f"free what Podman keeps for container {holder.name}"
        mark = partial(api.rename_container, container_id=holder.id, name=removal_name(holder.name))
        steps = [mark] if removal_name(holder.name) != holder.name else []
        networks = found.networks or (self._network,)  # none are left after the first step
        steps += [partial(api.leave_network, container_id=holder.id, network=one) for one in found.networks]
        steps += [partial(api.prepare_container, container_id=holder.id)]
        steps += [
            partial(api.join_network, container_id=holder.id, network=one, address=LOOSE_ADDRESS) for one in networks
        ]
        for step in steps:
            with contextlib.suppress(
                RefusedError
            ):  # an earlier run has done it, or the last one is refused as it should
                await self._service.call(what, step, CHANGE_S)
