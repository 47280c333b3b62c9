"""Builds: offered, claimed, built, reported, one after the other; beside everything else, and in nobody's way.

A claim has no lease: whatever happens, the control plane hears how the build ended, also after a crash.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from core import bounds, build_source, doctor, protocol, secrets
from core.build_plan import Stage
from core.build_record import INTERRUPTED, UNFINISHED, Record
from core.overview import Build
from core.protocol import BuildStatus, ClaimedBuild, PendingBuilds
from core.secrets import EncryptionKey
from shell.adapters import build_tools
from shell.adapters.control_plane import ControlPlaneError
from shell.building import pipeline
from shell.building.log import BuildLog, close_left_over
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.sandbox import remove_groups
from shell.building.workplace import Workplace, left_over, remove_folder
from shell.failure import AdapterError
from shell.figures import FIGURES
from shell.log import logger
from shell.parts import PartError, Parts, Turned, no_turn, once
from shell.pausing import never_paused

POLL_S: Final = 30.0
CANCEL_POLL_S: Final = 4.0
_AGAIN_S: Final = (2.0, 5.0, 10.0, 30.0)
# Tries to say how a build ended that were answered, 20 minutes in all; what is not heard then waits for the next start.
_PATIENCE: Final = 40
_CLEAR_S: Final = 5.0  # of the ten in which the agent ends
_CONFLICT: Final = 409
_UNKNOWN: Final = 404
_REFUSALS: Final = (400, 404)


class Desk(Protocol):
    """What this loop asks of the control plane. Every call may raise ControlPlaneError."""

    async def fetch_pending_build(self) -> bytes:
        """The oldest pending build."""

    async def claim_build(self, build_id: str) -> bytes:
        """Claim it."""

    async def post_build_status(self, build_id: str, status: str, error: str | None = None) -> bytes:
        """Report it."""

    async def fetch_build_status(self, build_id: str) -> bytes:
        """How it stands."""


@dataclass
class Builder:
    """What the loop builds with. `now` are the builds that go on, for `agent status`; `ending` those whose end is being said;
    `warnings` say what a build here could reach."""

    desk: Desk
    workshop: Workshop
    logs: Path
    encryption_key: EncryptionKey | None
    wall_clock: Callable[[], float]
    paused: Callable[[], Awaitable[bool]] = never_paused
    concurrency: int = 1
    now: dict[str, Build] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    warnings: tuple[str, ...] = ()
    parts: Parts = field(default_factory=Parts)


class _Standing(Enum):
    """What the control plane says of a build."""

    SETTLED = "nobody waits to hear how it ended: it is over, was never claimed, or is not known"
    UNFINISHED = "it waits to hear"
    UNCLEAR = "the answer says neither"
    SILENT = "there was no answer"


class _CancelledError(Exception):
    """The user has cancelled the build."""


async def run(builder: Builder, turned: Turned = no_turn) -> None:
    """First say how builds ended that a crash has interrupted; then build what is offered."""
    await anyio.to_thread.run_sync(close_left_over, builder.logs)
    found = await anyio.to_thread.run_sync(lambda: [*left_over(builder.workshop.top)])
    for folder, _ in found:
        await anyio.to_thread.run_sync(remove_groups, folder)
    turned()
    await _look_at_tools(builder)
    async with anyio.create_task_group() as tasks:
        for folder, record in found:
            settle = partial(_settle, builder, folder, record)
            builder.parts.start(tasks, "builds", once(settle), folder.name)
        for number in range(builder.concurrency):
            builder.parts.start(tasks, "builds", partial(_work, builder), f"builder {number + 1}")


async def _look_at_tools(builder: Builder) -> None:
    """Say what a build could reach, once until that changes."""
    found = await build_tools.find(builder.workshop.settings.builder, Path("/"))
    warnings = doctor.build_warnings(found)
    for one in warnings:
        if one not in builder.warnings:
            logger().warning("builds reach this server", why=one)
    builder.warnings = warnings


async def _work(builder: Builder, turned: Turned) -> None:
    complaint: str | None = None
    while True:
        built = False
        if not await builder.paused():
            try:
                built = await _once(builder)
                complaint = None
            except AdapterError as error:
                if str(error) != complaint:
                    logger().warning("builds not asked for", why=str(error), then="asked again")
                complaint = str(error)
        turned()
        if built:
            await _look_at_tools(builder)
        await anyio.sleep(1.0 if built else POLL_S)


async def _once(builder: Builder) -> bool:
    """Build what is offered; whether there was something. Raises AdapterError when nobody knows."""
    found = protocol.parse(await builder.desk.fetch_pending_build(), PendingBuilds)
    if not is_successful(found):
        raise AdapterError("control plane", "use the pending build", found.failure())
    offered = found.unwrap().build
    if offered is None or offered.id in builder.now or offered.id in builder.ending:
        return False
    place = Workplace(builder.workshop.top, offered.id)
    builder.now[offered.id] = Build(offered.id, "claiming", builder.wall_clock())
    try:
        outcome = await _claim_and_build(builder, place, offered.id)
    except OSError as error:
        why = f"{error.strerror or error} ({error.filename})"
        raise AdapterError("builds", "prepare a build", why, "it is not claimed") from error
    finally:
        del builder.now[offered.id]
        with anyio.move_on_after(_CLEAR_S, shield=True), suppress(OSError):  # what is left is removed by the next start
            await anyio.to_thread.run_sync(place.clear, abandon_on_cancel=True)
    with _ending(builder, offered.id):
        if outcome is None or await _say_end(builder, outcome):
            await anyio.to_thread.run_sync(place.remove)
    return outcome is not None


async def _claim_and_build(builder: Builder, place: Workplace, build_id: str) -> Record | None:
    """How the build ended, to be said; None when there is nothing to say. Raises OSError before anything is claimed."""
    await anyio.to_thread.run_sync(place.remember, Record(build_id))
    try:
        raw = await builder.desk.claim_build(build_id)
    except ControlPlaneError as error:
        if error.status == _CONFLICT:
            return None
        if (
            error.words and await _standing(builder, build_id) is _Standing.SETTLED
        ):  # it has said itself why, and knows better
            return None
        logger().warning("build not handed over", build=build_id, why=str(error), then="reported as failed")
        return Record(build_id, "failed", f"the build could not begin: {error}")
    found = protocol.parse(raw, ClaimedBuild)
    if not is_successful(found):
        return Record(build_id, "failed", f"the build could not begin; its description: {found.failure()}")
    if found.unwrap().build.id != build_id:
        return Record(build_id, "failed", "the build could not begin; its description is another build's")
    return await _build(builder, place, found.unwrap())


async def _build(builder: Builder, place: Workplace, claim: ClaimedBuild) -> Record | None:
    """Build, and remember how it ended before that is said."""
    details = claim.build
    said = logger().bind(build=details.id, service=details.service_id)
    said.info("build begun", commit=details.commit_sha, branch=details.branch)
    log = BuildLog(builder.logs, details.id, details.service_id, details.project_id)
    try:
        outcome = await _outcome(builder, claim, log)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(log.end)
    ended = "cancelled" if outcome is None else outcome.outcome
    said.info("build ended", outcome=ended)
    FIGURES.add("techulus_builds", outcome=ended)
    if outcome is not None:
        with suppress(OSError):  # it is said now; only a crash in between would need the file
            await anyio.to_thread.run_sync(place.remember, outcome)
    return outcome


async def _outcome(builder: Builder, claim: ClaimedBuild, log: BuildLog) -> Record | None:
    """How it ended; None when it was cancelled."""
    build_id = claim.build.id
    job = _job(builder, claim)
    if not is_successful(job):
        log.say(job.failure())
        return Record(build_id, "failed", job.failure())
    try:
        with builder.parts.contained("builds", build_id, (AdapterError, BuildError, OSError, _CancelledError)):
            await _watched(builder, job.unwrap(), log)
    except (BuildError, PartError) as error:
        log.say(error.short if isinstance(error, BuildError) else str(error))
        return Record(build_id, "failed", str(error))
    except _CancelledError:
        log.say("cancelled")
        return None
    return Record(build_id, "completed")


async def _watched(builder: Builder, job: Job, log: BuildLog) -> None:
    """The pipeline, ended as soon as the control plane says that nobody wants it any more."""

    async def stage(entered: Stage) -> None:
        builder.now[job.id] = replace(builder.now[job.id], status=entered.value)
        if await _report_stage(builder, job.id, entered):
            raise _CancelledError

    cancelled = False

    async def watch(scope: anyio.CancelScope) -> None:
        nonlocal cancelled
        while True:
            await anyio.sleep(CANCEL_POLL_S)
            if await _is_unwanted(builder, job.id):
                cancelled = True
                scope.cancel()

    failure: BuildError | _CancelledError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        tasks.start_soon(log.run)
        try:
            await pipeline.build(builder.workshop, job, Listener(stage, log.say))
        except (BuildError, _CancelledError) as error:
            failure = error
        tasks.cancel_scope.cancel()
    if cancelled:
        raise _CancelledError
    if failure is not None:
        raise failure


async def _report_stage(builder: Builder, build_id: str, stage: Stage) -> bool:
    """Tell the control plane; whether the build is cancelled. One that is not heard is no reason to stop building."""
    try:
        answer = protocol.parse(await builder.desk.post_build_status(build_id, stage.value), BuildStatus)
    except AdapterError as error:
        logger().warning("build stage not reported", build=build_id, stage=stage.value, why=str(error))
        return False
    return is_successful(answer) and answer.unwrap().cancelled


async def _is_unwanted(builder: Builder, build_id: str) -> bool:
    with suppress(AdapterError):
        answer = protocol.parse(await builder.desk.fetch_build_status(build_id), BuildStatus)
        return is_successful(answer) and answer.unwrap().status == "cancelled"
    return False


def _job(builder: Builder, claim: ClaimedBuild) -> Result[Job, str]:
    """What is to be built, checked and decrypted."""
    size = sum(map(len, claim.secrets.values()))
    if len(claim.secrets) > bounds.SECRETS or size > bounds.SECRETS_TEXT:
        most = f"{bounds.SECRETS} with {bounds.SECRETS_TEXT} characters"
        return Failure(
            f"the build has {len(claim.secrets)} secrets with {size} characters, and at most {most} are taken"
        )
    plain: dict[str, str] = {}
    for name, value in sorted(claim.secrets.items()):
        if builder.encryption_key is None:
            return Failure("the build has secrets, and this installation has no key to read them")
        text = secrets.decrypt(builder.encryption_key, value)
        if not is_successful(text):
            return Failure(f"the secret {name[:80]!r} cannot be read: {text.failure()}")
        plain[name] = text.unwrap()
    details = claim.build
    source = build_source.parse(claim.clone_url, details.commit_sha, details.branch, builder.workshop.schemes)
    if not is_successful(source):
        return Failure(source.failure())
    return Success(Job(details.id, source.unwrap(), claim.image_uri, details.service_id, plain))


async def _say_end(builder: Builder, outcome: Record, *, is_doubtful: bool = False) -> bool:
    """Say how a build ended until it is heard; whether it was. `is_doubtful`: it may have been said before.

    After a doubt the status is read first, and `completed` is never said again before that has been answered: it deploys each time.
    """
    complaint: str | None = None
    answered = 0  # only these count: while nobody answers, nothing else is to be built either
    for attempt in itertools.count():
        failure = None if is_doubtful else await _post_end(builder, outcome)
        if failure is None and not is_doubtful:
            return True
        why = "it may have been said already, and how it stands cannot be read" if failure is None else str(failure)
        if why != complaint:
            complaint = why
            logger().warning("build's end not reported", build=outcome.id, why=why, then="tried again")
        await anyio.sleep(_AGAIN_S[min(attempt, len(_AGAIN_S) - 1)])
        standing = await _standing(builder, outcome.id)
        if standing is _Standing.SETTLED:
            return True
        is_doubtful = standing is not _Standing.UNFINISHED and outcome.outcome == "completed"
        answered += standing is not _Standing.SILENT or (failure is not None and failure.status is not None)
        if answered == _PATIENCE:
            break
    return False


async def _post_end(builder: Builder, outcome: Record) -> ControlPlaneError | None:
    """Why it was not heard, or None; what the control plane refuses in its own words has been heard."""
    try:
        await builder.desk.post_build_status(outcome.id, outcome.outcome, outcome.error or None)
    except ControlPlaneError as error:
        if error.status not in _REFUSALS or not error.words:
            return error
        logger().warning("build's end not taken", build=outcome.id, why=str(error), then="left as it is")
    return None


async def _standing(builder: Builder, build_id: str) -> _Standing:
    try:
        answer = protocol.parse(await builder.desk.fetch_build_status(build_id), BuildStatus)
    except ControlPlaneError as error:
        if error.status is None:
            return _Standing.SILENT
        return _Standing.SETTLED if error.status == _UNKNOWN and error.words else _Standing.UNCLEAR
    if not is_successful(answer) or answer.unwrap().status is None:
        return _Standing.UNCLEAR
    return _Standing.UNFINISHED if answer.unwrap().status in UNFINISHED else _Standing.SETTLED


async def _settle(builder: Builder, folder: Path, record: Record | None) -> None:
    """A build that an earlier run of this agent left: said how it ended, and removed."""
    with _ending(builder, folder.name if record is None else record.id):
        if record is None or await _said_or_settled(builder, record):
            await anyio.to_thread.run_sync(remove_folder, folder)


async def _said_or_settled(builder: Builder, record: Record) -> bool:
    standing = await _standing(builder, record.id)
    if standing is _Standing.SETTLED:
        return True
    outcome = record if record.outcome else Record(record.id, "failed", INTERRUPTED)
    logger().info("build of an earlier run", build=record.id, outcome=outcome.outcome)
    is_doubtful = standing is not _Standing.UNFINISHED and outcome.outcome == "completed"
    return await _say_end(builder, outcome, is_doubtful=is_doubtful)


@contextmanager
def _ending(builder: Builder, build_id: str) -> Iterator[None]:
    """Within, this build is not claimed: what is said of its end, or its folder being removed, would meet it."""
    builder.ending.add(build_id)
    try:
        yield
    finally:
        builder.ending.discard(build_id)
