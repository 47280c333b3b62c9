"""Batches to the log store, in the order in which they came, two under way at a time.

What the store acknowledges it may still lose: VictoriaLogs holds the last seconds in its memory and, killed, forgets them. So a batch stays
here, or on disk, until it is settled: acknowledged `settle_s` ago by an instance of the store that still runs then. When another instance
answers, everything that is acknowledged and not settled is sent again. An instance is known by its start time; where the store does not
tell it, a connection that was refused or reset counts as a restart.

A batch is taken when the store has acknowledged it or the disk has it, and safe when it is settled or the disk has it.

A store that is slow, away or broken holds nobody up: what comes meanwhile waits on disk. A batch that is refused is split until the lines
at fault are found; those are left out, and counted. The spool is used in threads, one use at a time: a disk that is slow or hangs holds up
the logs and nothing else.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from shell.adapters.victorialogs import LogsError, Store, pack, send_each
from shell.log import logger
from shell.logs.spool import Batch, Spool
from shell.parts import Turned, no_turn

P = ParamSpec("P")
T = TypeVar("T")

UNDER_WAY: Final = 2  # the store works on one while the other is compressed and transmitted
QUEUE: Final = 8  # batches in memory that are not acknowledged; more of them wait on disk
MEMORY_BYTES: Final = 16 * 1024**2  # packed; what is acknowledged and not settled goes to the disk beyond
MEMORY_BATCHES: Final = 256  # more than ten seconds bring at any rate that was measured
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
_TRY_AGAIN_S: Final = 1.0
_CHECKS_PER_SETTLE: Final = (
    4  # a batch is settled a quarter of `settle_s` late at most, and the store is asked that rarely
)
_EARLIER_INSTANCES: Final = 16


@dataclass
class Counts:
    """What became of lines and requests since the start."""

    sent: int = 0
    spooled: int = 0
    dropped: int = 0
    refused: int = 0
    repeated: int = 0
    errors: int = 0


@dataclass
class Entry:
    """A batch: its packed content (while memory has it), whether the disk has it, whether it is taken, and whether it is safe."""

    number: int
    lines: int
    content: bytes
    is_kept: bool = False
    taken: anyio.Event = field(default_factory=anyio.Event)
    safe: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class _Acknowledged:
    """A batch that the store may still lose, and since when."""

    entry: Entry
    at_s: float


class Sender:
    """Takes batches with `offer`; sends them in `run`. With `settle_s` 0 what is acknowledged is settled."""

    def __init__(self, store: Store, spool: Spool, settle_s: float = 0.0) -> None:
        self.counts = Counts()
        self.spool = spool
        self._store = store
        self._settle_s = settle_s
        self._number = spool.last_number
        self._memory: dict[int, Entry] = {}  # what the disk does not have: the newest
        self._under_way: set[int] = set()
        self._unsettled: dict[int, _Acknowledged] = {}
        self._instance: int | None = None
        self._earlier: deque[int] = deque(maxlen=_EARLIER_INSTANCES)
        self._is_asked = False
        self._is_suspect = False
        self._epoch = 0  # of instances of the store
        self._is_well = True
        self._pause_s = FIRST_PAUSE_S
        self._turn = anyio.Lock()  # held by whoever uses the spool or changes what is above
        self._starting = anyio.Lock()  # requests begin in order
        self._asking = anyio.Lock()
        self._wake = anyio.Event()
        self._ending = anyio.Event()
        self._ended = anyio.Event()
        self._complaint: str | None = None
        self._refusal: str | None = None
        self._inherit()

    @property
    def waiting_lines(self) -> int:
        """Lines on disk that the store has not acknowledged."""
        return self.spool.lines - sum(one.entry.lines for one in self._unsettled.values() if one.entry.is_kept)

    @property
    def is_behind(self) -> bool:
        """Whether batches wait on disk to be sent."""
        return self.spool.has_other_than(self._unsettled)

    async def offer(self, lines: bytes, count: int) -> Entry:
        """Have whole lines sent. What is handed over while many are not acknowledged goes to the disk, and so does everything before it."""
        self._number += 1
        entry = Entry(self._number, count, lines)
        await self._take(entry)
        return entry

    async def insist(self, entry: Entry) -> None:
        """Returns when a batch is on its way or taken: when neither the store nor the disk took it, that is tried until one does."""
        while entry.number not in self._memory and not entry.taken.is_set():
            with anyio.move_on_after(_TRY_AGAIN_S):
                await entry.taken.wait()
            await self._take(entry)

    async def keep(self) -> None:
        """Put everything in memory on disk, if that takes it."""
        async with self._turn:
            await self._try_to_keep()

    async def run(self, turned: Turned = no_turn) -> None:
        """Send until `end`."""
        self._under_way.clear()
        for one in self._unsettled.values():  # of an agent before this one: its clock was another
            one.at_s = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(UNDER_WAY):
                tasks.start_soon(self._work, turned)
            if self._settle_s:
                tasks.start_soon(self._settle_in_time)
            await self._ending.wait()
            tasks.cancel_scope.cancel()
        self._ended.set()

    async def end(self) -> None:
        """Send nothing more. What is not settled, and what has no answer yet, goes to the disk for the next agent."""
        self._ending.set()
        await self._ended.wait()
        await self.keep()
        async with self._turn:
            for number, one in self._unsettled.items():
                if one.entry.is_kept:
                    await self._try_to_mark(number)

    def _inherit(self) -> None:
        """Of what an agent before this one has marked as acknowledged, the newest instance's part is not sent unless that has restarted."""
        marked = self.spool.acknowledged()
        if not marked or not self._settle_s:
            return
        instance = marked[max(marked)][1]
        self._instance = instance or None
        for number, (lines, acknowledged_by) in marked.items():
            if acknowledged_by == instance:
                self._unsettled[number] = _Acknowledged(Entry(number, lines, b"", is_kept=True), 0.0)

    async def _take(self, entry: Entry) -> None:
        async with self._turn:
            unsent = sum(number not in self._unsettled for number in self._memory)
            if unsent < QUEUE and not self.is_behind:
                self._memory[entry.number] = entry
                self._notify()
            else:
                await self._try_to_keep(entry)

    def _notify(self) -> None:
        self._wake.set()
        self._wake = anyio.Event()

    async def _work(self, turned: Turned) -> None:
        """One of those that send."""
        while True:
            wake = self._wake  # set by whatever comes from here on
            entry = await self._next()
            if entry is None:
                turned()
                await wake.wait()
                continue
            try:
                await self._send(entry)
            except LogsError as error:
                self._is_well, self._is_suspect = False, self._is_suspect or error.is_unreached
                self._complain("logs not sent", error.why, "they wait on disk and are sent later")
                await self.keep()
                await anyio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._under_way.discard(entry.number)
            self._notify()
            turned()

    async def _next(self) -> Entry | None:
        """What to send now: the oldest. A store that is not well is tried with one at a time."""
        async with self._turn:
            if self._under_way and not self._is_well:
                return None
            skipped = {*self._under_way, *self._unsettled}
            found: Entry | None = None
            if self.spool.has_other_than(skipped):
                batch = await _in_a_thread(self.spool.oldest, skipped)
                found = None if batch is None else Entry(batch.number, batch.lines, batch.content, is_kept=True)
            else:
                found = next((one for number, one in self._memory.items() if number not in skipped), None)
            if found is not None:
                self._under_way.add(found.number)
            return found

    async def _send(self, entry: Entry) -> None:
        """Raises LogsError."""
        refused = 0

        def on_refused(line: bytes, error: LogsError) -> None:
            nonlocal refused
            refused += 1
            self._on_refused(line, error)

        try:
            async with self._starting:
                if self._settle_s:
                    await self._identify()
                epoch = self._epoch
                entry.content = await _in_a_thread(pack, entry.content)
            await send_each(self._store, entry.content, on_refused)
        except LogsError:
            self.counts.errors += 1
            raise
        self.counts.sent += entry.lines - refused
        self._is_well, self._pause_s = True, FIRST_PAUSE_S
        await self._on_acknowledged(entry, epoch)

    def _on_refused(self, line: bytes, error: LogsError) -> None:
        self.counts.refused += 1
        self.counts.errors += 1
        if self._refusal != error.why:
            self._refusal = error.why
            logger().warning("log line refused", why=error.why, bytes=len(line), then="it is left out", ship=False)

    async def _on_acknowledged(self, entry: Entry, epoch: int) -> None:
        """Unless the instance that has acknowledged it is known to have gone: then it is sent again."""
        async with self._turn:
            if epoch == self._epoch:
                self._unsettled[entry.number] = _Acknowledged(entry, anyio.current_time())
                entry.taken.set()
                if entry.is_kept:
                    entry.content = b""
                if not self._settle_s:
                    await self._settle(entry.number)
                await self._bound_memory()
        if self._complaint is not None and not self.is_behind:
            self._complaint = None
            logger().info("logs go out again", ship=False)

    async def _bound_memory(self) -> None:
        """Put it on disk when it is too much; what the disk does not take either is let go as if it were settled."""
        if self._is_memory_full():
            await self._try_to_keep()
        while self._is_memory_full():
            number = next((number for number in self._memory if number in self._unsettled), None)
            if number is None:
                return
            await self._settle(number)

    def _is_memory_full(self) -> bool:
        size_bytes = sum(len(one.content) for one in self._memory.values())
        return size_bytes > MEMORY_BYTES or len(self._memory) > MEMORY_BATCHES

    async def _settle_in_time(self) -> None:
        """Let go of what the store has had for long enough, as long as it is the same."""
        while True:
            await anyio.sleep(self._settle_s / _CHECKS_PER_SETTLE)
            due_s = anyio.current_time() - self._settle_s
            if not any(one.at_s <= due_s for one in self._unsettled.values()):
                continue
            try:
                await self._identify(again=True)
            except LogsError as error:
                self._is_suspect = self._is_suspect or error.is_unreached
                continue  # it is asked again before anything is sent, and here
            async with self._turn:
                for number in [number for number, one in self._unsettled.items() if one.at_s <= due_s]:
                    await self._settle(number)

    async def _settle(self, number: int) -> None:
        one = self._unsettled[number]
        if one.entry.is_kept:
            await _in_a_thread(self.spool.remove, number)
        self._memory.pop(number, None)
        self._unsettled.pop(number)
        one.entry.safe.set()

    async def _identify(self, *, again: bool = False) -> None:
        """Find out which instance of the store answers now, when that may have changed or is asked for. Raises LogsError.

        A store that has told none is not asked again.
        """
        async with self._asking:
            if self._is_asked and not again and not self._is_suspect:
                return
            told = self._instance
            if told is not None or not self._is_asked:
                told = await self._store.instance()
            is_other = told != self._instance
            if is_other and told in self._earlier:  # several stores behind one address: what they tell tells nothing
                told, is_other = None, False
            if is_other or (told is None and self._is_suspect):
                await self._send_again()
            if is_other and told is not None:
                self._earlier.append(told)
            self._instance, self._is_asked, self._is_suspect = told, True, False

    async def _send_again(self) -> None:
        """Whatever is acknowledged and not settled."""
        async with self._turn:
            self._epoch += 1
            lines = sum(one.entry.lines for one in self._unsettled.values())
            self._unsettled.clear()
        if lines:
            self.counts.repeated += lines
            then = f"what it acknowledged in its last {self._settle_s:g} s is sent again"
            logger().warning("log store restarted", lines=lines, then=then, ship=False)
            self._notify()

    async def _try_to_keep(self, *newest: Entry) -> None:
        try:
            await self._keep_in_order(*newest)
        except OSError as error:
            self._complain("logs not kept", str(error), "reading waits until the store or the disk takes them")

    async def _keep_in_order(self, *newest: Entry) -> None:
        """Put everything in memory on disk, the oldest first: a crash must not lose an older batch than one that is safe."""
        for one in (*self._memory.values(), *newest):
            one.content = await _in_a_thread(pack, one.content)
            dropped = await _in_a_thread(self.spool.add, Batch(one.number, one.lines, one.content))
            one.is_kept = True
            one.taken.set()
            one.safe.set()
            self._memory.pop(one.number, None)
            self.counts.spooled += one.lines
            if one.number in self._unsettled:
                one.content = b""
            self._count_dropped(dropped)
        self._notify()

    def _count_dropped(self, dropped: list[tuple[int, int]]) -> None:
        """Those that the store has acknowledged are as good as settled."""
        lost = sum(lines for number, lines in dropped if self._unsettled.pop(number, None) is None)
        if lost:
            self.counts.dropped += lost
            logger().warning("log lines dropped", lines=lost, why="what waits on disk is full", ship=False)

    async def _try_to_mark(self, number: int) -> None:
        try:
            await _in_a_thread(self.spool.mark, number, self._instance or 0)
        except OSError as error:
            self._complain("logs not marked as sent", str(error), "they are sent again by the next agent")

    def _complain(self, event: str, why: str, then: str) -> None:
        if self._complaint != why:
            self._complaint = why
            logger().warning(event, why=why, then=then, ship=False)


async def _in_a_thread(use: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Left behind when the agent ends: a disk that hangs must not hold up a stop.
    return await anyio.to_thread.run_sync(partial(use, *args, **kwargs), abandon_on_cancel=True)
