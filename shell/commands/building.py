"""`agent build`: the pipeline of the daemon's builds by hand, with its progress on the terminal."""

import os
import signal
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import anyio.to_thread
from returns.pipeline import is_successful

from core import build_plan, build_source
from core import image as names
from core.build_plan import Stage
from core.printable import escape
from shell import files
from shell.building import pipeline
from shell.building.pipeline import BuildError, Job, Listener
from shell.building.workplace import Workplace
from shell.failure import CommandError
from shell.node import workshop
from shell.option_checks import checked

_CREDENTIAL = "TECHULUS_CLONE_TOKEN"
_USER = "x-access-token"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for: a repository with a commit or branch of it, the image's name, Dockerfile, folder and platform, names of
    secrets in this process's environment."""

    repo: str
    ref: str
    branch: str
    image: str
    layout: tuple[str, str, str]
    secrets: list[str]


def build_by_hand(given: Mapping[str, object], wanted: Wanted) -> None:
    """Clone, build, push. Raises CommandError when it fails."""
    options = checked(given)
    parsed = build_source.parse(_with_token(wanted.repo), wanted.ref, wanted.branch, options.build_allow_scheme)
    if not is_successful(parsed):
        raise CommandError(f"--repo: {parsed.failure()}")
    if names.parse(wanted.image) is None:
        raise CommandError(f"--image: {wanted.image!r} is not an image reference")
    layout = build_plan.layout(*wanted.layout)
    if not is_successful(layout):
        raise CommandError(layout.failure())
    missing = next((name for name in wanted.secrets if name not in os.environ), None)
    if missing is not None:
        raise CommandError(f"--secret-env: {missing} is not set in this environment")
    files.make_private_dir(options.data_dir)
    values = {name: os.environ[name] for name in wanted.secrets}
    service = f"by hand {parsed.unwrap().url}"
    job = Job(f"by hand {uuid.uuid4()}", parsed.unwrap(), wanted.image, service, values, layout.unwrap())
    shop = workshop(options)
    try:
        digest = anyio.run(_build, shop, job)
    except BuildError as error:
        raise CommandError(error.short) from None  # the last lines have just been shown
    sys.stdout.write(f"{wanted.image}@{digest}\n")


async def _build(shop: pipeline.Workshop, job: Job) -> str:
    async def stage(entered: Stage) -> None:
        sys.stderr.write(f"== {entered.value}\n")

    def say(line: str) -> None:
        sys.stderr.write(escape(line.expandtabs()) + "\n")

    place = Workplace(shop.top, job.id)
    outcome: str | Exception = CommandError("ended by a signal; nothing of the build is left")
    async with anyio.create_task_group() as tasks:
        building = anyio.CancelScope()
        tasks.start_soon(_end_on_signal, building)  # for as long as anything is left to do: it may come twice
        try:
            with building:
                outcome = await pipeline.build(shop, job, Listener(stage, say))
        except BuildError as error:
            outcome = error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(place.remove)
        tasks.cancel_scope.cancel()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _end_on_signal(build: anyio.CancelScope) -> None:
    """Ctrl-C, a service manager, a terminal that is closed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ends = [one for one in numbers if signal.getsignal(one) is not signal.SIG_IGN]  # which nohup does
    with anyio.open_signal_receiver(*ends) as signals:
        async for _ in signals:
            build.cancel()


def _with_token(repo: str) -> str:
    token = os.environ.get(_CREDENTIAL)
    scheme, separator, rest = repo.partition("://")
    return f"{scheme}{separator}{_USER}:{token}@{rest}" if token and separator else repo
