"""Reads what Caddy serves, and brings it to serve what it should. What differs and what is sent is decided in `core.caddy_change`.

Every change is sent with the ETag of the configuration that it was computed from, so a change that somebody else makes in between is never
overwritten: Caddy refuses ours, and it is computed anew. Nothing is written when anything could not be read.
"""

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from core import caddy_base, caddy_change, caddy_config
from core.caddy import Route
from core.caddy_base import Base
from core.caddy_change import Operation
from core.caddy_config import OLDEST_VERSION, Object, Version, as_object
from core.rejection import shown
from shell.adapters.caddy import process, reuse_port
from shell.adapters.caddy.admin import COMPONENT, Admin, Answer, ConnectionBrokeError, NobodyListensError
from shell.beside import LARGE_BYTES, LARGE_ENTRIES, beside_if
from shell.failure import AdapterError, understood
from shell.log import logger

_OK: Final = 200
# One request is the rule; the base, a stray route and refusals for somebody else's changes may each take one more.
_ROUNDS: Final = 8
_BREAKS: Final = 3  # of connections under a change: with each new configuration one may break, but not for ever
_UP_LIMIT_S: Final = 10.0  # Caddy answers within 0.1 s of its start
_GRACE_S: Final = 2.0  # a Caddy that loads a configuration opens its admin address anew
_UP_POLL_S: Final = 0.05
_SETTLE_S: Final = 0.5  # until then a process that is not found may be one that is only just coming up
_LONGEST_WORDS: Final = 400


@dataclass(frozen=True, slots=True)
class CaddySettings:
    """`admin` is `host:port` or `unix//path`: where Caddy's admin API is to listen. `elsewhere` is where it may still do so: a Caddy that
    the agent configures is moved from there, a person's is used there.

    `folder` is where a Caddy started by the agent keeps its files.

    `unit` is the systemd unit that runs Caddy, None to start it as a process apart from the agent.
    """

    base: Base
    folder: Path
    admin: str = "unix//run/techulus-caddy/admin.sock"
    elsewhere: tuple[str, ...] = ()
    unit: str | None = None
    binary: str = "caddy"
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    config: Object
    etag: str
    admin: Admin
    is_large: bool


class _NotCaddyError(AdapterError):
    """Something else answers at the admin address."""


class Caddy:
    """Our routes in the Caddy of this server.

    Remembers nothing but Caddy's version, what it has said, and that Caddy could not be moved to where its admin API belongs.
    """

    def __init__(self, settings: CaddySettings) -> None:
        self._settings = settings if settings.unit is not None else _self_contained(settings)
        self._admins = [Admin(one, settings.timeout_s) for one in (settings.admin, *settings.elsewhere)]
        self._child = process.Child(settings.binary, settings.folder)
        self._version: Version | None = None
        self._not_migrated: str | None = None
        self._stays = False

    async def fetch(self) -> tuple[Route, ...]:
        """The routes of ours that are served now, in canonical order.

        AdapterError when Caddy does not answer or lacks what routes need to be served; `apply` brings up either.
        """
        snapshot = await self._snapshot()
        read = partial(caddy_change.read, snapshot.config, await self._base())
        found = await beside_if(snapshot.is_large, read)
        return understood(found, COMPONENT, "read the routes", "it is put right with the next update")

    async def apply(self, routes: tuple[Route, ...]) -> None:
        """Serve exactly these routes; Caddy and its base configuration are brought up first where they are missing.

        Returns when what was read back is what is wanted. Sends nothing when it already is.
        """
        breaks = 0
        for _ in range(_ROUNDS):
            snapshot = await self._snapshot_or_start(routes)
            is_large = snapshot.is_large or len(routes) > LARGE_ENTRIES
            following = partial(caddy_change.next_operation, snapshot.config, routes, await self._base())
            operation = await beside_if(is_large, following)
            if operation is None:
                return
            body = await beside_if(is_large, partial(caddy_config.encode, operation.body))
            moves = self._moves(operation, snapshot)
            try:
                await self._prepare(snapshot, moves=moves)
                await self._send(operation, body, snapshot)
            except ConnectionBrokeError as error:
                breaks += 1
                if breaks == _BREAKS:
                    raise
                logger().info("caddy broke the connection", why=error.why, then="looking again")
            except AdapterError as error:
                if not moves:
                    raise
                self._stays = True  # until the agent starts anew: routes do not wait for it
                then = f"it stays at {snapshot.admin.address}, and routes are updated there"
                logger().warning("caddy's admin API not moved", to=self._settings.admin, why=error.why, then=then)
        raise AdapterError(
            COMPONENT,
            f"serve {len(routes)} routes",
            f"its configuration is still another one after {_ROUNDS} requests",
            "somebody else may be changing it; it is tried again",
        )

    async def version(self) -> Version:
        """Major and minor version of the Caddy installed here; the oldest that is supported when that cannot be told."""
        if self._version is None:
            try:
                said = await process.version(self._settings.binary)
            except AdapterError as error:
                logger().warning("caddy version not known", why=error.why, then="only what 2.6 knows is used")
                said = ""
            self._version = caddy_config.parse_version(said) or OLDEST_VERSION
        return self._version

    async def fetch_admin(self) -> tuple[str, tuple[str, ...]]:
        """Where the admin API listens, and what a Caddy that the agent configures serves beside the agent's, in words. AdapterError."""
        snapshot = await self._snapshot()
        return snapshot.admin.address, caddy_change.foreign(snapshot.config, await self._base())

    async def _base(self) -> Base:
        admin = None if self._stays else self._settings.admin
        return replace(self._settings.base, version=await self.version(), admin=admin)

    async def _snapshot(self) -> _Snapshot:
        chosen, *elsewhere = self._admins
        try:
            return await self._snapshot_at(chosen)
        except NobodyListensError:
            for admin in elsewhere:  # port 2019 may be another program's
                with contextlib.suppress(NobodyListensError, _NotCaddyError):
                    return await self._snapshot_at(admin)
            raise

    async def _snapshot_at(self, admin: Admin) -> _Snapshot:
        answer = await admin.get("/config/")
        if answer.etag is None:
            why = f"what answers at {admin.address} names no ETag, so it is not Caddy: {_said(answer)}"
            raise _NotCaddyError(COMPONENT, "read its configuration", why, "nothing is written to it")
        if answer.status != _OK:
            raise AdapterError(COMPONENT, "read its configuration", _said(answer))
        is_large = len(answer.body) > LARGE_BYTES
        decoded = await beside_if(is_large, partial(caddy_config.decode, answer.body))
        config = understood(decoded, COMPONENT, "read its configuration")
        return _Snapshot(config, answer.etag, admin, is_large)

    async def _snapshot_or_start(self, routes: tuple[Route, ...]) -> _Snapshot:
        try:
            return await self._snapshot()
        except NobodyListensError:
            self._version = None  # it may come up as another one
            await self._start(routes)
        return await self._snapshot()

    def _moves(self, operation: Operation, snapshot: _Snapshot) -> bool:
        """Whether the request gives the admin API another address than the one that it goes to."""
        listen = as_object(as_object(operation.body).get("admin")).get("listen")
        return operation.path == "/config/" and listen == self._settings.admin != snapshot.admin.address

    async def _prepare(self, snapshot: _Snapshot, *, moves: bool) -> None:
        """The folder of the admin socket, before Caddy makes the socket in it; one that is in use is put right where that is easy."""
        if not moves and snapshot.admin.address != self._settings.admin:
            return
        try:
            await process.make_socket_folder(self._settings.admin, self._settings.unit)
        except AdapterError as error:
            if moves:
                raise
            logger().warning("folder of caddy's admin socket not checked", why=error.why, then="routes are updated")

    async def _send(self, operation: Operation, body: bytes, snapshot: _Snapshot) -> None:
        self._migrate_connections()
        answer = await snapshot.admin.send(operation.method, operation.path, body, snapshot.etag)
        if answer.status == _OK:
            logger().info("caddy configured", request=f"{operation.method} {operation.path}")
        elif answer.is_outdated:
            logger().info("caddy was changed by somebody else", then="looking again")
        elif b"unknown field" in answer.body and await self.version() > OLDEST_VERSION:
            # The program on disk is newer than the one that runs.
            logger().warning("caddy is older than its program", then="only what 2.6 knows is used")
            self._version = OLDEST_VERSION
        else:
            why, then = _said(answer), "its configuration stays as it was"
            raise AdapterError(COMPONENT, f"{operation.method} {operation.path}", why, then)

    def _migrate_connections(self) -> None:
        """Before every change, since whoever sets the kernel's settings anew may have set this one, too."""
        why = reuse_port.migrate_connections()
        if why is not None and why != self._not_migrated:
            then = "a request that arrives while routes are updated may find its connection reset"
            logger().warning("connections not handed over", why=why, then=then)
        self._not_migrated = why

    async def _start(self, routes: tuple[Route, ...]) -> None:
        """Bring up a Caddy that does not run: by its unit, or as a process apart from the agent, already with these routes."""
        unit = self._settings.unit
        await process.make_socket_folder(self._settings.admin, unit)
        if unit is not None:
            await process.start_unit(unit)
        else:
            if await self._found() and await self._is_up_within(_GRACE_S):
                return
            # One of ours that does not answer here is of another configuration or hangs. A second one beside it would not fail but
            # share its ports.
            await anyio.to_thread.run_sync(self._child.end)
            await self._refuse_taken_port()
            base = await self._base()
            first = await beside_if(len(routes) > LARGE_ENTRIES, partial(self._first_config, routes, base))
            await self._child.start(first)
        logger().info("caddy started", by=unit or "agent")
        if not await self._is_up_within(_UP_LIMIT_S):
            words = "" if unit is not None or await self._found() else self._child.last_words()
            raise AdapterError(
                COMPONENT, "start it", words or f"no answer at {self._settings.admin}", "it is tried again"
            )

    async def _found(self) -> bool:
        return bool(await anyio.to_thread.run_sync(self._child.find))

    async def _is_up_within(self, limit_s: float) -> bool:
        """Whether it answers in time; no longer than needed is waited for a process that has ended."""
        started = anyio.current_time()
        while (waited_s := anyio.current_time() - started) < limit_s:
            try:
                await self._snapshot()
            except NobodyListensError:
                await anyio.sleep(_UP_POLL_S)
            else:
                return True
            if self._settings.unit is None and waited_s > _SETTLE_S and not await self._found():
                return False
        return False

    def _first_config(self, routes: tuple[Route, ...], base: Base) -> bytes:
        admin: Object = {"admin": {"listen": self._settings.admin, "config": {"persist": False}}}
        return caddy_config.encode(caddy_change.with_routes(caddy_base.with_base(admin, base), routes, base))

    async def _refuse_taken_port(self) -> None:
        """Caddy shares ports with whoever lets it, without an error; each would get a part of the requests."""
        base = self._settings.base
        for port in (base.http_port, base.https_port):
            try:
                with anyio.fail_after(1):
                    stream = await anyio.connect_tcp(base.listen.strip("[]") or "127.0.0.1", port)
            except (OSError, TimeoutError):
                continue
            await stream.aclose()
            why = f"something else listens on port {port}, but not on the admin address {self._settings.admin}"
            raise AdapterError(COMPONENT, "start it", why, "stop that, or name its admin address")


def _self_contained(settings: CaddySettings) -> CaddySettings:
    """A process of the agent's has no home and no journal: certificates and messages go into its folder, also after it was emptied."""
    base, folder = settings.base, settings.folder
    storage, log = base.storage or str(folder / "storage"), base.process_log or str(folder / "caddy.log")
    return replace(settings, base=replace(base, storage=storage, process_log=log))


def _said(answer: Answer) -> str:
    words = answer.body.decode(errors="replace").strip()
    return f"answered {answer.status} {shown(words, _LONGEST_WORDS)}"
