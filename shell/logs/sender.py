"""Batches to the log store, one at a time, in order. A batch is safe when the store has taken it or the disk has it.

The spool is used in threads, one use at a time: a disk that is slow or hangs holds up the logs and nothing else.

A store that is slow, away or broken holds nobody up: what comes meanwhile waits on disk. A batch that is refused is split until the lines
at fault are found; those are left out, and counted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from shell.adapters.victorialogs import LogsError, Store, send_each
from shell.log import logger
from shell.logs.spool import Batch, Spool
from shell.parts import Turned, no_turn

P = ParamSpec("P")
T = TypeVar("T")

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
_TRY_AGAIN_S: Final = 1.0


@dataclass
class Counts:
    """What became of lines and requests since the start."""

    sent: int = 0
    spooled: int = 0
    dropped: int = 0
    refused: int = 0
    errors: int = 0


@dataclass
class Entry:
    """A batch that is being sent; whether the disk has it, too; and whether it is safe."""

    batch: Batch
    is_kept: bool = False
    safe: anyio.Event = field(default_factory=anyio.Event)


class Sender:
    """Takes batches with `offer`; sends them in `run`."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self.counts = Counts()
        self.spool = spool
        self._store = store
        self._number = spool.last_number
        self._in_memory: Entry | None = None
        self._turn = anyio.Lock()  # held by whoever uses the spool or changes `_in_memory`
        self._wake = anyio.Event()
        self._ending = anyio.Event()
        self._ended = anyio.Event()
        self._complaint: str | None = None
        self._refusal: str | None = None

    async def offer(self, content: bytes, lines: int) -> Entry:
        """Have whole lines sent. What is handed over while another batch is on its way goes to the disk, and so does that one."""
        self._number += 1
        entry = Entry(Batch(self._number, lines, content))
        await self._take(entry)
        return entry

    async def insist(self, entry: Entry) -> None:
        """Returns when a batch is on its way or safe: when neither the store nor the disk took it, that is tried until one does."""
        while entry is not self._in_memory and not entry.safe.is_set():
            with anyio.move_on_after(_TRY_AGAIN_S):
                await entry.safe.wait()
            await self._take(entry)

    async def run(self, turned: Turned = no_turn) -> None:
        """Send until `end`."""
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            self._wake = anyio.Event()  # set by whatever comes from here on
            entry = await self._next()
            if entry is None:
                turned()
                await self._wake.wait()
                continue
            try:
                await self._send(entry.batch.content, entry.batch.lines)
            except LogsError as error:
                await self._put_aside(entry, error)
                with anyio.move_on_after(pause_s):
                    await self._ending.wait()
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = FIRST_PAUSE_S
                await self._settle(entry)
            turned()
        self._ended.set()

    async def end(self) -> None:
        """Send nothing more; returns when it is known what became of the batch that is being sent."""
        self._ending.set()
        self._wake.set()
        await self._ended.wait()

    async def _take(self, entry: Entry) -> None:
        async with self._turn:
            if self._in_memory is None and not len(self.spool):  # the store has taken what was before it
                self._in_memory = entry
                self._wake.set()
            else:
                await self._try_to_keep(entry)

    async def _next(self) -> Entry | None:
        async with self._turn:
            if self._in_memory is not None or not len(self.spool):
                return self._in_memory
            batch = await _in_a_thread(self.spool.oldest)
            return None if batch is None else Entry(batch, is_kept=True)

    async def _send(self, content: bytes, lines: int) -> None:
        before = self.counts.refused
        try:
            await send_each(self._store, content, self._refused)
        except LogsError:
            self.counts.errors += 1
            raise
        self.counts.sent += lines - (self.counts.refused - before)

    def _refused(self, line: bytes, error: LogsError) -> None:
        self.counts.refused += 1
        self.counts.errors += 1
        if self._refusal != error.why:
            self._refusal = error.why
            logger().warning("log line refused", why=error.why, bytes=len(line), then="it is left out", ship=False)

    async def _put_aside(self, entry: Entry, error: LogsError) -> None:
        """The store cannot take it now: it waits on disk."""
        self._complain("logs not sent", error.why, "they wait on disk and are sent later")
        async with self._turn:
            if self._in_memory is not entry:
                return
            await self._try_to_keep(entry)
            if entry.is_kept:
                self._in_memory = None

    async def _settle(self, entry: Entry) -> None:
        async with self._turn:
            if entry.is_kept:
                await _in_a_thread(self.spool.remove, entry.batch)
            if self._in_memory is entry:
                self._in_memory = None
            entry.safe.set()
        if self._complaint is not None and not len(self.spool):
            self._complaint = None
            logger().info("logs go out again", ship=False)

    async def _try_to_keep(self, entry: Entry) -> None:
        try:
            await self._keep_in_order(entry)
        except OSError as error:
            self._complain("logs not kept", str(error), "reading waits until the store or the disk takes them")

    async def _keep_in_order(self, entry: Entry) -> None:
        """Put it on disk, and before it the one that is being sent: a crash must not lose the older of the two."""
        for one in (self._in_memory, entry):
            if one is not None and not one.is_kept:
                dropped = await _in_a_thread(self.spool.add, one.batch)
                one.is_kept = True
                one.safe.set()
                self.counts.spooled += one.batch.lines
                if dropped:
                    self.counts.dropped += dropped
                    logger().warning("log lines dropped", lines=dropped, why="what waits on disk is full", ship=False)
        self._wake.set()

    def _complain(self, event: str, why: str, then: str) -> None:
        if self._complaint != why:
            self._complaint = why
            logger().warning(event, why=why, then=then, ship=False)


async def _in_a_thread(use: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Left behind when the agent ends: a disk that hangs must not hold up a stop.
    return await anyio.to_thread.run_sync(partial(use, *args, **kwargs), abandon_on_cancel=True)
