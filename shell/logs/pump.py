"""From the files to batches: reads what is new of every log in turn, a little of each, and hands over what has come together.

A position is kept when the lines before it are safe (`shell.logs.sender`): a process that is killed loses nothing and repeats what was not
settled, one that is asked to end repeats nothing.
"""

import time
from collections import deque
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
ANSWER_S: Final = 1.5  # at the end; a store that takes longer may get its last batches twice


class Form(Protocol):
    """What turns a file's bytes into encoded lines."""

    @property
    def last_ns(self) -> int:
        """The time of the last line."""

    @property
    def lines(self) -> int:
        """How many lines have come out."""

    @property
    def nul_bytes(self) -> int:
        """How many NUL bytes were left out."""

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
    """One log that is followed. `is_over`: nothing more will be written, so it is left once it is `is_complete`, read to its end.

    `remove` is called in a thread once all of it is safe.
    """

    tail: Tail
    form: Form
    remove: Callable[[], None] | None = None
    is_over: bool = False
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class _Handed:
    """A batch: who waits until it is taken, and what follows once it is safe: how far each log was read, and which are done with."""

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
    nul_bytes: int = 0
    parts: Parts = field(default_factory=Parts)
    _content: list[bytes] = field(default_factory=list)
    _size: int = 0
    _lines: int = 0
    _born_at: float = 0.0
    _handed: deque[_Handed] = field(default_factory=deque)  # what is not safe yet, oldest first
    _complaints: dict[str, str] = field(default_factory=dict)  # by path: a log that is not removed is followed again
    _last_reached: Mapping[str, Position | None] = field(default_factory=dict)
    _next: int = 0
    _asked: list[anyio.Event] = field(default_factory=list)
    _answered: list[anyio.Event] = field(default_factory=list)  # those who asked before what is in hand was read
    _hurry: anyio.Event = field(default_factory=anyio.Event)
    _is_ending: bool = False
    _ended: anyio.Event = field(default_factory=anyio.Event)

    def follow(
        self, key: str, path: Path, make: Callable[[int, Begun], Form],
        *, is_new_only: bool = False, remove: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Follow a file from where it was left. `make` gets the time of the last line before, and the lines that have begun.

        With `is_new_only` one that nobody has followed before and that is there already is followed from its end. `remove` removes it.
        """
        start = self.positions.get(path)
        form = make(0, ()) if start is None else make(start.last_ns, start.begun)
        self.logs[key] = Log(Tail(path, start, is_new_only=is_new_only), form, remove)

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
            if not self._size:
                await self._on_all_handed()
            if not has_more:
                with anyio.move_on_after(BUSY_PAUSE_S if self._size or self._is_awaited() else IDLE_PAUSE_S):
                    await self._hurry.wait()
                self._hurry = anyio.Event()
            turned()
        self._add(*self.extra())  # the agent's last words
        if self._size:
            await self._hand_over()
        self._ended.set()

    async def end(self) -> None:
        """Read nothing more; returns when what was read is safe, and known to be."""
        self._is_ending = True
        self._hurry.set()
        await self._ended.wait()
        with anyio.move_on_after(ANSWER_S):
            for one in self._handed:
                await one.entry.taken.wait()
        await self.sender.end()
        await self._note_safe()

    async def drained(self, limit_s: float) -> None:
        """Returns when what stands in the logs now is taken by the store or the disk, or when the limit is over."""
        taken = anyio.Event()
        self._asked.append(taken)  # for the next round: the one that goes on now may have passed some already
        self._hurry.set()
        with anyio.move_on_after(limit_s):
            with anyio.move_on_after(limit_s / 2):
                await taken.wait()
            if not taken.is_set():
                await self.sender.keep()  # the store takes its time
            await taken.wait()
        taken.set()  # nobody waits any more

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
        before, nuls_before = log.form.lines, log.form.nul_bytes
        try:
            chunk = log.tail.read(READ_BYTES)
        except OSError as error:
            self._complain("log not read", log, error)
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
        self._note_nuls(log, nuls_before)
        return len(chunk) == READ_BYTES

    def _complain(self, event: str, log: Log, error: OSError) -> None:
        """Once for each reason."""
        path, why = str(log.tail.path), str(error)
        if self._complaints.get(path) != why:
            self._complaints[path] = why
            logger().warning(event, path=path, why=why, then="tried again", ship=False)

    def _note_nuls(self, log: Log, before: int) -> None:
        self.nul_bytes += log.form.nul_bytes - before
        if log.form.nul_bytes and not before:  # once for each file: a container may write them all the time
            then = "left out and counted; a power cut leaves them in a file"
            logger().warning("NUL bytes in a log", path=str(log.tail.path), then=then, ship=False)

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
        age_s = WAITING_AGE_S if self.sender.is_behind else BATCH_AGE_S
        old = time.monotonic() - self._born_at >= age_s
        return old or self._size >= BATCH_BYTES or bool(self._answered or self._asked)

    async def _hand_over(self) -> None:
        content, lines = b"".join(self._content), self._lines
        self._content, self._size, self._lines = [], 0, 0
        entry = await self.sender.offer(content, lines)
        self._handed.append(_Handed(entry, self._reached(), self._complete(), tuple(self._answered)))
        self._answered = []
        await self.sender.insist(entry)

    async def _note_safe(self) -> None:
        """Answer who waits for what is taken; keep the positions that the newest batch has reached before which all are safe."""
        for handed in self._handed:
            if not handed.entry.taken.is_set():
                break
            for one in handed.waiting:
                one.set()
        reached: dict[str, Position | None] = {}
        complete: set[str] = set()
        while self._handed and self._handed[0].entry.safe.is_set():
            safe = self._handed.popleft()
            reached.update(safe.reached)
            complete.update(safe.complete)
        followed = {str(log.tail.path) for log in self.logs.values()}
        if reached := {path: position for path, position in reached.items() if path in followed}:
            await self.positions.keep(reached)
        await self._drop(key for key in sorted(complete) if key in self.logs)

    def _is_awaited(self) -> bool:
        """Whether a batch has no answer yet."""
        return any(not handed.entry.taken.is_set() for handed in self._handed)

    async def _on_all_handed(self) -> None:
        """Nothing is in hand: what was read is taken, safe, or about to be."""
        if not self._is_awaited():
            for one in self._answered:
                one.set()
            self._answered = []
        if not self._handed:
            if reached := self._reached():
                await self.positions.keep(reached)
            await self._drop(self._complete())

    def _reached(self) -> dict[str, Position | None]:
        """How far the logs are read that were read further since this was last asked."""
        reached = {
            str(log.tail.path): log.tail.position(log.form.held_bytes, log.form.last_ns, log.form.begun)
            for log in self.logs.values()
        }
        before, self._last_reached = self._last_reached, reached
        return {path: position for path, position in reached.items() if position != before.get(path)}

    def _complete(self) -> tuple[str, ...]:
        """The logs that are over and read to their end."""
        return tuple(key for key, log in self.logs.items() if log.is_complete)

    async def _drop(self, keys: Iterable[str]) -> None:
        """Leave these logs."""
        forgotten: dict[str, Position | None] = {}
        for key in keys:
            log = self.logs.pop(key)
            log.tail.close()
            if await self._is_removed(log):
                forgotten[str(log.tail.path)] = None
                self._complaints.pop(str(log.tail.path), None)
        if forgotten:
            await self.positions.keep(forgotten)

    async def _is_removed(self, log: Log) -> bool:
        """Whether a log is gone that is to be removed; of one that is not, the position is kept, or all of it would be sent again."""
        try:
            if log.remove is not None:
                await anyio.to_thread.run_sync(log.remove)
        except OSError as error:
            self._complain("log not removed", log, error)
            return False
        return True

    def figures(self) -> Mapping[str, int]:
        """What a person may want to know."""
        counts = self.sender.counts
        return {
            "followed": len(self.logs),
            "read": self.read_lines,
            "sent": counts.sent,
            "waiting": self.sender.waiting_lines,
            "dropped": counts.dropped,
            "refused": counts.refused,
            "repeated": counts.repeated,
            "spooled": counts.spooled,
            "errors": counts.errors,
            "nulBytes": self.nul_bytes,
        }
