"""The daemon's program, `python -m shell.agent_process FD …`: what `agent run` becomes once its options are checked.

It is a program of its own so that an idle server does not carry the command line and the checks that were needed for a moment
(docs/performance.md). FD is an open file with what was handed over; the words after it are there for whoever reads `ps`.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio

from core.doctor import Level
from shell import ending, event_loop, examination, files, handover, log, streams
from shell.daemon import Daemon, run_until_stopped
from shell.failure import AdapterError, CommandError
from shell.figures import FIGURES
from shell.files import DataDirLock
from shell.ledger import Ledger
from shell.log import logger
from shell.opening import registered_now
from shell.options import Options
from shell.parts import Part

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


def main() -> int:
    """Take what was handed over and run until told to stop; the exit status of an agent that cannot begin."""
    task = handover.take(int(sys.argv[1]))
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("agent", encoding="ascii")  # what `ps` and `top` call it
    streams.detach_stderr(log.lost_lines)  # a full pipe must not stop the agent
    log.set_up(task.log_format, task.log_level)
    try:
        run_agent(task.options, task.token)
    except (CommandError, AdapterError, OSError) as error:
        return ending.told(ending.reason(error))
    return 0


def run_agent(options: Options, token: str | None) -> None:
    """Run until told to stop. Raises CommandError when the agent cannot begin."""
    for number in handover.STOPS:
        signal.signal(number, _end)  # until the loops take over
    handover.receive_stops()  # before anything that a disk could hold up
    log.hide(token or "")
    files.make_private_dir(options.data_dir)
    with DataDirLock(options.data_dir), contextlib.suppress(KeyboardInterrupt):
        event_loop.run(_run_and_leave, options, token)


async def _run_and_leave(options: Options, token: str | None) -> None:
    """End from within: leaving the event loop would wait for threads that still ask for a name which nobody answers."""
    await _run(options, token)
    ending.leave(0)


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
    beside: dict[Part, Callable[[], Awaitable[None]]] = {"examination": partial(_warn_of_what_is_missing, options)}
    if options.metrics_listen is not None:
        from shell import metrics  # with its library, only where it is wanted

        beside["metrics"] = partial(metrics.serve, options.metrics_listen, FIGURES, daemon.overview)
    await run_until_stopped(daemon, beside)
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


if __name__ == "__main__":
    ending.leave(main())  # at once, even when a thread hangs in a component that does not answer
