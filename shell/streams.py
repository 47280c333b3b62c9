"""The three standard streams of a process."""

import atexit
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from shell.figures import FIGURES

LOST_LINES: Final = "techulus_stderr_lines_lost"
MOST_QUEUED_BYTES: Final = 1024**2  # some thousand lines; a reader that is merely slow has read them within a second
_PIECE_BYTES: Final = 4096  # what a pipe takes whole or not at all
_DRAIN_S: Final = 1.0  # of the ten seconds in which a stop must be done


def complete() -> None:
    """Open those that whoever started this process has closed: the next file would get their numbers, and what is said would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a name that the locale cannot spell must not end a plan in the middle


class QueuedStream(io.TextIOBase):
    """Text for an open file, written by a thread of its own: whoever writes never waits for a reader.

    What does not fit in the queue, and what the file does not take, is lost and counted; `notice` makes the line that says how many lines
    were, as soon as the file takes it. (Making the file itself non-blocking would make it so for every process that has it open.)
    """

    def __init__(self, descriptor: int, notice: Callable[[int], str], most_bytes: int = MOST_QUEUED_BYTES) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._most_bytes = most_bytes
        self._queue: deque[tuple[bytes, int, bool]] = (
            deque()
        )  # text, the lines that are lost with it, whether they were counted
        self._size = 0
        self._lost = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="standard error", daemon=True).start()

    def fileno(self) -> int:
        """The file below; nobody should write to it."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Queue; never waits, never fails."""
        content = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._size + len(content) > self._most_bytes:
                self._lose(content.count(b"\n"), is_counted=False)
            else:
                self._say_lost()
                self._add(content, content.count(b"\n"), is_counted=False)
        return len(text)

    def drain(self, limit_s: float) -> bool:
        """Wait until everything is written, so long at most; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, limit_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                content, lines, is_counted = self._queue[0]
            is_written = _write(self._descriptor, content)
            with self._changed:
                self._queue.popleft()
                self._size -= len(content)
                if not is_written:
                    self._lose(lines, is_counted)
                elif not self._queue:
                    self._say_lost()
                self._changed.notify_all()

    def _add(self, content: bytes, lines: int, is_counted: bool) -> None:
        self._queue.append((content, lines, is_counted))
        self._size += len(content)
        self._changed.notify_all()

    def _lose(self, lines: int, is_counted: bool) -> None:
        self._lost += lines
        FIGURES.add(LOST_LINES, 0 if is_counted else lines)

    def _say_lost(self) -> None:
        if self._lost:
            lines, self._lost = self._lost, 0
            self._add(self._notice(lines).encode("utf-8", "backslashreplace"), lines, is_counted=True)


def _write(descriptor: int, content: bytes) -> bool:
    """Write all of it, however long that takes; whether it was taken."""
    while content:
        try:
            content = content[os.write(descriptor, content[:_PIECE_BYTES]) :]
        except BlockingIOError:  # another process has made the file so
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()
        except OSError:
            return False
    return True


def detach_stderr(notice: Callable[[int], str]) -> None:
    """From now on nothing in this process waits for whoever reads standard error; a stream in its place stays there.

    What is said last is written before the interpreter ends, unless nobody reads it.
    """
    if sys.stderr is sys.__stderr__:
        sys.stderr = QueuedStream(2, notice)
        atexit.register(drain)


def drain() -> None:
    """At the end of the process: have what was said written, unless nobody reads it."""
    if isinstance(sys.stderr, QueuedStream):
        sys.stderr.drain(_DRAIN_S)
