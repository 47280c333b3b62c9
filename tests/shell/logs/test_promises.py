"""The table of promises in docs/logs.md: what of a container's log is lost and what arrives twice, fault by fault. On virtual time."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from core.container_log import Assembler, Source
from shell.logs import pump as pump_module
from shell.logs import sender as sender_module
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from tests.shell import virtual_time
from tests.shell.logs.forgetful import Forgetful

SETTLE_S = 10.0
WINDOW = 125 + 10  # lines of `SETTLE_S` and a quarter of it, at ten a second; and of the batches under way
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _batches_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their age is counted in real time."""
    monkeypatch.setattr(pump_module, "BATCH_AGE_S", 0.0)
    monkeypatch.setattr(pump_module, "WAITING_AGE_S", 0.0)


@dataclass
class Bench:
    """A container that writes ten lines a second, agents that follow one another, and a store."""

    folder: Path
    store: Forgetful = field(default_factory=Forgetful)
    written: int = 0
    pump: Pump | None = None
    events: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """As Podman writes it."""
        return self.folder / "ctr.log"

    async def write(self, seconds: float) -> None:
        """For so long."""
        for _ in range(round(seconds * 10)):
            at = self.written
            self.written += 1
            with self.log.open("a") as file:
                file.write(f"2026-11-23T11:{at // 600:02d}:{at // 10 % 60:02d}.{at % 10}00000000+00:00 stdout F {at}\n")
            await anyio.sleep(0.1)

    async def agent(self, work: Callable[[], Awaitable[None]], *, orderly: bool = True) -> None:
        """One agent beside `work`; asked to end afterwards, or killed."""
        sender = Sender(self.store, Spool(self.folder / "spool", 64 * 1024**2), SETTLE_S)
        pump = self.pump = Pump(sender, Positions(self.folder / "positions.json"))
        pump.follow("c", self.log, lambda last_ns, begun: Assembler(Source("d", "s"), last_ns, begun))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.run)
            tasks.start_soon(pump.run, anyio.lowlevel.checkpoint)
            await work()
            if orderly:
                await pump.end()
            tasks.cancel_scope.cancel()
        pump.logs["c"].tail.close()

    @property
    def lost(self) -> list[int]:
        """Lines that the store does not have."""
        return sorted({*range(self.written)} - set(map(int, self.store.texts)))

    @property
    def twice(self) -> list[int]:
        """Lines that the store has more than once."""
        found = [int(one) for one in self.store.texts]
        return sorted({one for one in found if found.count(one) > 1})

    @property
    def figures(self) -> dict[str, int]:
        """Of the agent that ran last."""
        assert self.pump is not None
        return dict(self.pump.figures())


def play(bench: Bench, scene: Callable[[], Awaitable[None]]) -> None:
    """On virtual time."""
    with capture_logs() as said:
        virtual_time.run(scene)
    bench.events += [str(one["event"]) for one in said]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Nothing written yet."""
    return Bench(tmp_path)


async def rest(seconds: float = 30.0) -> None:
    """Until all has settled."""
    await anyio.sleep(seconds)


def test_agent_ends_in_order(bench: Bench) -> None:
    """Nothing lost, nothing twice, though nothing had settled; the window is let go of by the next agent."""

    async def scene() -> None:
        for _ in range(3):
            await bench.agent(lambda: bench.write(2))
        await bench.agent(rest)

    play(bench, scene)
    assert (bench.lost, bench.twice) == ([], [])
    assert [*(bench.folder / "spool").iterdir()] == []


def test_agent_killed(bench: Bench) -> None:
    """Nothing lost; what had not settled comes twice, with the same times."""

    async def scene() -> None:
        await bench.agent(lambda: bench.write(40), orderly=False)
        await bench.agent(rest)

    play(bench, scene)
    assert bench.lost == []
    assert 0 < len(bench.twice) <= WINDOW
    assert len(set(bench.store.times)) == bench.written


@pytest.mark.parametrize("tells", [True, False])
def test_store_killed(bench: Bench, tells: bool) -> None:
    """Nothing lost; seen, counted and logged; twice comes only what was older than the store forgets and had not settled."""
    bench.store.tells = tells
    forgotten = 0

    async def scene() -> None:
        nonlocal forgotten

        async def work() -> None:
            nonlocal forgotten
            await bench.write(40)
            forgotten = bench.store.kill()
            await bench.write(3)
            bench.store.start()
            await bench.write(20)
            await rest()

        await bench.agent(work)

    play(bench, scene)
    assert forgotten >= 55
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW - forgotten
    assert forgotten <= bench.figures["repeated"] <= WINDOW
    assert bench.events.count("log store restarted") == 1


def test_store_restarted_in_order(bench: Bench) -> None:
    """It has kept everything, and nobody can tell: the window comes twice."""

    async def scene() -> None:
        async def work() -> None:
            await bench.write(20)
            bench.store.start()
            await rest()

        await bench.agent(work)

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW


def test_store_killed_and_back_between_two_requests(bench: Bench) -> None:
    """No request fails, and it is seen all the same by the start time: the store is asked before anything counts as settled."""

    async def scene() -> None:
        async def work() -> None:
            await bench.write(3)
            await anyio.sleep(2)
            assert bench.store.kill() == 30
            bench.store.start()
            await rest()

        await bench.agent(work)

    play(bench, scene)
    assert (bench.lost, bench.twice) == ([], [])
    assert bench.figures["repeated"] == 30


def test_store_without_start_time_back_between_two_requests(bench: Bench) -> None:
    """Lost, as the table says: there is no way to see it."""
    bench.store.tells = False

    async def scene() -> None:
        async def work() -> None:
            await bench.write(3)
            await anyio.sleep(2)
            bench.store.kill()
            bench.store.start()
            await rest()

        await bench.agent(work)

    play(bench, scene)
    assert len(bench.lost) == 30
    assert bench.store.asked == 1


def test_store_killed_after_an_orderly_end(bench: Bench) -> None:
    """The window waits on disk with the instance that acknowledged it: the next agent sends it again."""

    async def scene() -> None:
        await bench.agent(lambda: bench.write(40))
        bench.store.kill()
        bench.store.start()
        await bench.agent(rest)

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW


def test_store_killed_soon_after_an_agents_start(bench: Bench) -> None:
    """What the agent before this one sent is not forgotten about when it has found the same instance."""

    async def scene() -> None:
        await bench.agent(lambda: bench.write(20))

        async def work() -> None:
            await bench.write(1)
            bench.store.kill()
            bench.store.start()
            await rest()

        await bench.agent(work)

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW


def test_agent_and_store_killed(bench: Bench) -> None:
    """A power cut of a server that is both: positions have stayed behind, so nothing is lost."""

    async def scene() -> None:
        await bench.agent(lambda: bench.write(40), orderly=False)
        assert bench.store.kill() >= 55
        bench.store.start()
        await bench.agent(rest)

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW


def test_agent_and_store_killed_after_a_removal(bench: Bench) -> None:
    """The container's file has gone with it: of its lines the store has what it did not forget."""

    async def scene() -> None:
        async def work() -> None:
            await bench.write(20)
            assert bench.pump is not None
            await bench.pump.drained(0.5)
            bench.log.unlink()
            bench.pump.leave("c")
            await anyio.sleep(2)

        await bench.agent(work, orderly=False)
        bench.store.kill()
        bench.store.start()
        await bench.agent(rest)

    play(bench, scene)
    assert 0 < len(bench.lost) <= WINDOW
    assert bench.twice == []


def test_store_away(bench: Bench) -> None:
    """Nothing lost, nothing twice, when it has ended in order; the agent may end meanwhile."""

    async def scene() -> None:
        await bench.agent(lambda: bench.write(20))
        await anyio.sleep(10)  # on its own it keeps everything within seconds
        bench.store.is_up = False
        await bench.agent(lambda: bench.write(200))
        bench.store.is_up = True
        await bench.agent(rest)

    play(bench, scene)
    assert (bench.lost, bench.twice) == ([], [])


def test_agent_killed_while_the_store_is_away(bench: Bench) -> None:
    """However long that lasts, no more than the window comes twice: what waits on disk is not read again."""

    async def scene() -> None:
        async def work() -> None:
            await bench.write(20)
            bench.store.is_up = False
            await bench.write(300)

        await bench.agent(work, orderly=False)
        bench.store.is_up = True
        await bench.agent(lambda: rest(120))

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW


@pytest.mark.parametrize("limit", ["MEMORY_BYTES", "MEMORY_BATCHES"])
def test_store_killed_when_the_window_is_larger_than_the_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """L58: it goes to the disk, and is sent again from there; then it is gone from there, too."""
    monkeypatch.setattr(sender_module, limit, 3)

    async def scene() -> None:
        async def work() -> None:
            await bench.write(40)
            assert bench.pump is not None and len(bench.pump.sender.spool) > 50
            assert bench.pump.sender.waiting_lines < 10
            bench.store.kill()
            bench.store.start()
            await bench.write(20)
            await rest(60)

        await bench.agent(work)

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW
    assert bench.figures["waiting"] == 0
    assert [*(bench.folder / "spool").iterdir()] == []


def test_several_stores_behind_one_address(bench: Bench) -> None:
    """Their start times alternate. That is seen to be no restart: nothing is sent without end."""

    async def scene() -> None:
        async def work() -> None:
            for number in range(60):
                bench.store.starts = 1 + number % 2
                await bench.write(3)
            await rest()

        await bench.agent(work)

    play(bench, scene)
    assert bench.lost == []
    assert len(bench.twice) <= WINDOW


def test_the_store_is_asked_rarely(bench: Bench) -> None:
    """Four times in `SETTLE_S` while lines come, and never while none do."""

    async def scene() -> None:
        async def work() -> None:
            await bench.write(100)
            await rest()
            asked = bench.store.asked
            assert 20 < asked < 60
            await rest(1000)
            assert bench.store.asked == asked

        await bench.agent(work)

    play(bench, scene)


def test_each_promise_names_a_test() -> None:
    """Every row of the table in docs/logs.md, and every test that it names is there."""
    text = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "`test_" in line]
    named = set(re.findall(r"`(test_\w+)`", "\n".join(rows)))
    assert len(rows) >= 15
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= there, json.dumps(sorted(named - there))
