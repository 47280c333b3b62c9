"""What a creation that was cut off leaves: a container in Podman's storage that its database does not have.

Podman makes the storage first and writes the database then. Killed in between it refuses the container's name for ever, and neither lists
nor inspects what has it. A creation that is under way looks the same, and is waited for.
"""

from functools import partial
from typing import Final

import anyio

from core import podman_storage
from core.containers import ContainerId
from shell.adapters.podman import service as api
from shell.adapters.podman.processes import Processes
from shell.adapters.podman.service import CHANGE_S, COMPONENT, Service
from shell.failure import AdapterError, understood
from shell.log import logger

_CREATION_S: Final = 5.0  # between the two writes lie milliseconds, on a busy server more
_PAUSE_S: Final = 0.25


class Leftovers:
    """The storage-only containers of one Podman. Everything raises AdapterError, and can be done again."""

    def __init__(self, service: Service, processes: Processes) -> None:
        self._service = service
        self._processes = processes

    async def free_name(self, name: str) -> bool:
        """Remove the storage-only container of this name; whether there was one, which is gone or a container of Podman's by now.

        Another program's (a working container of buildah's) is none of these, and left as it is.
        """
        leftover = await self._of(name)
        if leftover is None:
            return False
        end = anyio.current_time() + _CREATION_S
        while anyio.current_time() < end:
            await anyio.sleep(_PAUSE_S)
            if await self._of(name) != leftover:
                return True
        what = f"remove what is left of container {name} in Podman's storage"
        if await self._processes.of(leftover):
            raise AdapterError(COMPONENT, what, "a process runs in it", "nothing is removed; tried again later")
        await self._service.call(what, partial(api.remove_container, container_id=leftover), CHANGE_S)
        logger().warning("removed what a creation that was cut off has left in Podman's storage", container=name)
        return True

    async def _of(self, name: str) -> ContainerId | None:
        what = f"look for container {name} in Podman's storage"
        raw = await self._service.read(what, api.list_stored)
        return understood(podman_storage.parse_stored(raw, name), COMPONENT, what, "tried again later")
