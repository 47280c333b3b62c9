"""`shell.logs.pump`: every log in its turn; a position is kept when its lines are safe."""

import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from core.container_log import Assembler, Source
from shell.adapters.victorialogs import LogsError, unpack
from shell.logs import pump as module
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops.logs import END_S
from tests.lab.wait import PATIENCE_S, wait_for
from tests.shell import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


@dataclass
class Store:
    """Keeps lines; may be away."""

    away: bool = False
    answers_after_s: float = 0
    got: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, body: bytes) -> None:
        """Or fail."""
        await anyio.lowlevel.checkpoint()
        if self.away:
            raise LogsError("away")
        self.got += [json.loads(line) for line in unpack(body).splitlines()]
        await anyio.sleep(self.answers_after_s)

    async def instance(self) -> int | None:
        """It does not tell."""
        await anyio.lowlevel.checkpoint()
        return None


def a_pump(folder: Path, store: Store) -> Pump:
    """One whose state is in a folder."""
    return Pump(Sender(store, Spool(folder / "spool", 1024**2)), Positions(folder / "positions.json"))


def follow(pump: Pump, path: Path) -> None:
    """Follow a container's log."""
    pump.follow(path.name, path, lambda last_ns, begun: Assembler(Source(path.name, "s"), last_ns, begun))


def write(path: Path, *texts: str) -> None:
    """What Podman does."""
    with path.open("a") as file:
        for text in texts:
            file.write(f"2026-11-23T11:30:04.000000001+00:00 stdout F {text}\n")


async def during(pump: Pump, work: Callable[[], Awaitable[None]]) -> None:
    """Run the pump and its sender beside something."""

    async def discover() -> None:
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump.sender.run)
        tasks.start_soon(pump.run, discover)
        await work()
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something."""
    await anyio.to_thread.run_sync(lambda: wait_for(condition, PATIENCE_S, "the pump"))


async def test_many_logs_in_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that grows fast keeps no other waiting."""
    monkeypatch.setattr(module, "READ_BYTES", 4096)
    monkeypatch.setattr(module, "BATCH_BYTES", 8192)
    store = Store()
    pump = a_pump(tmp_path, store)
    write(tmp_path / "fast", *[f"fast {number}" for number in range(20_000)])
    write(tmp_path / "slow", "slow")
    for name in ("fast", "slow"):
        follow(pump, tmp_path / name)

    async def work() -> None:
        await until(lambda: len(store.got) == 20_001)
        assert [one["_msg"] for one in store.got].index("slow") < 1000

    await during(pump, work)
    fast = sorted((one for one in store.got if one["deployment_id"] == "fast"), key=lambda one: str(one["_time"]))
    assert [one["_msg"] for one in fast] == [f"fast {n}" for n in range(20_000)]


async def test_a_restart_reads_on(tmp_path: Path) -> None:
    """L28: nothing is lost and nothing repeated; the times go on increasing."""
    store, path = Store(), tmp_path / "log"
    write(path, "one", "two")
    first = a_pump(tmp_path, store)
    follow(first, path)

    async def both() -> None:
        await until(lambda: len(store.got) == 2)
        await first.drained(PATIENCE_S)

    await during(first, both)
    write(path, "three")
    second = a_pump(tmp_path, store)
    follow(second, path)

    async def third() -> None:
        await until(lambda: len(store.got) == 3)

    await during(second, third)
    assert [one["_msg"] for one in store.got] == ["one", "two", "three"]
    assert len({one["_time"] for one in store.got}) == 3


async def test_a_file_that_a_power_cut_has_shortened(tmp_path: Path) -> None:
    """The disk has lost its end, which was shipped: all of it comes twice, each line with the time that it had."""
    store, path = Store(), tmp_path / "log"
    write(path, "one", "two")
    shorter = path.read_bytes()
    write(path, "three")

    async def agent(lines: int) -> None:
        pump = a_pump(tmp_path, store)
        follow(pump, path)

        async def work() -> None:
            await until(lambda: len(store.got) == lines)
            await pump.drained(PATIENCE_S)

        await during(pump, work)

    await agent(3)
    path.write_bytes(shorter)  # the same file
    with capture_logs() as said:
        await agent(5)
    assert [one["_msg"] for one in store.got] == ["one", "two", "three", "one", "two"]
    assert [one["_time"] for one in store.got[3:]] == [one["_time"] for one in store.got[:2]]
    assert [one["event"] for one in said] == ["log lines missed"]


async def test_a_busy_server_lets_go_of_removed_logs(tmp_path: Path) -> None:
    """L46: there is always another batch on its way; a log that is over is left with its own, and whoever waits for one waits no longer."""
    store = Store(answers_after_s=0.01)
    pump = a_pump(tmp_path, store)
    for name in ("busy", "removed"):
        write(tmp_path / name, name)
        follow(pump, tmp_path / name)

    async def writing() -> None:
        while True:
            write(tmp_path / "busy", "busy")
            await anyio.sleep(0.01)

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writing)
            await until(lambda: len(store.got) > 10)
            pump.leave(["removed"])
            await until(lambda: "removed" not in pump.logs)
            write(tmp_path / "busy", "asked for")
            with anyio.fail_after(PATIENCE_S):
                await pump.drained(10 * PATIENCE_S)
            assert "asked for" in {one["_msg"] for one in store.got}
            tasks.cancel_scope.cancel()

    await during(pump, work)
    assert [*pump.logs] == ["busy"]
    assert Positions(tmp_path / "positions.json").get(tmp_path / "removed") is None


@pytest.mark.parametrize("answers_after_s", [0, 0.3, 1.0])
def test_an_orderly_end_repeats_nothing(tmp_path: Path, answers_after_s: float) -> None:
    """L5, L28: whatever is on its way is known to have arrived; at whatever moment it comes, and while more is written."""
    store, path = Store(answers_after_s=answers_after_s), tmp_path / "log"
    path.touch()

    async def writing() -> None:
        for number in itertools.count(1):
            write(path, f"line {number}")
            await anyio.sleep(0.005)

    async def one_run(number: int) -> None:
        pump = a_pump(tmp_path, store)
        follow(pump, path)
        wanted = len(store.got) + number

        async def work() -> None:
            while len(store.got) < wanted:  # noqa: ASYNC110  # the clock is virtual, and the store tells nobody
                await anyio.sleep(0.01)
            with anyio.fail_after(END_S):
                await pump.end()

        await during(pump, work)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writing)
            for number in range(1, 5):
                await one_run(number)
            tasks.cancel_scope.cancel()

    virtual_time.run(main)
    assert [one["_msg"] for one in store.got] == [f"line {number + 1}" for number in range(len(store.got))]


async def test_the_agents_last_words_are_sent(tmp_path: Path) -> None:
    """What it says of itself while it ends."""
    store = Store()
    pump = a_pump(tmp_path, store)

    async def work() -> None:
        await pump.drained(5)
        pump.extra = lambda: (b'{"_msg": "stopping"}\n', 1)
        await pump.end()

    await during(pump, work)
    assert "stopping" in [one["_msg"] for one in store.got]


async def test_an_end_while_the_store_is_away(tmp_path: Path) -> None:
    """The disk has what was read."""
    store, path = Store(away=True), tmp_path / "log"
    pump = a_pump(tmp_path, store)
    write(path, "one")
    follow(pump, path)

    async def work() -> None:
        await until(lambda: pump.read_lines == 1)
        await pump.end()

    with capture_logs():
        await during(pump, work)
    position = pump.positions.get(path)
    assert position is not None and position.offset == path.stat().st_size
    assert pump.sender.spool.lines == 1


async def test_a_log_that_is_over(tmp_path: Path) -> None:
    """Read to its end though its file has gone, the unfinished line too; then forgotten."""
    store, path = Store(), tmp_path / "log"
    write(path, "one")
    pump = a_pump(tmp_path, store)
    follow(pump, path)

    async def work() -> None:
        await until(lambda: len(store.got) == 1)
        with path.open("a") as file:
            file.write("2026-11-23T11:30:05.000000001+00:00 stdout P half")
        path.unlink()
        pump.leave(["log", "unknown"])
        await until(lambda: not pump.logs)

    await during(pump, work)
    assert [one["_msg"] for one in store.got] == ["one", "half"]
    assert pump.positions.get(path) is None


async def test_drained(tmp_path: Path) -> None:
    """What stands there now is safe afterwards, long before the batch would be due; a store that is away is as good as the disk."""
    store, path = Store(away=True), tmp_path / "log"
    path.touch()
    pump = a_pump(tmp_path, store)
    follow(pump, path)

    async def work() -> None:
        write(path, "last")
        await pump.drained(PATIENCE_S)
        position = pump.positions.get(path)
        assert position is not None
        assert position.offset == path.stat().st_size
        assert pump.sender.spool.lines == 1

    with capture_logs():
        await during(pump, work)


async def test_nul_bytes_are_counted_and_said_once(tmp_path: Path) -> None:
    """A block of a mebibyte is many reads and one line of the agent's log."""
    store, path = Store(), tmp_path / "log"
    write(path, "one")
    with path.open("ab") as file:
        file.write(b"\0" * 1024**2)
    write(path, "two")
    pump = a_pump(tmp_path, store)
    follow(pump, path)

    with capture_logs() as said:
        await during(pump, lambda: until(lambda: len(store.got) == 2))
    assert [one["_msg"] for one in store.got] == ["one", "two"]
    assert [one["event"] for one in said] == ["NUL bytes in a log"]
    assert pump.figures()["nulBytes"] == 1024**2


def test_drained_while_the_store_takes_its_time(tmp_path: Path) -> None:
    """A container is about to go, and with it its file: what has no answer soon goes to the disk."""
    store, path = Store(answers_after_s=60), tmp_path / "log"
    write(path, "last")
    pump = a_pump(tmp_path, store)
    follow(pump, path)

    async def work() -> None:
        before_s = anyio.current_time()
        await pump.drained(0.5)
        assert anyio.current_time() - before_s <= 0.5
        assert pump.sender.spool.lines == 1

    virtual_time.run(lambda: during(pump, work))


async def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Said once; the others go on."""
    store = Store()
    pump = a_pump(tmp_path, store)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "log", "good")
    follow(pump, tmp_path / "folder")
    follow(pump, tmp_path / "log")

    async def work() -> None:
        await until(lambda: len(store.got) == 1)
        await anyio.sleep(0.5)

    with capture_logs() as said:
        await during(pump, work)
    assert [one["event"] for one in said] == ["log not read"]
