"""From the files to batches: reads what is new of every log in turn, a little of each, and hands over what has come together.

A position is kept when the lines before it are safe: a process that is killed loses nothing and repeats one batch at most, one that is
asked to end repeats none.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread

from core.container_log import Begun
from shell.log import logger
from shell.logs.positions import Positions
from shell.logs.sender import Entry, Sender
from shell.logs.tail import Position, Tail
from shell.parts import PartError, Parts, Turned, no_turn

BATCH_BYTES: Final = 1024**2
BATCH_AGE_S: Final = 1.0
WAITING_AGE_S: Final = 10.0  # while batches wait on disk: each is a file
READ_BYTES: Final = 128 * 1024
BUSY_PAUSE_S: Final = 0.1
IDLE_PAUSE_S: Final = 0.5


class Form(Protocol):
    """What turns a file's bytes into encoded lines."""

    @property
    def last_ns(self) -> int:
        """The time of the last line."""

    @property
    def lines(self) -> int:
        """How many lines have come out."""

    @property
    def held_bytes(self) -> int:
        """Bytes at the end of what was fed that are no whole line of the file yet."""

    @property
    def begun(self) -> Begun:
        """The lines of which only a part has come."""

    def feed(self, chunk: bytes) -> bytes:
        """The lines that are whole now."""

    def end(self) -> bytes:
        """What is left when the file is complete."""


@dataclass
class Log:
    """One log that is followed. `is_over`: nothing more will be written, so it is left once it is `is_complete`, read to its end."""

    tail: Tail
    form: Form
    is_over: bool = False
    is_complete: bool = False
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class _Handed:
    """A batch, and what follows once it is safe: how far each log was read, which are done with, and who waits for it."""

    entry: Entry
    reached: dict[str, Position | None]
    complete: tuple[str, ...]
    waiting: tuple[anyio.Event, ...]


Extra = Callable[[], tuple[bytes, int]]
"""Lines that come from no file (the agent's own): encoded, and how many."""


@dataclass
class Pump:
    """Reads `logs`, by key, and `extra`; hands batches to the sender."""

    sender: Sender
    positions: Positions
    extra: Extra = lambda: (b"", 0)
    logs: dict[str, Log] = field(default_factory=dict)
    read_lines: int = 0
    parts: Parts = field(default_factory=Parts)
    _content: list[bytes] = field(default_factory=list)
    _size: int = 0
    _lines: int = 0
    _born_at: float = 0.0
    _on_its_way: _Handed | None = None
    _next: int = 0
    _asked: list[anyio.Event] = field(default_factory=list)
    _answered: list[anyio.Event] = field(default_factory=list)  # those who asked before what is in hand was read
    _hurry: anyio.Event = field(default_factory=anyio.Event)
    _is_ending: bool = False
    _ended: anyio.Event = field(default_factory=anyio.Event)

    def follow(self, key: str, path: Path, make: Callable[[int, Begun], Form]) -> None:
        """Follow a file from where it was left. `make` gets the time of the last line before, and the lines that have begun."""
        start = self.positions.get(path)
        form = make(0, ()) if start is None else make(start.last_ns, start.begun)
        self.logs[key] = Log(Tail(path, start), form)

    def leave(self, keys: Iterable[str]) -> None:
        """Nothing more will be written to these."""
        for key in keys:
            if key in self.logs:
                self.logs[key].is_over = True

    async def run(self, discover: Callable[[], Awaitable[None]], turned: Turned = no_turn) -> None:
        """Read and hand over until `end`; `discover` finds out which logs there are, before each round."""
        while not self._is_ending:
            await discover()
            asked, self._asked = self._asked, []
            has_more = await anyio.to_thread.run_sync(self._round)
            (self._asked if has_more else self._answered).extend(one for one in asked if not one.is_set())
            if self._is_due():
                await self._hand_over()
            await self._note_safe()
            if not self._size and self._on_its_way is None:
                await self._drop(self._complete())
                self._answer()
            if not has_more:
                with anyio.move_on_after(BUSY_PAUSE_S if self._size or self._on_its_way else IDLE_PAUSE_S):
                    await self._hurry.wait()
                self._hurry = anyio.Event()
            turned()
        self._add(*self.extra())  # the agent's last words
        if self._size:
            await self._hand_over()  # to the disk, if another batch is on its way
        if self._on_its_way is not None:
            await self._on_its_way.entry.safe.wait()
            await self._note_safe()
        self._ended.set()

    async def end(self) -> None:
        """Read nothing more; returns when what was read is safe, and known to be."""
        self._is_ending = True
        self._hurry.set()
        await self._ended.wait()
        await self.sender.end()

    async def drained(self, limit_s: float) -> None:
        """Returns when what stands in the logs now is safe, or when the limit is over."""
        safe = anyio.Event()
        self._asked.append(safe)  # for the next round: the one that goes on now may have passed some already
        self._hurry.set()
        with anyio.move_on_after(limit_s):
            await safe.wait()
        safe.set()  # nobody waits any more

    def _round(self) -> bool:
        """Read a little of everything; whether there is more."""
        content, lines = self.extra()
        self._add(content, lines)
        has_more = False
        turn = [*self.logs][self._next :] + [*self.logs][
            : self._next
        ]  # a full batch ends the round: another is first in the next
        for number, key in enumerate(turn):
            if self._size >= BATCH_BYTES:
                self._next = (self._next + number) % len(turn)
                return True
            with suppress(PartError), self.parts.contained("logs", key):  # what is wrong with one holds up no other
                has_more = self._read(self.logs[key]) or has_more
        return has_more

    def _read(self, log: Log) -> bool:
        before = log.form.lines
        try:
            chunk = log.tail.read(READ_BYTES)
        except OSError as error:
            if log.complaint != str(error):
                log.complaint = str(error)
                logger().warning(
                    "log not read", path=str(log.tail.path), why=str(error), then="tried again", ship=False
                )
            log.is_complete = log.is_over
            return False
        found = b""
        if log.tail.missed:
            log.tail.missed = 0
            found = log.form.end()  # what had begun there has its end there
            why = "the file was replaced while nobody read it"
            logger().warning("log lines missed", path=str(log.tail.path), why=why, ship=False)
        found += log.form.feed(chunk) if chunk else b""
        if not chunk and log.is_over:
            found += log.form.end()
            log.is_complete = True
        self._add(found, log.form.lines - before)
        return len(chunk) == READ_BYTES

    def _add(self, content: bytes, lines: int) -> None:
        if not content:
            return
        if not self._content:
            self._born_at = time.monotonic()
        self._content.append(content)
        self._size += len(content)
        self._lines += lines
        self.read_lines += lines

    def _is_due(self) -> bool:
        if not self._size:
            return False
        age_s = WAITING_AGE_S if len(self.sender.spool) else BATCH_AGE_S
        old = time.monotonic() - self._born_at >= age_s
        return old or self._size >= BATCH_BYTES or bool(self._answered or self._asked)

    async def _hand_over(self) -> None:
        content, lines = b"".join(self._content), self._lines
        self._content, self._size, self._lines = [], 0, 0
        entry = await self.sender.offer(content, lines)
        earlier = self._on_its_way.waiting if self._on_its_way is not None else ()  # that one is safe before this is
        self._on_its_way = _Handed(entry, self._reached(), self._complete(), (*earlier, *self._answered))
        self._answered = []
        await self.sender.insist(entry)

    async def _note_safe(self) -> None:
        """Keep the positions that the last batch has reached, once it is safe."""
        if self._on_its_way is not None and self._on_its_way.entry.safe.is_set():
            handed, self._on_its_way = self._on_its_way, None
            await self.positions.keep(handed.reached)
            await self._drop(handed.complete)
            for one in handed.waiting:
                one.set()

    def _reached(self) -> dict[str, Position | None]:
        return {
            str(log.tail.path): log.tail.position(log.form.held_bytes, log.form.last_ns, log.form.begun)
            for log in self.logs.values()
        }

    def _complete(self) -> tuple[str, ...]:
        """The logs that are over and read to their end."""
        return tuple(key for key, log in self.logs.items() if log.is_complete)

    def _answer(self) -> None:
        """Nothing that was read is on its way."""
        for one in self._answered:
            one.set()
        self._answered = []

    async def _drop(self, keys: tuple[str, ...]) -> None:
        """Leave these logs."""
        forgotten: dict[str, Position | None] = {}
        for key in keys:
            log = self.logs.pop(key)
            log.tail.close()
            forgotten[str(log.tail.path)] = None
        if forgotten:
            await self.positions.keep(forgotten)

    def figures(self) -> Mapping[str, int]:
        """What a person may want to know."""
        counts = self.sender.counts
        return {
            "followed": len(self.logs),
            "read": self.read_lines,
            "sent": counts.sent,
            "waiting": self.sender.spool.lines,
            "dropped": counts.dropped,
            "refused": counts.refused,
            "spooled": counts.spooled,
            "errors": counts.errors,
        }
