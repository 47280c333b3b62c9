"""L56: whoever reads standard error, or does not, costs lines and never the agent."""

import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shell import metrics, streams
from shell.figures import FIGURES
from shell.streams import LOST_LINES, QueuedStream
from tests.lab.wait import PATIENCE_S, wait_for

_PIPE_BYTES = 4096
_LINE = "x" * 99 + "\n"


def notice(count: int) -> str:
    """What the log would say."""
    return f"LOST {count}\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a small one."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    yield read, write
    for end in (read, write):
        try:
            os.close(end)
        except OSError:
            continue


def read_until(descriptor: int, stream: QueuedStream) -> str:
    """All that comes until the stream has nothing left."""
    found = bytearray()
    os.set_blocking(descriptor, False)

    def is_done() -> bool:
        drained = stream.drain(0)
        try:
            found.extend(os.read(descriptor, 1024**2))
        except BlockingIOError:
            return drained
        return False

    wait_for(is_done, PATIENCE_S, "the stream to be read")
    return found.decode()


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """Writing goes on at once, in bounded memory; whoever reads later is told what is missing, where it is missing."""
    read, write = pipe
    stream = QueuedStream(write, notice, most_bytes=50 * len(_LINE))
    lost_before = FIGURES.counts[LOST_LINES, ()]
    for _ in range(10_000):
        stream.write(_LINE)
    assert not stream.drain(0)
    first = read_until(read, stream)
    stream.write("after\n")
    found = first + read_until(read, stream)
    lost = sum(map(int, re.findall("^LOST ([0-9]+)$", found, re.MULTILINE)))  # twice when the pipe took some in between
    assert found.endswith("after\n")
    assert found.count(_LINE) + lost == 10_000
    assert FIGURES.counts[LOST_LINES, ()] - lost_before == lost
    assert LOST_LINES in metrics.COUNTERS


def test_what_was_lost_is_said_without_another_event(pipe: tuple[int, int]) -> None:
    """An idle agent may say nothing for a day."""
    read, write = pipe
    stream = QueuedStream(write, notice, most_bytes=50 * len(_LINE))
    for _ in range(1000):
        stream.write(_LINE)
    assert read_until(read, stream).splitlines()[-1].startswith("LOST ")


def test_a_reader_that_is_gone(pipe: tuple[int, int]) -> None:
    """Its lines are lost, one by one, and nothing else happens."""
    read, write = pipe
    os.close(read)
    stream = QueuedStream(write, notice)
    before = FIGURES.counts[LOST_LINES, ()]
    for _ in range(10):
        stream.write(_LINE)
        assert stream.drain(PATIENCE_S)
    assert FIGURES.counts[LOST_LINES, ()] - before == 10


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """The next line that is taken is preceded by what was lost; a notice that is lost itself loses no number."""
    full, path = os.open("/dev/full", os.O_WRONLY), tmp_path / "log"
    with path.open("wb") as file:
        descriptor = os.dup(full)
        stream = QueuedStream(descriptor, notice)
        for _ in range(3):
            stream.write("lost\n")
            assert stream.drain(PATIENCE_S)
        os.dup2(file.fileno(), descriptor)
        stream.write("kept\n")
        assert stream.drain(PATIENCE_S)
        os.close(descriptor)
    os.close(full)
    assert path.read_text() == "LOST 3\nkept\n"


def test_a_file_that_another_process_made_non_blocking() -> None:
    """A shared terminal may be so: nothing is lost that a reader reads."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = QueuedStream(ours.fileno(), notice, most_bytes=10 * 1024**2)
        for _ in range(20_000):
            stream.write(_LINE)
        assert len(read_until(theirs.fileno(), stream)) == 20_000 * len(_LINE)
        assert not os.get_blocking(ours.fileno()), "the flags are everybody's"


CRASHES = {
    "an exception": "raise RuntimeError('the last words')",
    "in a thread": "import threading; thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()",
    "by leaving": "import sys; from shell.ending import leave; sys.stderr.write('the last words\\n'); leave(1)",
}


@pytest.mark.parametrize("case", CRASHES)
def test_last_words_are_written(case: str) -> None:
    """A trace that ends the process reaches whoever reads."""
    done = _crashing(CRASHES[case], subprocess.PIPE)
    assert "the last words" in done.stderr or "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("case", CRASHES)
def test_an_end_waits_for_nobody(case: str, pipe: tuple[int, int]) -> None:
    """Not for long, when nobody reads what is left to say."""
    _, write = pipe
    os.set_blocking(write, False)
    os.write(write, b"x" * _PIPE_BYTES)
    os.set_blocking(write, True)
    _crashing(CRASHES[case], write)


def _crashing(code: str, stderr: int) -> "subprocess.CompletedProcess[str]":
    begin = "from shell import log, streams; streams.detach_stderr(log.lost_lines)"
    argv = [sys.executable, "-c", f"{begin}\n{code}"]
    return subprocess.run(argv, stderr=stderr, text=True, check=False, timeout=PATIENCE_S)


def test_what_the_daemon_detaches_is_what_the_log_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal it is none; it takes the number of standard error."""
    replaced = sys.stderr
    streams.detach_stderr(notice)
    assert sys.stderr is replaced, "a test's own stream stays"
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    streams.detach_stderr(notice)
    assert isinstance(sys.stderr, QueuedStream)
    assert sys.stderr.fileno() == 2
    assert sys.stderr.writable()
    assert sys.stderr.isatty() == os.isatty(2)
