"""The control plane of one folder: looks at the files, lets a rule change the rows, keeps what came out. Decides nothing itself.

Everything happens on one thread, one request after the other; each change is on disk before it is answered.
"""

import secrets
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from shell.failure import CommandError
from shell.local_plane.applying import with_file
from shell.local_plane.documents import Fault
from shell.local_plane.edited import Content, Watched, candidates
from shell.local_plane.entries import servers_file, services_file
from shell.local_plane.moving import Fetches
from shell.local_plane.placement import converged, problems
from shell.local_plane.sealing import steady_seal
from shell.local_plane.servers import NamedToken, with_tokens
from shell.local_plane.store import ReportLog, load_world, save_world
from shell.local_plane.world import Answer, Moment, ServerId, World
from shell.log import logger

TOKENS = "tokens"

Clock: TypeAlias = Callable[[], int]
"""Unix milliseconds."""

NewId: TypeAlias = Callable[[], str]
Rule: TypeAlias = Callable[[World, Moment], tuple[World, Answer]]


def wall_clock() -> int:
    """The machine's time."""
    return time.time_ns() // 1_000_000


def fresh_id() -> str:
    """A random id."""
    return str(uuid.uuid4())


class Plane:
    """One control plane. Two of them must not share a folder at the same time."""

    def __init__(self, state_dir: Path, clock: Clock = wall_clock, new_id: NewId = fresh_id) -> None:
        """Open the folder, made if need be. Raises `CommandError` when its state cannot be used."""
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{state_dir}: {error.strerror}") from error
        self.clock = clock
        self.reports = ReportLog(state_dir)
        self._state_dir = state_dir
        self._new_id = new_id
        self._world = load_world(state_dir) or World(encryption_key=secrets.token_hex(32))
        self._services = Watched(lambda: candidates(state_dir, "services"))
        self._servers = Watched(lambda: [*candidates(state_dir, "servers"), *(state_dir / TOKENS).glob("*.json")])
        self._fetches: dict[ServerId, Fetches] = {}
        self._faults: dict[str, str] = {}
        self._last_ms = 0

    def world(self) -> World:
        """The rows as they are now, edited files included."""
        moment = self._moment()
        edited = self._with_services(self._with_servers(self._world, moment), moment)
        self._keep(converged(edited, self._fetches, moment))
        return self._world

    def act(self, rule: Rule) -> Answer:
        """Let a rule change the rows; its answer is returned once they are on disk. Raises `AdapterError` when they cannot be."""
        world, answer = rule(self.world(), self._moment())
        self._keep(converged(world, self._fetches, self._moment()))
        return answer

    def fetched(self, server_id: ServerId) -> None:
        """A server has been given its expected state."""
        before = self._fetches.get(server_id)
        self._fetches[server_id] = Fetches(before.last_ms if before else 0, self._moment().now_ms)

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the files, and what keeps them from being followed."""
        return (*self._faults.values(), *problems(self._world))

    def _moment(self) -> Moment:
        """Later than every moment before: whether something was seen is told by comparing times."""
        self._last_ms = max(self.clock(), self._last_ms + 1)
        return Moment(self._last_ms, self._new_id)

    def _keep(self, world: World) -> None:
        if world is not self._world:
            save_world(self._state_dir, world)
            self._world = world

    def _with_services(self, world: World, moment: Moment) -> World:
        contents = self._services.look()
        if contents is None:
            return world
        self._forget_faults("services")
        if len(contents) > 1:
            names = " and ".join(content.path.name for content in contents)
            self._fault("services", f"{names} are both there; one of them has to go")
        if len(contents) != 1:
            if not contents and world.services:
                self._fault("services", f"no services.yaml in {self._state_dir}")
            return world
        text = contents[0].text
        parsed = text if isinstance(text, Fault) else services_file(text, contents[0].kind, steady_seal(world))
        if isinstance(parsed, Fault):
            self._fault("services", f"{contents[0].path}: {parsed}")
            return world
        logger().info("services in force", path=str(contents[0].path), services=len(parsed.entries))
        return with_file(world, parsed, moment)

    def _with_servers(self, world: World, moment: Moment) -> World:
        contents = self._servers.look()
        if contents is None:
            return world
        self._forget_faults("servers")
        tokens = tuple(token for content in contents for token in self._tokens(content))
        return with_tokens(world, tokens, moment)

    def _tokens(self, content: Content) -> tuple[NamedToken, ...]:
        parsed = content.text if isinstance(content.text, Fault) else servers_file(content.text, content.kind)
        if isinstance(parsed, Fault):
            self._fault(f"servers {content.path.name}", f"{content.path}: {parsed}")
            return ()
        return parsed

    def _fault(self, what: str, message: str) -> None:
        self._faults[what] = f"{message}; the last good content stays in force"
        logger().error("file not usable", why=message, then="the last good content stays in force")

    def _forget_faults(self, what: str) -> None:
        self._faults = {key: text for key, text in self._faults.items() if not key.startswith(what)}
