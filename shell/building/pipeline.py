"""One build from its source to an image that the registry confirms: runs the core's commands one after the other, in a sandbox.

Says every line, with the secrets masked, to whoever listens; raises `BuildError` with the one message that the user reads.
"""

import hashlib
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread
from returns.pipeline import is_successful

from core import build_plan, build_record, build_sandbox, build_source, image
from core.build_failure import CommandOutput
from core.build_output import Lines
from core.build_plan import Asked, Command, Host, Layout, Recipe, Settings, Stage
from core.build_sandbox import Limits, Network
from core.build_source import Sees, Source
from shell.adapters import build_tools
from shell.building.sandbox import Sandbox, SandboxError, network, own_platform, remove_groups
from shell.building.workplace import Workplace
from shell.failure import AdapterError

_CLONE_S: Final = 600.0
_TURN_S: Final = 0.05  # for lines of a build's output; then others have their turn


class BuildError(Exception):
    """A build has failed; the text is for the user, and holds no secret. `hint`, its last line, says what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self._hint = hint

    @property
    def short(self) -> str:
        """Reason and hint, for whoever has seen the last words."""
        reason = str(self).split("\n", 1)[0]
        return f"{reason}\n{self._hint}" if self._hint else reason


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be built, checked and decrypted."""

    id: str
    source: Source
    image_uri: str
    service_id: str
    secrets: Mapping[str, str] = field(repr=False)
    layout: Layout = build_plan.WHOLE


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a build: each stage as it begins, and each line."""

    stage: Callable[[Stage], Awaitable[None]]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every build of this host shares. `limit_s` is the time that a whole build may take; `stores` are those in use."""

    top: Path
    settings: Settings
    limits: Limits
    schemes: tuple[str, ...] = ()
    limit_s: float = 1800.0
    auth_file: Path | None = None
    stores: set[Path] = field(default_factory=set)


async def build(workshop: Workshop, job: Job, listener: Listener) -> str:
    """Build and push; the digest that the registry confirms. Raises BuildError. The caller removes the build's folder."""
    running = _Running(workshop, job, listener)
    try:
        with anyio.fail_after(workshop.limit_s):
            return await running.everything()
    except TimeoutError as error:
        raise BuildError(running.message(f"the build took longer than {workshop.limit_s / 60:.0f} minutes")) from error
    except (AdapterError, SandboxError) as error:
        raise BuildError(running.message(str(error))) from error
    except OSError as error:
        raise BuildError(running.message(f"{error.strerror or error} ({error.filename})")) from error


class _Running:
    """One build while it goes on: which stage it is in, and its last lines."""

    def __init__(self, workshop: Workshop, job: Job, listener: Listener) -> None:
        self._workshop = workshop
        self._job = job
        self._listener = listener
        self._place = Workplace(workshop.top, job.id)
        self._stage: Stage | None = None
        self._output: CommandOutput | None = None

    async def everything(self) -> str:
        """All of it."""
        job, place, workshop = self._job, self._place, self._workshop
        config = build_source.git_config(job.source, workshop.schemes)
        await anyio.to_thread.run_sync(place.prepare, config)
        host = await build_tools.find(workshop.settings.builder, place.folder)
        with _store(workshop, job.service_id) as store:
            ways = await self._networks(host)
            sandbox = Sandbox(place, workshop.limits, ways, store, host.buildkit, self._repository())
            try:
                await self._clone(sandbox)
                recipe = await self._recipe(host)
                self._say(recipe.about)
                for command in recipe.commands:
                    await self._enter(command.stage)
                    await self._run(sandbox, command, recipe.secret_files, workshop.limit_s)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_groups, place.folder)
        await self._enter(Stage.PUSHING)
        return await self._confirmed(recipe)

    def message(self, why: str) -> str:
        """What the user reads: the stage, the reason, the last words of the command that ran when there was one."""
        text = why if self._output is None else self._output.interrupted(why)
        lines = Lines(tuple(self._job.secrets.values()), always=self._job.source.secrets)
        return f"{self._where} failed: " + "\n".join((*lines.feed(text.encode()), *lines.end()))

    @property
    def _where(self) -> str:
        return "build" if self._stage is None else self._stage.value

    async def _networks(self, host: Host) -> dict[Sees | None, Network]:
        """By what a command sees, where it gets to beside the internet; `None`: nowhere but to the operator's proxies."""
        job, settings = self._job, self._workshop.settings
        images = (image.parse(text) for text in (job.image_uri, settings.cache) if text is not None)
        named = {*settings.insecure_registries, *(one.registry for one in images if one is not None)}
        registries = [
            build_sandbox.endpoint_of_registry(one, is_insecure=build_plan.is_plain(one, settings)) for one in named
        ]
        proxies = build_sandbox.proxies(os.environ)
        clone = await network(proxies, build_sandbox.endpoint_of_url(job.source.url))
        buildkit = await network((*proxies, *registries, build_sandbox.endpoint_of_url(host.buildkit or "")))
        return {
            Sees.GIT: clone,
            Sees.BUILDKIT: buildkit,
            Sees.STORE: await network((*proxies, *registries)),
            None: await network(proxies),
        }

    def _repository(self) -> str | None:
        """The repository itself, where that is a folder of this server."""
        parts = urlsplit(self._job.source.url)
        return unquote(parts.path) if parts.scheme == "file" else None

    async def _clone(self, sandbox: Sandbox) -> None:
        source = self._job.source
        await self._enter(Stage.CLONING)
        self._say(f"cloning {source.url} at {source.commit or source.branch}")
        env = tuple(build_source.git_environment().items())
        command = Command(Stage.CLONING, build_source.fetch(source), env, frozenset((Sees.GIT,)))
        try:
            with anyio.fail_after(_CLONE_S):
                await self._run(sandbox, command, (), self._workshop.limit_s)
        except TimeoutError as error:
            raise BuildError(self.message(f"it took longer than {_CLONE_S / 60:.0f} minutes")) from error
        raw = await anyio.to_thread.run_sync(self._place.read, build_source.COMMIT)
        commit = raw.decode("utf-8", "replace").strip()
        fault = build_source.commit_fault(source, commit)
        if fault is not None:
            raise BuildError(self.message(fault))
        self._say(f"checked out {commit}")

    async def _recipe(self, host: Host) -> Recipe:
        job = self._job
        found = await anyio.to_thread.run_sync(self._place.look, job.layout)
        asked = Asked(job.image_uri, job.service_id, job.secrets, job.layout)
        made = build_plan.make(asked, found, host, self._workshop.settings)
        if not is_successful(made):
            raise BuildError(self.message(made.failure()))
        return made.unwrap()

    async def _confirmed(self, recipe: Recipe) -> str:
        raw = await anyio.to_thread.run_sync(self._place.read, recipe.digest_file)
        pushed = build_record.pushed_digest(raw)
        target = image.parse(self._job.image_uri)
        assert target is not None, "the plan has parsed it"
        if not is_successful(pushed):
            raise BuildError(self.message(pushed.failure()))
        insecure = build_plan.is_plain(target.registry, self._workshop.settings)
        found = await build_tools.registry_image(target, insecure, self._workshop.auth_file, self._place.folder)
        if found.digest != pushed.unwrap():
            raise BuildError(
                self.message(f"the registry has {found.digest} as {target}, and {pushed.unwrap()} was pushed")
            )
        wanted = self._job.layout.platform or own_platform()
        if not build_plan.is_for(found.platform, wanted):
            raise BuildError(self.message(f"the image is for {found.platform}, and {wanted} was wanted"))
        self._say(f"pushed {target} ({found.digest})")
        return found.digest

    async def _enter(self, stage: Stage) -> None:
        order = list(Stage)
        if self._stage is None or order.index(stage) > order.index(self._stage):
            self._stage = stage
            await self._listener.stage(stage)

    async def _run(
        self, sandbox: Sandbox, command: Command, files: tuple[tuple[str, str], ...], limit_s: float
    ) -> None:
        await self._hand_over(command, files)
        output = self._output = CommandOutput(_tool(command.argv))
        lines = Lines(tuple(self._job.secrets.values()), always=self._job.source.secrets)

        async def hear(chunk: bytes) -> None:
            turn_until = anyio.current_time() + _TURN_S
            for line in lines.feed(chunk):
                await self._heard(line)
                if anyio.current_time() > turn_until:
                    await anyio.lowlevel.checkpoint()
                    turn_until = anyio.current_time() + _TURN_S

        try:
            status = await sandbox.run(command, hear, limit_s)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._place.take_back)
        for line in lines.end():
            await self._heard(line)
        if status != 0:
            raise BuildError(f"{self._where} failed: {output.message(status)}", output.hint)
        self._output = None

    async def _hand_over(self, command: Command, files: tuple[tuple[str, str], ...]) -> None:
        """Only now: what ran before this command could not have read it."""
        place, auth_file = self._place, self._workshop.auth_file
        if Sees.SECRETS in command.sees:
            await anyio.to_thread.run_sync(place.write_secrets, files, self._job.secrets)
        if Sees.LOGIN in command.sees and auth_file is not None:
            await anyio.to_thread.run_sync(place.copy_login, auth_file)

    async def _heard(self, line: str) -> None:
        self._say(line)
        if self._output is not None:
            self._output.add(line)
        if self._stage is Stage.BUILDING and build_record.announces_push(line):
            await self._enter(Stage.PUSHING)

    def _say(self, line: str) -> None:
        self._listener.say(line)


def _tool(argv: tuple[str, ...]) -> str:
    """Whose words the output is: the clone is a small script of Git's commands."""
    return "git" if argv[0] == "sh" else Path(argv[0]).name


@contextmanager
def _store(workshop: Workshop, service_id: str) -> Iterator[Path]:
    """The store of a service's images, for one build alone: what builds of other services have made is none of its business."""
    name = hashlib.sha256(service_id.encode()).hexdigest()[:24]
    top = Path(workshop.settings.store)
    path = next(one for number in itertools.count() if (one := top / f"{name}-{number}") not in workshop.stores)
    workshop.stores.add(path)
    try:
        yield path
    finally:
        workshop.stores.discard(path)


def _lines(lines: Lines, text: str) -> list[str]:
    return [*lines.feed(text.encode()), *lines.end()]
