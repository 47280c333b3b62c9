"""`shell.building.log`: every line to the store, in order, also when it is away for a while."""

import gzip
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from shell.adapters.victorialogs import LogsError, VictoriaLogs, pack
from shell.building import log
from shell.building.log import BuildLog, close_left_over
from shell.failure import CommandError
from shell.logs import pump as pump_module
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops.logs import LogFiles, Logs
from tests.lab.odd_server import OddServer, answer
from tests.lab.small_disk import fill_inodes, small_disk
from tests.lab.wait import PATIENCE_S, wait_for
from tests.shell import virtual_time
from tests.shell.logs.forgetful import Forgetful

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
class Bench:
    """Agents that follow one another, and a store that forgets when it is killed. On virtual time."""

    folder: Path
    store: Forgetful = field(default_factory=Forgetful)

    @property
    def logs(self) -> Path:
        """Of the builds."""
        return self.folder / "builds"

    async def agent(self, seconds: float) -> None:
        """Ships for so long, and is killed."""
        sender = Sender(self.store, Spool(self.folder / "spool", 1024**2), 10.0)
        pump = Pump(sender, Positions(self.folder / "positions.json"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Logs(pump, cast(LogFiles, None), lambda: (), None, lambda: (), self.logs).run)
            await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()
        for one in pump.logs.values():
            one.tail.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """No build yet."""
    monkeypatch.setattr(pump_module, "BATCH_AGE_S", 0.0)  # counted in real time
    monkeypatch.setattr(pump_module, "WAITING_AGE_S", 0.0)
    return Bench(tmp_path)


def play(scene: Callable[[], Awaitable[None]]) -> list[str]:
    """On virtual time; what was logged."""
    with capture_logs() as said:
        virtual_time.run(scene)
    return [str(one["event"]) for one in said]


def test_lines_arrive_in_order_and_the_file_goes(bench: Bench, opened: Open) -> None:
    """While the build goes on, and its end; with unique times. The file stays until the store has all of it for good."""
    made = opened(bench.logs, "b/../1")

    async def scene() -> None:
        for number in range(500):
            made.say(f"line {number}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.agent, 40)
            await anyio.sleep(2)
            assert len(bench.store.texts) == 500
            made.say("last")
            made.end()
            await anyio.sleep(2)
            assert bench.store.texts[-1] == "last"
            assert len(left(bench.logs)) == 2

    assert play(scene) == []
    assert bench.store.texts == [*[f"line {number}" for number in range(500)], "last"]
    assert len(set(bench.store.times)) == 501
    assert left(bench.logs) == []
    assert json.loads((bench.folder / "positions.json").read_text())["positions"] == {}


def test_a_store_that_is_away(bench: Bench, opened: Open) -> None:
    """Nothing lost, nothing twice."""
    made = opened(bench.logs)
    made.say("one")
    made.end()
    bench.store.is_up = False

    async def scene() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.agent, 100)
            await anyio.sleep(30)
            bench.store.is_up = True

    assert play(scene) == ["logs not sent", "logs go out again"]
    assert bench.store.texts == ["one"]
    assert left(bench.logs) == []


def test_a_store_that_is_killed_forgets_no_build_log(bench: Bench, opened: Open) -> None:
    """The same window as for containers' logs."""
    made = opened(bench.logs)
    for number in range(100):
        made.say(f"line {number}")
    made.end()

    async def scene() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.agent, 60)
            await anyio.sleep(3)
            assert bench.store.kill() == 100
            bench.store.start()

    assert play(scene) == ["log store restarted"]
    assert bench.store.texts == [f"line {number}" for number in range(100)]
    assert left(bench.logs) == []


def test_an_agent_that_is_killed(bench: Bench, opened: Open) -> None:
    """The next one goes on where it was, and a log of a build that was under way is closed and goes in the end."""
    made = opened(bench.logs)

    async def scene() -> None:
        made.say("one")
        await bench.agent(30)
        made.say("two")
        await bench.agent(3)
        close_left_over(bench.logs)
        await bench.agent(30)

    play(scene)
    assert sorted(set(bench.store.texts)) == ["one", "two"]
    assert bench.store.texts.count("one") == 1, "it had settled"
    assert left(bench.logs) == []


def test_a_file_that_is_not_removed(bench: Bench, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once; its lines are not sent again, now or by the next agent."""
    made = opened(bench.logs)
    made.say("one")
    made.end()

    def refused(_: Path) -> None:
        raise OSError("it is read-only")

    monkeypatch.setattr(log, "remove", refused)

    async def scene() -> None:
        await bench.agent(60)
        await bench.agent(60)

    assert play(scene) == ["log not removed"] * 2
    assert bench.store.texts == ["one"]


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
