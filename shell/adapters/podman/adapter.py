"""Podman over its API socket: containers, images and the containers' network.

Only containers that carry a label of ours are ever started, stopped or removed: whose one is, is asked before it is touched. Whatever is
done twice, or was interrupted by a crash, ends in the same state. What a container is made of is rendered by `core.podman`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final, TypeVar

import anyio.to_thread

from core import podman as form
from core import podman_answers, podman_events
from core.containers import ActualContainer, ContainerId, ExpectedContainer
from core.damage import Damage
from core.podman import CreateOptions, Limit
from core.podman_answers import Holder, Listing
from core.podman_events import ContainerEvent
from shell import collector
from shell.adapters.podman import namespaces
from shell.adapters.podman import service as api
from shell.adapters.podman.checks import Checks
from shell.adapters.podman.hosts import Hosts
from shell.adapters.podman.images import Images, ImageSettings
from shell.adapters.podman.inspector import LEFT_ALONE, Inspector
from shell.adapters.podman.leftovers import Leftovers
from shell.adapters.podman.library import APIClient
from shell.adapters.podman.liveness import Liveness
from shell.adapters.podman.processes import Processes
from shell.adapters.podman.removal import NOT_UP, Removal
from shell.adapters.podman.service import CHANGE_S, COMPONENT, RefusedError, Service
from shell.adapters.podman.volumes import folders_of, make_volumes, remove_volumes
from shell.beside import LARGE_BYTES, beside_if
from shell.failure import AdapterError, understood
from shell.log import bound_contextvars

T = TypeVar("T")

# Podman tells these cases apart by its words only, which have been the same since 4.0.
_ADDRESS_TAKEN: Final = re.compile(
    r"requested ip address (?P<address>\S+) is already allocated to container ID (?P<holder>[0-9a-f]+)"
)
_NAME_TAKEN: Final = "already in use"
_LIMIT_WORD: Final = "rlimit"
_KEPT_FOR_NOBODY: Final = (
    "it is free after a restart of the server; or when all of its containers are stopped, "
    "/run/containers/networks/ipam.db is removed, and they are started again"
)
_LEFT_GRACE_S: Final = 10.0  # as a stop gives
_LOOK_AGAIN: Final = "the server is looked at again"


@dataclass(frozen=True, slots=True)
class PodmanSettings:
    """Where Podman is and how containers are made on this server. `registry_auth_file` None leaves logins to Podman's own files."""

    socket: Path
    subnet_id: int
    volumes_dir: Path
    network: str = "techulus"
    registry_auth_file: Path | None = None
    insecure_registries: frozenset[str] = frozenset()
    dns: tuple[str, ...] = ()
    log_size_bytes: int = 64 * 1024**2
    read_limit_s: float = (
        20.0  # answers take milliseconds; a listing must fail before the limit of a whole look, 30 s, does
    )

    @property
    def hosts_dir(self) -> Path:
        """Beside the volumes."""
        return self.volumes_dir.parent / "hosts"


class Podman:
    """The containers of ours. Every method has a time limit and raises AdapterError; none leaves anything half done behind."""

    def __init__(self, settings: PodmanSettings) -> None:
        self._settings = settings
        self._service = Service(settings.socket, settings.read_limit_s)
        self.images = Images(self._service, ImageSettings(settings.registry_auth_file, settings.insecure_registries))
        self.before_removal: Callable[[], Awaitable[None]] = _nothing
        self._network_is_there = False
        self._limits: tuple[Limit, ...] = ()
        self._started_at: dict[ContainerId, float] = {}
        self._listing: Listing | None = None
        self._damage = Damage()
        self._inspector = Inspector(self._service)
        self._processes = Processes(settings.socket)
        self._liveness = Liveness(self._service, self._processes)
        self._hosts = Hosts(settings.hosts_dir, form.gateway(settings.subnet_id))
        self._checks = Checks(self._service, self._liveness, self._processes)
        self._leftovers = Leftovers(self._service, self._processes)
        self._removal = Removal(
            self._service,
            self._inspector,
            self._liveness,
            self._processes,
            self._hosts,
            settings.network,
            lambda: self.before_removal(),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._service.aclose()

    async def ping(self) -> None:
        """Returns when Podman answers."""
        if not await self._service.read("reach Podman", api.ping):
            raise AdapterError(COMPONENT, "reach Podman", "it answers, and is not well")

    async def version(self) -> str:
        """Podman's version, as it says it."""
        return await self._service.read("ask Podman for its version", api.version)

    async def containers(self, wall_now_s: float) -> tuple[ActualContainer, ...]:
        """All containers of ours, in one request; never an incomplete list.

        One that can never be started is `damaged` (`core.damage`); what Podman does not see is seen here (`core.liveness`).
        """
        raw = await self._service.read("list containers", api.list_containers)
        parse = partial(podman_answers.parse_listing_after, self._listing, raw, wall_now_s, self._started_at)
        with collector.paused():
            parsed = await beside_if(len(raw) > LARGE_BYTES, parse)
        self._listing = understood(parsed, COMPONENT, "list containers", "nothing is changed until it does")
        there = {one.id for one in self._listing.containers}
        self._started_at = {one: at for one, at in self._started_at.items() if one in there}
        self._damage = self._damage.among(there)
        self._checks.forget_all_but(there)
        return await self._liveness.shown(self._damage.shown(self._listing.containers))

    async def watch(self, on_open: Callable[[], None], on_event: Callable[[ContainerEvent], None]) -> None:
        """Say what happens to containers of ours, from `on_open` on, until the stream ends, which raises AdapterError."""

        def hear(line: bytes) -> None:
            event = podman_events.parse(line)
            if event is None:
                return
            if event.kind == "start":
                self._started_at[event.container_id] = event.at_s
            elif event.kind == "health_status":
                self._checks.heard(event.container_id)
            on_event(event)

        await self._service.follow("follow the events", api.events(podman_events.KINDS), on_open, hear)
        raise AdapterError(COMPONENT, "follow the events", "the stream has ended", "followed anew")

    async def last_output(self, container_id: ContainerId, lines: int) -> tuple[str, ...]:
        """The last lines that a container wrote, both streams, oldest first; each cut to a line of a log."""
        what = f"read the output of container {container_id[:12]}"
        raw = await self._service.read(what, partial(api.container_output, container_id=container_id, lines=lines))
        return podman_answers.output_lines(raw)[-lines:]

    async def log_file(self, container_id: ContainerId) -> str | None:
        """Where a container's log is, in Podman's own form; None when it is in no such file, or the container is gone."""
        holder = await self._inspector.holder(container_id)
        return None if holder is None else holder.log_file

    async def network_fault(self) -> str | None:
        """Why the containers' network cannot be used as it is; None when it can, and when it is not there yet."""
        name, subnet_id = self._settings.network, self._settings.subnet_id
        found = await self._service.read(f"look at network {name}", partial(api.inspect_network, name=name))
        return None if found is None else podman_answers.network_fault(found, subnet_id)

    async def ensure_network(self) -> None:
        """Make the containers' network when it is missing. Refuses one of that name that is different.

        Asked of Podman once, and again after a container could not be started.
        """
        if self._network_is_there:
            return
        name, subnet_id = self._settings.network, self._settings.subnet_id
        found = await self._service.read(f"look at network {name}", partial(api.inspect_network, name=name))
        if found is None:
            request = form.network_request(name, subnet_id)
            await self._service.call(f"make network {name}", partial(api.create_network, request=request), CHANGE_S)
        elif fault := podman_answers.network_fault(found, subnet_id):
            then = f"remove it with `podman network rm {name}` when nothing needs it, or give the agent another name"
            raise AdapterError(COMPONENT, f"use network {name}", fault, then)
        self._network_is_there = True

    async def make_volumes(self, container: ExpectedContainer) -> None:
        """Make the folders of a container's volumes; fine when they are there. Raises AdapterError for one that leads elsewhere."""
        top = self._settings.volumes_dir
        await anyio.to_thread.run_sync(make_volumes, top, container.service_id, container.volumes)

    async def create_and_start(self, container: ExpectedContainer, env: Mapping[str, str], image_id: str) -> None:
        """Create a container from an image that is here and start it; `env` is decrypted. One that does not start is removed again."""
        await self.make_volumes(container)
        await self._removal.end_forgotten_of(
            container, self._volume_folders(container), self.images.folder, _LEFT_GRACE_S
        )
        made = await self._create(container, env, image_id)
        try:
            await self._hosts.write(container.name, container.address, made[: form.HOST_NAME_LENGTH])
            await self._start(container.name, made)
        except AdapterError as error:
            limits = () if self._limits or _LIMIT_WORD not in error.why else await self._limits_meant(made)
            await self._remove_unstarted(made, error)
            if not limits:
                raise
        else:
            if container.address is not None:
                await namespaces.free(self._processes, container.address)
            return
        self._limits = limits  # for all that come later, too: the server's defaults are at fault and not the container
        await self.create_and_start(container, env, image_id)

    async def start(self, container_id: ContainerId) -> None:
        """Start a container of ours; fine when it runs."""
        holder = await self._inspector.ours("start", container_id)
        if holder is None:
            raise AdapterError(COMPONENT, f"start container {container_id}", "it is gone", _LOOK_AGAIN)
        if holder.fault is not None:
            self._damage = self._damage.refused(holder.id, holder.state)
            then = "when it is so again, it counts as damaged and is made anew"
            raise AdapterError(COMPONENT, f"start container {holder.name}", holder.fault, then)
        self._damage = self._damage.cleared(holder.id)
        if holder.state in NOT_UP:
            await self._removal.end_unseen(holder)
            if await self._removal.was_cut_off(holder):
                raise await self._made_anew(holder)
        await self._hosts.ensure(holder.name, holder.id[: form.HOST_NAME_LENGTH])
        await self._start(holder.name, holder.id)

    async def stop_and_remove(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """Stop a container of ours politely, after `grace_s` seconds by force; remove it, and see that it is gone.

        Fine when it is gone already.
        """
        await self._removal.politely(container_id, grace_s)

    async def remove_forced(self, container_id: ContainerId) -> None:
        """Remove a container of ours at once, and see that it is gone. Fine when it is gone already."""
        await self._removal.forced(container_id)

    async def restart(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """Stop a container of ours politely, after `grace_s` seconds by force, and start it again."""
        holder = await self._inspector.ours("restart", container_id)
        if holder is None:
            raise AdapterError(COMPONENT, f"restart container {container_id}", "it is gone", _LOOK_AGAIN)
        restart = partial(api.restart_container, container_id=holder.id, grace_s=ceil(grace_s))
        await self._change(f"restart container {holder.name}", restart, grace_s + CHANGE_S)

    async def check_health(self, container_id: ContainerId, limit_s: float) -> str:
        """Run a container's health check once; the outcome of this run. Podman counts it as its own timers' would be.

        One that overruns its limit is ended, and has failed; none is started beside another.
        """
        return await self._checks.run(container_id, limit_s)

    async def end_overrun_check(self, container_id: ContainerId, limit_s: float) -> None:
        """End a health check that somebody else runs, if it has run for longer than its limit."""
        await self._checks.end_overrun(container_id, limit_s)

    def check_ended_at(self, container_id: ContainerId) -> float:
        """When the events last told of the end of a health check, on the loop's clock; long ago when they never did."""
        return self._checks.ended_at(container_id)

    async def remove_volumes(self, service_id: str) -> None:
        """Delete the folders of a service's volumes; fine when there are none. Refused while anybody's container uses one."""
        folders = await anyio.to_thread.run_sync(folders_of, self._settings.volumes_dir, service_id)
        for folder in folders:
            what = f"remove volume folder {folder}"
            raw = await self._service.read(what, partial(api.list_mounting, path=folder))
            users = understood(podman_answers.parse_names(raw), COMPONENT, what, "nothing is deleted")
            if users:
                raise AdapterError(COMPONENT, what, f"container {users[0]} has it mounted", "nothing is deleted")
        await self._removal.require_unused(service_id, tuple(map(Path, folders)))
        await anyio.to_thread.run_sync(remove_volumes, self._settings.volumes_dir, service_id)

    def _volume_folders(self, container: ExpectedContainer) -> tuple[Path, ...]:
        return tuple(self._settings.volumes_dir / container.service_id / one.name for one in container.volumes)

    async def _create(self, container: ExpectedContainer, env: Mapping[str, str], image_id: str) -> ContainerId:
        settings = self._settings
        volumes_dir = str(settings.volumes_dir)
        hosts_dir = str(settings.hosts_dir)
        options = CreateOptions(
            settings.network, volumes_dir, hosts_dir, settings.dns, settings.log_size_bytes, self._limits
        )
        what = f"create container {container.name}"
        create = partial(api.create_container, request=form.create_request(container, options, env, image_id))
        await self._hosts.write(container.name, container.address)
        try:
            return ContainerId(await self._change(what, create))
        except RefusedError as error:
            if _NAME_TAKEN not in error.why:
                raise
            await self._free_name(what, container, error)
        await self._hosts.write(container.name, container.address)  # what had the name has taken its file with it
        return ContainerId(await self._change(what, create))

    async def _free_name(self, what: str, container: ExpectedContainer, error: RefusedError) -> None:
        """Remove the holder of a container's name if it is what a crash before the start has left of the same deployment."""
        holder = await self._named(container.name)
        if holder is None:
            was_left_over = await self._leftovers.free_name(container.name)
            holder = await self._named(container.name)  # by now, if its creation has only taken long
            if holder is None and was_left_over:
                return
        if holder is None:
            then = f"{LEFT_ALONE}; `podman ps --all --external` shows what has the name in Podman's storage"
            raise AdapterError(COMPONENT, what, error.why, then) from error
        if holder.ours and holder.deployment_id == container.deployment_id and holder.state == "created":
            with bound_contextvars(why="a crash has left it behind, never started"):
                await self._removal.by_force(holder)
            return
        whose = "one of ours" if holder.ours else "not one of ours"
        why = f"the name is taken by container {holder.id}, which is {whose} and {holder.state}"
        then = _LOOK_AGAIN if holder.ours else f"rename or remove that one; {LEFT_ALONE}"
        raise AdapterError(COMPONENT, what, why, then) from error

    async def _named(self, name: str) -> Holder | None:
        holder = await self._inspector.holder(name)
        return (
            holder if holder is not None and holder.name == name else None
        )  # Podman also finds by the beginning of an id

    async def _start(self, name: str, container_id: ContainerId) -> None:
        what = f"start container {name}"
        try:
            await self._change(what, partial(api.start_container, container_id=container_id))
        except RefusedError as error:
            taken = _ADDRESS_TAKEN.search(error.why)
            if taken is None:
                raise
            raise await self._address_taken(what, taken["address"], taken["holder"]) from error

    async def _address_taken(self, what: str, address: str, holder_id: str) -> AdapterError:
        """Why an address cannot be had. One that is kept for a container of ours that has no process is freed, with that container."""
        holder = await self._inspector.holder(holder_id)
        if holder is None:
            why = f"address {address} is kept by Podman for container {holder_id}, which is gone"
            return AdapterError(COMPONENT, what, why, _KEPT_FOR_NOBODY)
        if holder.ours and holder.state in NOT_UP and not await self._processes.of(holder.id):
            with bound_contextvars(why=f"Podman keeps address {address} for a start of it that was never finished"):
                await self._removal.by_force(holder)
            why = f"address {address} was kept by Podman for container {holder.name}, which does not run"
            return AdapterError(COMPONENT, what, why, "that one has been removed and the address is free; made anew")
        then = "tried again; it works when that one has left"
        return AdapterError(COMPONENT, what, f"address {address} is taken by container {holder.name}", then)

    async def _made_anew(self, holder: Holder) -> AdapterError:
        with bound_contextvars(why="its last start was cut off, and Podman may keep an address for it"):
            await self._removal.by_force(holder)
        why = f"its last start was cut off: what was kept by Podman for container {holder.name} is freed"
        return AdapterError(COMPONENT, f"start container {holder.name}", why, "it has been removed, and is made anew")

    async def _remove_unstarted(self, container_id: ContainerId, error: AdapterError) -> None:
        try:
            holder = await self._inspector.holder(container_id)
            if holder is not None:
                with bound_contextvars(why="it did not start"):
                    await self._removal.by_force(holder)
        except AdapterError as left:
            then = f"it could not be removed either ({left.why}), so it stays behind, not started, until the next look"
            raise AdapterError(COMPONENT, error.what, error.why, then) from left

    async def _limits_meant(self, container_id: ContainerId) -> tuple[Limit, ...]:
        holder = await self._inspector.holder(container_id)
        return () if holder is None else podman_answers.repaired_limits(holder)

    async def _change(self, what: str, work: Callable[[APIClient], T], limit_s: float = CHANGE_S) -> T:
        """A call that may fail because the network has gone: then it is looked at again before the next."""
        try:
            return await self._service.call(what, work, limit_s)
        except AdapterError:
            self._network_is_there = False
            raise


async def _nothing() -> None:
    """Nobody wants to know."""
