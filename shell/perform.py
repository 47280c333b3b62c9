"""Carries out one action. What is to be done was decided before; here is only how, in an order that costs the least downtime.

Everything that can fail without touching what runs comes first: the image, the secrets. Only then is a container stopped.
"""

from typing import assert_never

from returns.pipeline import is_successful

from core.action import Action, Deploy, Redeploy, Start, StopOrphan, UpdateCaddy, UpdateDns, UpdateWireGuard, kind
from core.containers import ContainerId, ExpectedContainer
from core.events import Applied, Deferred, Failed, Outcome
from core.secrets import EncryptionKey, decrypt
from shell.components import Components
from shell.failure import AdapterError
from shell.pulls import Pulls


class Perform:
    """Makes changes to this server, one at a time (the caller sees to that)."""

    def __init__(self, components: Components, pulls: Pulls, key: EncryptionKey | None) -> None:
        self._components = components
        self._pulls = pulls
        self._key = key

    async def __call__(self, action: Action) -> Outcome:
        """The outcome of one action. Doing an action again after a crash in its middle ends in the same state."""
        try:
            return await self._dispatch(action)
        except AdapterError as error:
            return Failed(str(error))

    async def _dispatch(self, action: Action) -> Outcome:
        match action:
            case StopOrphan(successors=successors, container_id=old):
                return await self._replace(successors, old=old, new=None)
            case Start(container_id=container_id):
                await self._components.podman.ensure_network()
                await self._components.podman.start(container_id)
                return Applied()
            case Deploy(container=made):
                return await self._replace((made,), old=None, new=made)
            case Redeploy(container=made, container_id=old):
                return await self._replace((made,), old=old, new=made)
            case UpdateDns() | UpdateCaddy() | UpdateWireGuard():
                await self._update(action)
                return Applied()
            case _:
                assert_never(action)

    async def _replace(
        self, wanted: tuple[ExpectedContainer, ...], old: ContainerId | None, new: ExpectedContainer | None
    ) -> Outcome:
        """Images and secrets of everything wanted first; then the old container goes, then the new one comes."""
        for one in wanted:
            if not await self._pulls.ensure(one.image):
                return Deferred(one.image)
        env = {one.deployment_id: self._decrypted(one) for one in wanted}
        podman = self._components.podman
        if new is not None:
            await podman.ensure_network()
        if old is not None:
            await podman.stop_and_remove(old)
        if new is not None:
            await podman.create_and_start(new, env[new.deployment_id])
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
            plain = decrypt(self._key, value)
            if not is_successful(plain):
                raise AdapterError("secrets", f"decrypt {name} of {container.name}", plain.failure())
            env[name] = plain.unwrap()
        return env
