"""One build from its source to an image that the registry confirms: runs the core's commands one after the other.

Says every line, with the secrets masked, to whoever listens; raises `BuildError` with the one message that the user reads.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from returns.pipeline import is_successful

from core import build_plan, build_record, build_source, image
from core.build_output import Lines, Tail
from core.build_plan import Recipe, Settings, Stage
from core.build_source import Source
from shell.adapters import build_tools
from shell.building.workplace import Workplace
from shell.children import Child, answer, run
from shell.failure import AdapterError

_CLONE_S: Final = 600.0
_LOOK_S: Final = 60.0
_TURN_S: Final = 0.05  # for lines of a build's output; then others have their turn


class BuildError(Exception):
    """A build has failed; the text is for the user, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be built, checked and decrypted."""

    id: str
    source: Source
    image_uri: str
    service_id: str
    secrets: Mapping[str, str] = field(repr=False)

    @property
    def hidden(self) -> tuple[str, ...]:
        """What no line may repeat."""
        return (*self.source.secrets, *(one for one in self.secrets.values() if one))


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a build: each stage as it begins, and each line."""

    stage: Callable[[Stage], Awaitable[None]]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every build of this host shares. `limit_s` is the time that a whole build may take."""

    top: Path
    settings: Settings
    schemes: tuple[str, ...] = ()
    limit_s: float = 1800.0
    auth_file: Path | None = None


async def build(workshop: Workshop, job: Job, listener: Listener) -> str:
    """Build and push; the digest that the registry confirms. Raises BuildError. The caller removes the build's folder."""
    running = _Running(workshop, job, listener)
    try:
        with anyio.fail_after(workshop.limit_s):
            return await running.everything()
    except TimeoutError as error:
        raise BuildError(running.message(f"the build took longer than {workshop.limit_s / 60:.0f} minutes")) from error
    except AdapterError as error:
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
        self._tail = Tail()

    async def everything(self) -> str:
        """All of it."""
        await self._clone()
        recipe = await self._recipe()
        self._say(recipe.about)
        for command in recipe.commands:
            await self._enter(command.stage)
            await self._run(command.argv, dict(command.env), self._workshop.limit_s)
        await self._enter(Stage.PUSHING)
        return await self._confirmed(recipe)

    def message(self, why: str) -> str:
        """What the user reads: the stage, the reason, the last lines."""
        stage = "build" if self._stage is None else self._stage.value
        lines = self._tail.text()
        text = f"{stage} failed: {why}" + (f"\n{lines}" if lines else "")
        return "\n".join(part for chunk in (Lines(self._job.hidden),) for part in _lines(chunk, text))

    async def _clone(self) -> None:
        job, place = self._job, self._place
        config = build_source.git_config(job.source, self._workshop.schemes)
        await anyio.to_thread.run_sync(place.prepare, config)
        await self._enter(Stage.CLONING)
        self._say(f"cloning {job.source.url} at {job.source.commit or job.source.branch}")
        env = build_source.git_environment(str(place.folder))
        with anyio.fail_after(_CLONE_S):
            for argv in build_source.fetch_steps(job.source):
                await self._run(argv, env, _CLONE_S)
            status, commit = await answer(Child(build_source.WHICH_COMMIT, place.folder, env, _LOOK_S))
            fault = build_source.commit_fault(job.source, commit if status == 0 else "")
            if fault is not None:
                raise BuildError(self.message(fault))
            if await anyio.to_thread.run_sync(place.has_submodules):
                await self._run(build_source.SUBMODULES, env, _CLONE_S)
        self._say(f"checked out {commit}")

    async def _recipe(self) -> Recipe:
        job, workshop = self._job, self._workshop
        found = await anyio.to_thread.run_sync(self._place.look)
        host = await build_tools.find(workshop.settings.builder, self._place.folder)
        made = build_plan.make(job.image_uri, job.secrets, job.service_id, found, host, workshop.settings)
        if not is_successful(made):
            raise BuildError(self.message(made.failure()))
        recipe = made.unwrap()
        await anyio.to_thread.run_sync(self._place.write_secrets, recipe.secret_files, job.secrets)
        if workshop.auth_file is not None:
            await anyio.to_thread.run_sync(self._place.copy_login, workshop.auth_file)
        return recipe

    async def _confirmed(self, recipe: Recipe) -> str:
        raw = await anyio.to_thread.run_sync((self._place.folder / recipe.digest_file).read_bytes)
        pushed = build_record.pushed_digest(raw)
        target = image.parse(self._job.image_uri)
        assert target is not None, "the plan has parsed it"
        if not is_successful(pushed):
            raise BuildError(self.message(pushed.failure()))
        insecure = target.registry in self._workshop.settings.insecure_registries
        found = await build_tools.registry_digest(target, insecure, self._workshop.auth_file, self._place.folder)
        if found != pushed.unwrap():
            raise BuildError(self.message(f"the registry has {found} as {target}, and {pushed.unwrap()} was pushed"))
        self._say(f"pushed {target} ({found})")
        return found

    async def _enter(self, stage: Stage) -> None:
        order = list(Stage)
        if self._stage is None or order.index(stage) > order.index(self._stage):
            self._stage = stage
            await self._listener.stage(stage)

    async def _run(self, argv: tuple[str, ...], env: Mapping[str, str], limit_s: float) -> None:
        lines = Lines(self._job.hidden)

        async def hear(chunk: bytes) -> None:
            turn_until = anyio.current_time() + _TURN_S
            for line in lines.feed(chunk):
                await self._heard(line)
                if anyio.current_time() > turn_until:
                    await anyio.lowlevel.checkpoint()
                    turn_until = anyio.current_time() + _TURN_S

        status = await run(Child(argv, self._place.folder, env, limit_s), hear, self._place.note_child)
        for line in lines.end():
            await self._heard(line)
        if status != 0:
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
            raise BuildError(self.message(f"{_named(argv)} {ended}"))

    async def _heard(self, line: str) -> None:
        self._say(line)
        if self._stage is Stage.BUILDING and build_record.announces_push(line):
            await self._enter(Stage.PUSHING)

    def _say(self, line: str) -> None:
        self._tail.add(line)
        self._listener.say(line)


def _named(argv: tuple[str, ...]) -> str:
    """A command without its operands."""
    words = [Path(argv[0]).name, *(word for word in argv[1:] if word.isalpha() and word != build_source.CHECKOUT)]
    return " ".join(words[:2])


def _lines(lines: Lines, text: str) -> list[str]:
    return [*lines.feed(text.encode()), *lines.end()]
