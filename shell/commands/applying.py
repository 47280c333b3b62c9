"""`agent apply`: reconcile once, until nothing is left that can be done now.

The same state machine as the daemon's, ended when it rests: with nothing left (it converged), or with changes that failed.
"""

import sys
import time
from collections.abc import Mapping

import anyio
from rich.console import Console
from rich.text import Text

from core import render
from core.action import Action, NotExpected, StopOrphan
from core.events import Effect, Fetch, Note, Perform, Report
from core.memory import Memory, ready
from core.phases import Idle, State, Waiting
from core.state import ExpectedState
from shell import log
from shell.daemon import Daemon, run_until_stopped
from shell.failure import CommandError
from shell.files import DataDirLock
from shell.log_choices import LogFormat, LogLevel
from shell.opening import registered
from shell.option_checks import checked


def apply_once(given: Mapping[str, object]) -> None:
    """Make this server as expected. Raises CommandError when it did not converge."""
    options = checked(given)
    log.set_up(LogFormat.AUTO, LogLevel.WARNING)  # the display tells the rest
    node = registered(options)
    with DataDirLock(options.data_dir):
        display = Display(Console(stderr=True, highlight=False))
        anyio.run(_apply, Daemon(node, display.observe), display)
    display.verdict()


async def _apply(daemon: Daemon, display: "Display") -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_at_rest, daemon, display)
        await run_until_stopped(daemon)
        tasks.cancel_scope.cancel()


async def _stop_at_rest(daemon: Daemon, display: "Display") -> None:
    await display.at_rest.wait()
    await daemon.reconcile.stop()


class Display:
    """Shows each change as it is made, and knows when nothing more is to come."""

    def __init__(self, console: Console) -> None:
        self.at_rest = anyio.Event()
        self._console = console
        self._begun = time.monotonic()
        self._memory: Memory | None = None
        self._unreachable = ""
        self._unseen = "stopped before anything was known"
        self._made = 0

    def observe(self, state: State, effects: tuple[Effect, ...]) -> None:
        """Hear of a new state of the machine."""
        self._memory = state.memory
        for effect in effects:
            if isinstance(effect, Note) and effect.event == "expected state not fetched":
                self._unreachable = str(dict(effect.facts)["why"])
            elif isinstance(effect, Note) and effect.event == "containers not listed":
                self._unseen = str(dict(effect.facts)["why"])
            elif isinstance(effect, Fetch):
                self._unreachable = ""
            elif isinstance(effect, Report):  # made from a look, and from nothing else
                self._unseen = ""
            elif isinstance(effect, Perform):
                self._made += 1
                kind, subject, reason = render.line(effect.action)
                left = len(state.memory.drift)
                self._console.print(
                    Text.assemble((f"{left:>4} left  ", "dim"), (f"{kind:<16} ", "bold"), f"{subject}  ({reason})")
                )
        if _waits(state) and (self._unseen or _rests(state.memory)):
            self.at_rest.set()

    def verdict(self) -> None:
        """Say how it ended; CommandError when changes are left."""
        memory = self._memory
        if self._unreachable or self._unseen:
            raise CommandError(self._unreachable or self._unseen)
        if memory is not None and memory.drift:
            failures = [one.failure for one in memory.retries.values() if one.failure]
            raise CommandError(f"{len(memory.drift)} changes are left; {failures[-1] if failures else 'stopped'}")
        sys.stderr.write(f"converged: {self._made} changes in {time.monotonic() - self._begun:.1f} s\n")


def _waits(state: State) -> bool:
    """Whether a round has ended."""
    return isinstance(state, Idle) and isinstance(state.phase, Waiting) and state.memory.polls > 0


def _rests(memory: Memory) -> bool:
    """Whether nothing more can be done now."""
    if memory.doubted is not None or memory.images.on_the_way or memory.woken:
        return False
    expected = memory.in_force or ExpectedState()
    left = ready(memory, expected, memory.drift, memory.last_poll_at)
    return all(_may_await_a_refused_one(action, expected) for action in left)


def _may_await_a_refused_one(action: Action, expected: ExpectedState) -> bool:
    """Whether a container stays, since the entry of what is to replace it makes no sense; no time ends that."""
    is_unwanted = isinstance(action, StopOrphan) and isinstance(action.reason, NotExpected) and not action.successors
    return is_unwanted and bool(expected.refused)
