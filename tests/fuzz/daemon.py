"""Hostile documents through the daemon's own path: `python -m tests.fuzz.daemon [--documents N] [--seed SEED] [--size BYTES]`.

The whole daemon (fetched, parsed, planned, changed, reported) on stand-ins of the components, on virtual time, in one process. At the
end nothing has failed that was not foreseen, no turn of the loop has taken longer than `SLOW_S` of processor time, and the memory is
what it was after the first tenth, which fills every cache: measured twice when the control plane has given the same good answer for a
while, since the last good document is kept for as long as it is in force, and it may be a large one.
"""

import argparse
import ctypes
import gc
import itertools
import json
import os
import selectors
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio

from core.containers import ExpectedContainer
from core.state import NodeType
from shell import log
from shell.daemon import Daemon
from shell.failure import AdapterError
from shell.figures import FIGURES
from shell.handover import ONE_ARENA
from shell.ledger import Ledger
from shell.log_choices import LogFormat, LogLevel
from shell.parts import METRIC, PARTS
from tests.builders import a_container_entry, an_expected_document
from tests.fuzz import mutation
from tests.shell import virtual_time
from tests.shell.scenery import Making, Plane, Scenery, wanting

SLOW_S: Final = 0.5
MEMORY_BYTES: Final = 5 * 1024**2
_PARSER: Final = "state.parse_expected_after"
_KEPT: Final = 100  # of what the stand-ins write down
_GOOD: Final = 50  # one document of so many is the control plane's own
_LARGE: Final = 200  # one of so many is taken apart in a thread (`shell.beside`)
_FIRST_LARGE: Final = 20  # in the first tenth also of a short run
_LARGE_BYTES: Final = (1024**2, 4 * 1024**2)
_SETTLING: Final = 20  # good answers before memory is measured


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run: how many documents, taken and refused polls, the longest turn in seconds, by how many bytes memory grew."""

    documents: int
    polls: dict[str, int]
    slowest_s: float
    growth_bytes: int
    failures: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether all is as it should be."""
        return not self.failures and self.slowest_s <= SLOW_S and self.growth_bytes <= MEMORY_BYTES

    def __str__(self) -> str:
        return (
            f"{self.documents} documents, polls {self.polls}; longest turn {self.slowest_s:.3f} s; "
            f"memory {self.growth_bytes / 1024**2:+.1f} MiB; not foreseen: {list(self.failures) or 'nothing'}"
        )


class _Watched(virtual_time.Clock):
    """Measures this thread's time between two waits."""

    slowest_s = 0.0
    _began_s = float("inf")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.slowest_s = max(self.slowest_s, time.thread_time() - self._began_s)
        ready = super().select(timeout)
        self._began_s = time.thread_time()
        return ready


class _Engine(Making):
    """Refuses a name that is taken, as Podman does: a document may give one to two containers."""

    async def create_and_start(self, container: ExpectedContainer, env: dict[str, str], image_id: str) -> None:
        """AdapterError for such a name."""
        if any(one.name == container.name for one in self.there.values()):
            raise AdapterError("podman", f"create {container.name}", "the name is in use")
        await super().create_and_start(container, env, image_id)


class _Hostile(Plane):
    """A control plane that answers each question with what comes next, and forgets."""

    def __init__(self, documents: Iterator[bytes], random: Random) -> None:
        super().__init__(b"")
        self._documents, self._work = documents, mutation.inputs("work_queue.parse", random)

    async def fetch_expected_state(self) -> bytes:
        """The next document."""
        await anyio.lowlevel.checkpoint()
        return next(self._documents)

    async def fetch_work(self) -> bytes:
        """Any items."""
        await anyio.lowlevel.checkpoint()
        return next(self._work)[:_WORK_BYTES]

    async def complete_work(self, item_id: str, error: str | None = None) -> None:
        """As it likes."""
        await anyio.lowlevel.checkpoint()
        json.dumps([item_id, error])

    async def post_status(self, body: bytes) -> None:
        """A report, which must be whole."""
        await super().post_status(body)
        del self.reports[:-_KEPT]


_WORK_BYTES: Final = 2_000
_GOOD_DOCUMENT: Final = json.dumps(wanting("a", "b", "c")).encode()


def _documents(random: Random, longest: int) -> Iterator[bytes]:
    """Hostile ones of at most so many bytes, good ones among them, and large ones of either kind, of which the first is the largest."""
    one_of_each = json.dumps(an_expected_document([a_container_entry(ipAddress=None, ports=[])])).encode()
    for number, raw in enumerate(mutation.inputs(_PARSER, random), start=1):
        if number == _FIRST_LARGE:
            yield mutation.enlarged(one_of_each, _LARGE_BYTES[-1])
        elif number % _LARGE == _FIRST_LARGE:
            yield mutation.enlarged(random.choice((one_of_each, raw[:longest])), random.randint(*_LARGE_BYTES))
        else:
            yield _GOOD_DOCUMENT if number % _GOOD == 0 else raw[:longest]


def run(count: int, seed: int = 1, longest: int = 64 * 1024) -> Outcome:
    """Have the daemon poll so many documents of at most so many bytes, but for the large ones."""
    random = Random(seed)
    asked = itertools.count(1)
    enough = anyio.Event()
    memory: list[int] = []

    def documents() -> Iterator[bytes]:
        for number, raw in zip(asked, _documents(random, longest), strict=False):
            yield raw
            if number in (max(1, count // 10), count):
                yield from [_GOOD_DOCUMENT] * _SETTLING
                memory.append(_resident_bytes())
            if number >= count:
                enough.set()

    clock = _Watched()
    with tempfile.TemporaryDirectory() as folder:
        scenery = Scenery(Path(folder), wanting("a"), node_type=NodeType.PROXY)
        scenery.plane = _Hostile(documents(), random)
        scenery.stage.podman = _Engine(scenery.stage.journal)
        failing: list[Any] = []

        async def main() -> None:
            daemon = Daemon(scenery.node, lambda state, effects: _forget(scenery), Ledger(Path(folder)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(daemon.run)
                while not enough.is_set():
                    await daemon.reconcile.wake()
                    json.dumps(daemon.overview())
                    await anyio.sleep(1.0)
                failing.extend(f"{one.part}: {one.reason}" for one in daemon.parts.failing)
                await daemon.reconcile.stop()

        before = {part: FIGURES.counts[METRIC, (("part", part),)] for part in PARTS}
        virtual_time.run(main, clock)
        failing += [part for part in PARTS if FIGURES.counts[METRIC, (("part", part),)] != before[part]]
    polls = {word: FIGURES.counts["techulus_polls", (("outcome", word),)] for word in ("ok", "failed")}
    return Outcome(count, polls, clock.slowest_s, memory[-1] - memory[0], tuple(failing))


def _forget(scenery: Scenery) -> None:
    del scenery.stage.journal[:-_KEPT]


def _resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main(arguments: list[str]) -> int:
    """1 when anything is not as it should be."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.daemon", description=__doc__)
    options.add_argument("--documents", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--size", type=int, default=64 * 1024)
    told = options.parse_args(arguments)
    if ONE_ARENA[0] not in os.environ:  # as the daemon has it, from its start on
        os.execve(sys.executable, [*sys.orig_argv], {**os.environ, **dict((ONE_ARENA,))})
    log.set_up(LogFormat.JSON, LogLevel.ERROR)
    outcome = run(told.documents, told.seed, told.size)
    print(outcome)
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
