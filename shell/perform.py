"""Carries out one action. What is to be done was decided before; here is only how, in an order that costs the least downtime.

Everything that can fail or take long without touching what runs comes first: the image, the secrets. Only then, and only while nobody
else changes this server, is a container stopped.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, assert_never

import anyio
import anyio.lowlevel

from core.action import (
    Action,
    Deploy,
    Redeploy,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
    explain,
    kind,
)
from core.containers import ContainerId, DeploymentId, ExpectedContainer
from core.events import Applied, Failed, Outcome, Withheld
from core.image import Image
from core.secrets import EncryptionKey, decrypt
from shell.components import Components
from shell.failure import AdapterError, understood
from shell.log import bound_contextvars, logger

_LAST_LINES: Final = 10  # of what a container said before it ended


class _WithheldError(Exception):
    """Something came between the choice of an action and its turn."""


async def _never_withheld(action: Action) -> None:
    await anyio.lowlevel.checkpoint()


class Perform:
    """Makes changes to this server while it holds the writer.

    `image_id` is the image of a deployment, which the machine has had fetched before; it raises AdapterError when it is not known.
    `withheld` says why an action must not be begun now, None when it may.
    """

    def __init__(
        self,
        components: Components,
        image_id: Callable[[DeploymentId, Image], str],
        key: EncryptionKey | None,
        writer: anyio.Lock,
        withheld: Callable[[Action], Awaitable[str | None]] = _never_withheld,
    ) -> None:
        self._components = components
        self._image_id = image_id
        self._key = key
        self._writer = writer
        self._withheld = withheld

    async def __call__(self, action: Action) -> Outcome:
        """The outcome of one action. Doing an action again after a crash in its middle ends in the same state."""
        with bound_contextvars(source="expected state", why=explain(action.reason)):
            try:
                return await self._dispatch(action)
            except AdapterError as error:
                return Failed(str(error))
            except _WithheldError as withheld:
                return Withheld(str(withheld))

    async def _dispatch(self, action: Action) -> Outcome:
        match action:
            case StopOrphan(successors=successors, container_id=old):
                return await self._replace(action, successors, old=old, new=None)
            case Start():
                return await self._start(action)
            case Deploy(container=made):
                return await self._replace(action, (made,), old=None, new=made)
            case Redeploy(container=made, container_id=old):
                return await self._replace(action, (made,), old=old, new=made)
            case UpdateDns() | UpdateCaddy() | UpdateWireGuard():
                async with self._turn(action):
                    await self._update(action)
                return Applied()
            case _:
                assert_never(action)

    @asynccontextmanager
    async def _turn(self, action: Action) -> AsyncIterator[None]:
        """Nobody else changes this server within."""
        async with self._writer:
            if (why := await self._withheld(action)) is not None:
                raise _WithheldError(why)
            yield

    async def _start(self, action: Start) -> Outcome:
        podman = self._components.podman
        async with self._turn(action):
            await self._say_how_it_ended(action)
            await podman.ensure_network()
            await podman.start(action.container_id)
        return Applied()

    async def _say_how_it_ended(self, action: Start) -> None:
        """Once for each attempt: whoever looks into a crash loop finds the reason in the log."""
        try:
            lines = await self._components.podman.last_output(action.container_id, _LAST_LINES)
        except AdapterError as error:
            lines = (f"(its output could not be read: {error.why})",)
        if lines:
            logger().warning("container is started again", container=action.name, last_output="\n".join(lines))

    async def _replace(
        self,
        action: Action,
        wanted: tuple[ExpectedContainer, ...],
        old: ContainerId | None,
        new: ExpectedContainer | None,
    ) -> Outcome:
        """Images, secrets and volumes of everything wanted first; then the old container goes, then the new one comes."""
        made_from = {one.deployment_id: self._image_id(one.deployment_id, one.image) for one in wanted}
        env = {one.deployment_id: self._decrypted(one) for one in wanted}
        podman = self._components.podman
        async with self._turn(action):
            for one in wanted:
                await podman.make_volumes(one)
            if new is not None:
                await podman.ensure_network()
            if old is not None:
                await podman.stop_and_remove(old)
            if new is not None:
                await podman.create_and_start(new, env[new.deployment_id], made_from[new.deployment_id])
        return Applied()

    async def _update(self, action: UpdateDns | UpdateCaddy | UpdateWireGuard) -> None:
        parts = self._components
        match action:
            case UpdateDns(records=records) if parts.dns is not None:
                await parts.dns.apply(records)
            case UpdateCaddy(routes=routes) if parts.caddy is not None:
                await parts.caddy.apply(routes)
            case UpdateWireGuard(upsert=upsert, remove=remove) if parts.wireguard is not None:
                await parts.wireguard.apply(upsert, remove)
            case _:
                raise AdapterError("agent", f"do {kind(action)}", "this component is not managed on this server")

    def _decrypted(self, container: ExpectedContainer) -> dict[str, str]:
        env: dict[str, str] = {}
        for name, value in container.env:
            if self._key is None:
                raise AdapterError(
                    "secrets", f"decrypt {name} of {container.name}", "registration gave no encryption key"
                )
            env[name] = understood(decrypt(self._key, value), "secrets", f"decrypt {name} of {container.name}")
        return env
