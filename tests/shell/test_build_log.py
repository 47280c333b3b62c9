"""`shell.building.log`: every line to the store, in order, also when it is away for a while."""

import gzip
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from shell.adapters.victorialogs import LogsError, VictoriaLogs, pack, unpack
from shell.building import log
from shell.building.log import BuildLog
from shell.failure import CommandError
from tests.lab.odd_server import OddServer, answer
from tests.lab.small_disk import fill, fill_inodes, small_disk
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


Open = Callable[..., BuildLog]


class Written(BuildLog):
    """Has each line in the file before the next one is said."""

    def say(self, text: str) -> None:
        """One more line."""
        super().say(text)
        self.write()


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens logs, and closes those that a test leaves open as a crash would."""
    made: list[BuildLog] = []

    def open_log(folder: Path, build_id: str = "b") -> BuildLog:
        made.append(Written(folder, build_id, "s", "p"))
        return made[-1]

    yield open_log
    for one in made:
        one.end()


def left(folder: Path, pattern: str = "*") -> list[Path]:
    """The files in a folder."""
    return list(folder.glob(pattern))


@dataclass
class Store:
    """Takes batches; fails as often as set up."""

    failures: list[LogsError] = field(default_factory=list)
    bad: bytes = b""
    lines: list[dict[str, Any]] = field(default_factory=list)
    batches: int = 0

    async def instance(self) -> int | None:
        """It does not tell."""
        await anyio.lowlevel.checkpoint()
        return None

    async def send(self, body: bytes) -> None:
        """Whole lines only."""
        lines = unpack(body)
        await anyio.lowlevel.checkpoint()
        self.batches += 1
        if self.failures:
            raise self.failures.pop(0)
        if self.bad and self.bad in lines:
            raise LogsError("answered 400", refused=True)
        assert not lines or lines.endswith(b"\n")
        self.lines += [json.loads(line) for line in lines.splitlines()]


def rounds(number: int) -> Callable[[float], Awaitable[None]]:
    """A sleep that takes no time, and ends everything after so many."""
    left = number

    async def sleep(seconds: float) -> None:
        nonlocal left
        assert 0 < seconds <= log.LONGEST_PAUSE_S
        await anyio.lowlevel.checkpoint()
        left -= 1
        if left < 0:
            raise _EnoughError

    return sleep


class _EnoughError(Exception):
    pass


async def shipped(folder: Path, store: Store, number: int = 1) -> list[str]:
    """What was logged while the loop went round so often."""
    with capture_logs() as said, pytest.raises(_EnoughError):
        await log.ship(folder, store, rounds(number))
    return [one["event"] for one in said]


async def test_lines_arrive_in_order_and_the_file_goes(tmp_path: Path, opened: Open) -> None:
    """With unique, increasing times; while the build goes on, and its end."""
    made, store = opened(tmp_path, "b/../1"), Store()
    for number in range(500):
        made.say(f"line {number}")
    await shipped(tmp_path, store)
    assert len(store.lines) == 500
    made.say("last")
    made.end()
    assert await shipped(tmp_path, store) == []
    assert [one["_msg"] for one in store.lines] == [*[f"line {number}" for number in range(500)], "last"]
    times = [one["_time"] for one in store.lines]
    assert sorted(set(times)) == times
    assert {one["build_id"] for one in store.lines} == {"b/../1"}
    assert left(tmp_path) == []


async def test_a_store_that_is_away(tmp_path: Path, opened: Open) -> None:
    """Said once, and once when it is back; nothing lost, nothing twice."""
    made, store = opened(tmp_path), Store([LogsError("away"), LogsError("away"), LogsError("away")])
    made.say("one")
    made.end()
    assert await shipped(tmp_path, store, 5) == ["build logs not sent", "build logs go out again"]
    assert [one["_msg"] for one in store.lines] == ["one"]


async def test_a_crash_between_two_batches(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run goes on where this one was; what was open is closed and goes in the end."""
    monkeypatch.setattr(log, "BATCH_BYTES", 2000)
    made, store = opened(tmp_path), Store()
    for number in range(100):
        made.say(f"line {number}")
    store.failures = []

    async def twice(lines: bytes) -> None:
        await Store.send(store, lines)
        if store.batches == 3:
            store.failures.append(LogsError("killed"))

    monkeypatch.setattr(store, "send", twice)
    await shipped(tmp_path, store)
    sent = len(store.lines)
    assert 0 < sent < 100
    log.close_left_over(tmp_path)
    await shipped(tmp_path, store)
    assert [one["_msg"] for one in store.lines] == [f"line {number}" for number in range(100)]
    assert left(tmp_path) == []


async def test_a_line_that_is_refused(tmp_path: Path, opened: Open) -> None:
    """Left out, alone, and said; the rest goes on."""
    made, store = opened(tmp_path), Store(bad=b"bad")
    for text in ("good", "bad", "better"):
        made.say(text)
    assert await shipped(tmp_path, store) == ["log line refused"]
    made.say("best")
    await shipped(tmp_path, store)
    assert [one["_msg"] for one in store.lines] == ["good", "better", "best"]


async def test_a_disk_that_keeps_no_place(tmp_path: Path, opened: Open) -> None:
    """How far was sent is known in this process, too: nothing is sent twice."""
    store = Store()
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        made = opened(disk)
        made.say("one")
        fill(disk)
        assert await shipped(disk, store, 4) == ["build logs not sent", "build logs go out again"]
    assert [one["_msg"] for one in store.lines] == ["one"]


async def test_a_log_without_end(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """L42, L46: bounded, and said in the log itself."""
    monkeypatch.setattr(log, "_LARGEST_LOG", 10_000)
    made = opened(tmp_path)
    for _ in range(1000):
        made.say("x" * 100)
    (path,) = left(tmp_path, "*.jsonl")
    assert path.stat().st_size < 11_000
    assert "the rest is left out" in path.read_text().splitlines()[-1]


async def test_lines_are_written_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L60: in order and soon; what is said while the disk hangs holds up nobody and is written afterwards."""
    made, hangs, threads = BuildLog(tmp_path, "b", "s", "p"), threading.Event(), []
    write = made.write

    def slow() -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        assert hangs.wait(PATIENCE_S)
        write()

    monkeypatch.setattr(made, "write", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        for number in range(10):
            made.say(f"line {number}")
            await anyio.sleep(0.01)
        hangs.set()
        await anyio.to_thread.run_sync(
            lambda: wait_for(lambda: b"line 9" in _content(tmp_path), PATIENCE_S, "the last line")
        )
        tasks.cancel_scope.cancel()
    made.say("last")
    await anyio.to_thread.run_sync(made.end)
    said = [json.loads(line)["_msg"] for line in _content(tmp_path).splitlines()]
    assert said == [*[f"line {number}" for number in range(10)], "last"]
    assert not any(threads)


def _content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in left(folder, "*.jsonl"))


def test_a_disk_that_takes_nothing(tmp_path: Path, opened: Open) -> None:
    """Costs the log and not the build."""
    (tmp_path / "file").write_text("")
    made = opened(tmp_path / "file")
    made.say("lost")
    made.end()


async def test_without_a_store_the_newest_stay(tmp_path: Path, opened: Open) -> None:
    """For a person; what is open always stays. Looked at now and then, since nothing is ever sent."""
    for number in range(30):
        made = opened(tmp_path, f"b{number}")
        made.say("x")
        if number:
            made.end()
    waited = anyio.Event()

    async def once(_: float) -> None:
        waited.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.keep_few, tmp_path, once)
        await waited.wait()
        tasks.cancel_scope.cancel()
    assert len(left(tmp_path, "*.jsonl")) == 21


async def test_what_victorialogs_is_sent(tmp_path: Path) -> None:
    """Compressed, to the right path, grouped; the password as a header, and in no error."""
    with OddServer([answer(204, b""), answer(400, b"bad"), answer(503, b"")]) as server:
        logs = VictoriaLogs(f"http://me:pass%2Fword@127.0.0.1:{server.port}/base/", limit_s=5)
        await logs.send(pack(b'{"_msg":"x"}\n'))
        with pytest.raises(LogsError) as caught:
            await logs.send(b"{}\n")
        assert caught.value.refused
        with pytest.raises(LogsError) as again:
            await logs.send(b"{}\n")
        assert not again.value.refused
        await logs.aclose()
    request = server.requests[0]
    assert request.path == "/base/insert/jsonline?_stream_fields=deployment_id%2Cservice_id%2Clog_type"
    assert gzip.decompress(request.body) == b'{"_msg":"x"}\n'
    assert request.headers["authorization"] == "Basic bWU6cGFzcy93b3Jk"
    assert "pass" not in str(caught.value) + str(again.value)


async def test_nobody_there() -> None:
    """A reason, soon."""
    logs = VictoriaLogs("http://127.0.0.1:1", limit_s=2)
    with pytest.raises(LogsError, match=r"127\.0\.0\.1:1"):
        await logs.send(b"{}\n")
    await logs.aclose()


@pytest.mark.parametrize("url", ["", "logs.example", "ftp://x", "http://", "http://x/?a=secret", "http://[::1"])
def test_what_is_no_endpoint(url: str) -> None:
    """Said at the start, without what may be a password."""
    with pytest.raises(CommandError, match="--logs-endpoint") as caught:
        VictoriaLogs(url)
    assert "secret" not in str(caught.value)


def test_a_start_on_a_disk_without_room(tmp_path: Path) -> None:
    """L16: no inode is left for the mark of a log whose build has ended; the agent starts all the same."""
    with small_disk(tmp_path / "disk", "nr_inodes=10") as disk:
        (disk / "x.jsonl").touch()
        fill_inodes(disk)
        log.close_left_over(disk)
        assert left(disk, "x.*") == [disk / "x.jsonl"]
