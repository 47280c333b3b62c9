"""Looking at one container: whose it is and how it is, also when Podman lists it and cannot look into it."""

import re
from functools import partial
from typing import Final

from returns.result import Result

from core import podman_answers
from core.containers import ContainerId
from core.podman_answers import Holder
from core.rejection import shown
from shell.adapters.podman import service as api
from shell.adapters.podman.service import COMPONENT, RefusedError, Service
from shell.failure import AdapterError, understood

LEFT_ALONE: Final = "it is left alone"
_KEY: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")  # so that a key sent by the control plane is never a path
_CANNOT_LOOK: Final = 500  # of an inspection, for a container that is there


class Inspector:
    """Asks one Podman. Everything may raise AdapterError."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ours(self, verb: str, container_id: ContainerId) -> Holder | None:
        """A container of ours, None when there is none; AdapterError when it is somebody else's."""
        holder = await self.holder(container_id)
        if holder is not None and not holder.ours:
            raise AdapterError(COMPONENT, f"{verb} container {holder.name}", "it carries no label of ours", LEFT_ALONE)
        return holder

    async def holder(self, key: str) -> Holder | None:
        """The container of that id or name, whoever's; None when there is none."""
        what = f"look at container {key}"
        if not _KEY.fullmatch(key):
            raise AdapterError(COMPONENT, f"look at container {shown(key)}", "that is no id and no name", LEFT_ALONE)
        parsed: Result[Holder, str] | Result[Holder | None, str]
        try:
            found = await self._service.read(what, partial(api.inspect_container, key=key))
        except RefusedError as error:
            if error.status != _CANNOT_LOOK:
                raise
            listed = await self._service.read(what, api.list_containers)
            parsed = podman_answers.parse_listed(listed, key, error.why)
        else:
            if found is None:
                return None
            parsed = podman_answers.parse_inspection(found)
        return understood(parsed, COMPONENT, what, LEFT_ALONE)
