"""What ships logs, over real connections, against the stand-in that forgets, fills up and stalls as VictoriaLogs does."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from core.container_log import Assembler, Source
from shell.adapters.victorialogs import LogsError, VictoriaLogs, pack
from shell.http_client import Answer, HttpClient
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from tests.lab.log_store import LogStore
from tests.lab.wait import PATIENCE_S, wait_for
from tests.shell import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


@pytest.fixture
def store() -> Iterator[LogStore]:
    """Well."""
    with LogStore() as made:
        yield made


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    await anyio.to_thread.run_sync(lambda: wait_for(condition, PATIENCE_S, what))


async def during(
    folder: Path, store: LogStore, work: Callable[[Pump], Awaitable[None]], settle_s: float = 10.0, limit_s: float = 30.0
) -> None:  # fmt: skip
    """An agent that follows `folder/log` beside something; killed afterwards."""
    endpoint = VictoriaLogs(store.url, limit_s=limit_s)
    pump = Pump(Sender(endpoint, Spool(folder / "spool", 64 * 1024**2), settle_s), Positions(folder / "positions.json"))
    pump.follow("c", folder / "log", lambda last_ns, begun: Assembler(Source("d", "s"), last_ns, begun))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump.sender.run)
        tasks.start_soon(pump.run, anyio.lowlevel.checkpoint)
        await work(pump)
        tasks.cancel_scope.cancel()
    pump.logs["c"].tail.close()
    await endpoint.aclose()


def write(folder: Path, *texts: str) -> None:
    """What Podman does."""
    with (folder / "log").open("a") as file:
        for text in texts:
            file.write(f"2026-11-23T11:30:04.000000001+00:00 stdout F {text}\n")


def counted(store: LogStore) -> Counter[str]:
    """How often the store has each text."""
    return Counter(str(one["_msg"]) for one in store.of("container"))


async def test_a_store_that_is_killed_has_everything_in_the_end(tmp_path: Path, store: LogStore) -> None:
    """13,200 acknowledged lines were lost, and nobody noticed."""
    first, second = [f"first {number}" for number in range(2000)], [f"second {number}" for number in range(2000)]
    write(tmp_path, *first)

    async def work(pump: Pump) -> None:
        await until(lambda: len(store.distinct) == 2000, "the first lines")
        assert await anyio.to_thread.run_sync(store.crash) == 2000
        write(tmp_path, *second)
        await until(lambda: len(pump.sender.spool) > 0, "lines to wait on disk")
        store.start()
        await until(lambda: len(store.distinct) == 4000, "every line")
        assert pump.figures()["repeated"] == 2000

    with capture_logs() as said:
        await during(tmp_path, store, work)
    assert counted(store) == Counter([*first, *second])
    assert store.faults == []
    assert "log store restarted" in [one["event"] for one in said]


async def test_a_store_whose_disk_is_full(tmp_path: Path, store: LogStore) -> None:
    """429: everything waits, nothing is left out, nothing comes twice."""
    store.is_full = True
    write(tmp_path, *map(str, range(100)))

    async def work(pump: Pump) -> None:
        await until(lambda: store.statuses[429] > 0, "the first refusal")
        store.is_full = False
        await until(lambda: len(store.distinct) == 100, "every line")
        assert pump.figures()["refused"] == pump.figures()["repeated"] == 0

    with capture_logs():
        await during(tmp_path, store, work)
    assert counted(store) == Counter(map(str, range(100)))


async def test_a_store_that_stalls_for_longer_than_the_limit(tmp_path: Path, store: LogStore) -> None:
    """It stores what was given up as well: that batch comes once for each try, with the same times; nothing else comes twice."""
    store.stop()
    write(tmp_path, "stalled")

    async def work(pump: Pump) -> None:
        await until(lambda: pump.sender.counts.errors > 0, "the limit")
        write(tmp_path, "later")
        store.go_on()
        await until(lambda: len(store.distinct) == 2, "both lines")
        await until(lambda: pump.sender.counts.sent == 2, "both answers")

    with capture_logs():
        await during(tmp_path, store, work, settle_s=0, limit_s=0.3)
    assert counted(store)["later"] == 1
    assert counted(store)["stalled"] > 1
    assert len({one["_time"] for one in store.of("container")}) == 2


def test_a_store_that_stalls_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """45 s (a disk that hangs, a machine that is moved) are waited for: to try again sooner would store the batch twice."""
    requests = 0

    async def exchange(*_: object, limit_s: float, **__: object) -> Answer:
        nonlocal requests
        requests += 1
        with anyio.fail_after(limit_s):
            await anyio.sleep(100)
        return Answer(200, {}, b"")

    async def main() -> None:
        endpoint = VictoriaLogs("http://127.0.0.1:1")
        await endpoint.send(pack(b"{}\n"))
        await endpoint.aclose()

    monkeypatch.setattr(HttpClient, "exchange", exchange)
    virtual_time.run(main)
    assert requests == 1


async def test_a_line_that_would_swallow_the_rest(tmp_path: Path, store: LogStore) -> None:
    """Of 256 KiB, encoded six times as long: cut before it is sent, so that the lines after it are stored."""
    write(tmp_path, "\x01" * 300_000, "after")

    async def work(_: Pump) -> None:
        await until(lambda: ("stdout", "after") in store.distinct, "the line after it")

    await during(tmp_path, store, work)
    assert store.faults == []
    assert sum(text.count("\x01") for text in counted(store)) <= 300_000
    assert "".join(re.sub(" …$", "", one["_msg"]) for one in store.of("container")) == "\x01" * 300_000 + "after"


async def test_the_stand_in_swallows(store: LogStore) -> None:
    """Or the test above would show nothing."""
    endpoint = VictoriaLogs(store.url)
    own = b'{"_msg":"%s","_time":"2026-11-23T11:30:04.000000001Z","server_id":"s","level":"info","log_type":"agent"}\n'
    await endpoint.send(pack(own % b"before" + own % (b"x" * 262_144) + own % b"after"))
    await endpoint.aclose()
    assert [one["_msg"] for one in store.of("agent")] == ["before"]
    assert store.faults


async def test_a_store_tells_when_it_started(store: LogStore) -> None:
    """By its metrics; another time after a restart. One that is away may have restarted, one without metrics tells nothing."""
    endpoint = VictoriaLogs(store.url)
    first = await endpoint.instance()
    assert first == await endpoint.instance()
    await anyio.to_thread.run_sync(store.crash)
    with pytest.raises(LogsError) as caught:
        await endpoint.instance()
    assert caught.value.is_unreached
    store.start()
    assert await endpoint.instance() not in (None, first)
    elsewhere = VictoriaLogs(f"{store.url}/base")
    assert await elsewhere.instance() is None
    for one in (endpoint, elsewhere):
        await one.aclose()
