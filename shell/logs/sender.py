"""Batches to the log store, one at a time, in order. A batch is safe when the store has taken it or the disk has it.

A store that is slow, away or broken holds nobody up: what comes meanwhile waits on disk. A batch that is refused is split until the lines
at fault are found; those are left out, and counted.
"""

from dataclasses import dataclass, field
from typing import Final

import anyio

from shell.adapters.victorialogs import LogsError, Store, send_each
from shell.log import logger
from shell.logs.spool import Batch, Spool
from shell.parts import Turned, no_turn

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
        self._wake = anyio.Event()
        self._ending = anyio.Event()
        self._ended = anyio.Event()
        self._complaint: str | None = None
        self._refusal: str | None = None

    def offer(self, content: bytes, lines: int) -> Entry:
        """Have whole lines sent. What is handed over while another batch is on its way goes to the disk, and so does that one."""
        self._number += 1
        entry = Entry(Batch(self._number, lines, content))
        if self._in_memory is None and not len(self.spool):
            self._in_memory = entry
            self._wake.set()
        else:
            self._try_to_keep(entry)
        return entry

    async def insist(self, entry: Entry) -> None:
        """Returns when a batch is on its way or safe: when neither the store nor the disk took it, that is tried until one does."""
        while entry is not self._in_memory and not entry.safe.is_set():
            with anyio.move_on_after(_TRY_AGAIN_S):
                await entry.safe.wait()
            if self._in_memory is None and not len(self.spool):  # the store has taken what was before it
                self._in_memory = entry
                self._wake.set()
            else:
                self._try_to_keep(entry)

    async def run(self, turned: Turned = no_turn) -> None:
        """Send until `end`."""
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            entry = self._in_memory or self._oldest()
            if entry is None:
                turned()
                self._wake = anyio.Event()
                await self._wake.wait()
                continue
            try:
                await self._send(entry.batch.content, entry.batch.lines)
            except LogsError as error:
                self._put_aside(entry, error)
                with anyio.move_on_after(pause_s):
                    await self._ending.wait()
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = FIRST_PAUSE_S
                self._settle(entry)
            turned()
        self._ended.set()

    async def end(self) -> None:
        """Send nothing more; returns when it is known what became of the batch that is being sent."""
        self._ending.set()
        self._wake.set()
        await self._ended.wait()

    def _oldest(self) -> Entry | None:
        batch = self.spool.oldest()
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

    def _put_aside(self, entry: Entry, error: LogsError) -> None:
        """The store cannot take it now: it waits on disk."""
        self._complain("logs not sent", error.why, "they wait on disk and are sent later")
        if self._in_memory is not entry:
            return
        self._try_to_keep(entry)
        if entry.is_kept:
            self._in_memory = None

    def _settle(self, entry: Entry) -> None:
        if entry.is_kept:
            self.spool.remove(entry.batch)
        if self._in_memory is entry:
            self._in_memory = None
        entry.safe.set()
        if self._complaint is not None and not len(self.spool):
            self._complaint = None
            logger().info("logs go out again", ship=False)

    def _try_to_keep(self, entry: Entry) -> None:
        try:
            self._keep_in_order(entry)
        except OSError as error:
            self._complain("logs not kept", str(error), "reading waits until the store or the disk takes them")

    def _keep_in_order(self, entry: Entry) -> None:
        """Put it on disk, and before it the one that is being sent: a crash must not lose the older of the two."""
        for one in (self._in_memory, entry):
            if one is not None and not one.is_kept:
                dropped = self.spool.add(one.batch)
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
