"""`agent run`: the daemon."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial

import anyio

from core.doctor import Level
from shell import examination, files, log
from shell.commands.opening import checked, registered_now
from shell.daemon import Daemon, run_until_stopped
from shell.failure import AdapterError, CommandError
from shell.figures import FIGURES
from shell.files import DataDirLock
from shell.ledger import Ledger
from shell.log import logger
from shell.options import Options

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


def run_agent(given: Mapping[str, object], token: str | None) -> None:
    """Run until told to stop. Raises CommandError when the agent cannot begin."""
    options = checked(given)
    log.hide(token or "")
    files.make_private_dir(options.data_dir)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # until the loops take over
    with DataDirLock(options.data_dir), contextlib.suppress(KeyboardInterrupt):
        anyio.run(_run, options, token)
    _leave(0)


async def _run(options: Options, token: str | None) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            node = await registered_now(options, token)
            break
        except AdapterError as error:
            logger().warning("not registered", why=str(error), then=f"tried again in {pause_s:.0f} s")
        await anyio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    await _refuse_what_cannot_work(options)
    logger().info(
        "agent started",
        server_id=node.identity.server_id,
        node_type=node.node_type.value,
        control_plane=node.control_plane.url,
    )
    daemon = Daemon(node, ledger=Ledger(options.data_dir))
    if options.metrics_listen is not None:
        from shell import metrics  # with its library, only where it is wanted

        metrics.listen(options.metrics_listen, FIGURES, daemon.overview)
        logger().info("metrics served", at=f"http://{options.metrics_listen}/metrics")
    await run_until_stopped(daemon, partial(_warn_of_what_is_missing, options))
    logger().info("agent stopped", then="containers go on")


async def _refuse_what_cannot_work(options: Options) -> None:
    for finding in await examination.examine_at_start(options):
        if finding.level is Level.FAILED:
            raise CommandError(f"{finding.check}: {finding.found}; {finding.todo} (`agent doctor` tells all)")
        if finding.level is Level.WARNING and finding.check == "podman":
            logger().warning("podman does not answer", why=finding.found, then="the agent goes on and looks again")


async def _warn_of_what_is_missing(options: Options) -> None:
    for finding in await examination.examine_beside(options):
        if finding.level is not Level.OK:
            logger().warning("not well", check=finding.check, why=finding.found, then=finding.todo)


def _end(number: int, frame: object) -> None:
    """A stop before the loops run ends at once: nothing is being changed, and registration survives even SIGKILL."""
    os._exit(0)


def _leave(status: int) -> None:
    """End now, even when a thread hangs in a component that does not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
