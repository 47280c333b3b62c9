"""Builds: offered, claimed, built, reported, one after the other; beside everything else, and in nobody's way.

A claim has no lease: whatever happens, the control plane hears how the build ended, also after a crash.
"""

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from core import build_source, protocol, secrets
from core.build_plan import Stage
from core.build_record import INTERRUPTED, UNFINISHED, Record
from core.overview import Build
from core.protocol import BuildStatus, ClaimedBuild, PendingBuilds
from core.secrets import EncryptionKey
from shell.adapters.control_plane import ControlPlaneError
from shell.building import caches, pipeline
from shell.building.log import BuildLog, close_left_over
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.workplace import Workplace, left_over, remove_folder
from shell.failure import AdapterError
from shell.figures import FIGURES
from shell.log import logger

POLL_S: Final = 30.0
CANCEL_POLL_S: Final = 4.0
_AGAIN_S: Final = (2.0, 5.0, 10.0, 30.0)
# Tries to say how a build ended that were answered, 20 minutes in all; what is not heard then waits for the next start.
_PATIENCE: Final = 40
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
    """What the loop builds with. `now` are the builds that go on, for `agent status`."""

    desk: Desk
    workshop: Workshop
    logs: Path
    encryption_key: EncryptionKey | None
    wall_clock: Callable[[], float]
    paused: Callable[[], bool] = lambda: False
    concurrency: int = 1
    now: dict[str, Build] = field(default_factory=dict)


class _CancelledError(Exception):
    """The user has cancelled the build."""


async def run(builder: Builder) -> None:
    """First say how builds ended that a crash has interrupted; then build what is offered."""
    close_left_over(builder.logs)
    found = [*left_over(builder.workshop.top)]
    await caches.drop_working_containers(builder.workshop)
    async with anyio.create_task_group() as tasks:
        for folder, record in found:
            tasks.start_soon(_settle, builder, folder, record)
        for _ in range(builder.concurrency):
            tasks.start_soon(_work, builder)


async def _work(builder: Builder) -> None:
    complaint: str | None = None
    while True:
        built = False
        if not builder.paused():
            try:
                built = await _once(builder)
                complaint = None
            except AdapterError as error:
                if str(error) != complaint:
                    logger().warning("builds not asked for", why=str(error), then="asked again")
                complaint = str(error)
        await anyio.sleep(1.0 if built else POLL_S)


async def _once(builder: Builder) -> bool:
    """Build what is offered; whether there was something. Raises AdapterError when nobody knows."""
    found = protocol.parse(await builder.desk.fetch_pending_build(), PendingBuilds)
    if not is_successful(found):
        raise AdapterError("control plane", "use the pending build", found.failure())
    offered = found.unwrap().build
    if offered is None or offered.id in builder.now:
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
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(place.clear)
            if not builder.now:
                await caches.drop_working_containers(builder.workshop)
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
        if error.words and await _is_settled(builder, build_id):  # it has said itself why, and knows better
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
        log.end()
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
        await _watched(builder, job.unwrap(), log)
    except BuildError as error:
        log.say(str(error).split("\n", 1)[0])
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
    answered = 0
    for attempt in itertools.count():
        if answered == _PATIENCE:
            break
        if not is_doubtful:
            try:
                await builder.desk.post_build_status(outcome.id, outcome.outcome, outcome.error or None)
                return True
            except ControlPlaneError as error:
                if error.status in _REFUSALS and error.words:
                    logger().warning("build's end not taken", build=outcome.id, why=str(error), then="left as it is")
                    return True
                if str(error) != complaint:
                    complaint = str(error)
                    logger().warning("build's end not reported", build=outcome.id, why=complaint, then="tried again")
                answered += error.status is not None  # while nobody answers, nothing else is to be built either
        await anyio.sleep(_AGAIN_S[min(attempt, len(_AGAIN_S) - 1)])
        settled = await _is_settled(builder, outcome.id)
        if settled:
            return True
        is_doubtful = settled is None and outcome.outcome == "completed"
    return False


async def _is_settled(builder: Builder, build_id: str) -> bool | None:
    """Whether nobody waits any more to hear how a build ended: it is over, was never claimed, or is not known. None: nobody can tell."""
    try:
        answer = protocol.parse(await builder.desk.fetch_build_status(build_id), BuildStatus)
    except ControlPlaneError as error:
        return True if error.status == _UNKNOWN and error.words else None
    if not is_successful(answer) or answer.unwrap().status is None:
        return None
    return answer.unwrap().status not in UNFINISHED


async def _settle(builder: Builder, folder: Path, record: Record | None) -> None:
    """A build that an earlier run of this agent left: said how it ended, and removed."""
    if record is not None and not (settled := await _is_settled(builder, record.id)):
        outcome = record if record.outcome else Record(record.id, "failed", INTERRUPTED)
        logger().info("build of an earlier run", build=record.id, outcome=outcome.outcome)
        is_doubtful = settled is None and outcome.outcome == "completed"
        if not await _say_end(builder, outcome, is_doubtful=is_doubtful):
            return
    await anyio.to_thread.run_sync(remove_folder, folder)
