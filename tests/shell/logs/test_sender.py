"""`shell.logs.sender` and its spool: in order, bounded, safe before it is said to be."""

import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from shell.adapters.victorialogs import LogsError, pack, unpack
from shell.logs import sender as sender_module
from shell.logs.sender import Sender
from shell.logs.spool import Batch, Spool
from tests.lab.wait import PATIENCE_S
from tests.shell import virtual_time

MIB = 1024**2


@pytest.fixture(autouse=True)
def _short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the third batch goes to the disk."""
    monkeypatch.setattr(sender_module, "QUEUE", 2)


@dataclass
class Store:
    """Takes what it is given, when it may. `bad` are lines that it refuses, with everything beside them."""

    away: bool = False
    is_none: bool = False  # refuses everything, as a proxy does that knows no way
    takes_s: float = 0.0
    bad: bytes = b""
    is_damaged_refused: bool = False
    got: list[bytes] = field(default_factory=list)
    tries: int = 0

    async def instance(self) -> int | None:
        """It does not tell."""
        await anyio.lowlevel.checkpoint()
        return None

    async def send(self, body: bytes) -> None:
        """Or fail."""
        lines = unpack(body)
        self.tries += 1
        await anyio.sleep(self.takes_s)
        if self.away:
            raise LogsError("it is away")
        if self.is_damaged_refused and not lines and body != pack(b""):
            raise LogsError("it answered 400", refused=True)
        if self.is_none or (self.bad and self.bad in lines):
            raise LogsError("it answered 400", refused=True)
        self.got += lines.splitlines()


Scene = Callable[[Sender], Awaitable[None]]


def play(folder: Path, store: Store, scene: Scene, limit: int = 256 * MIB) -> tuple[Sender, list[str]]:
    """A scene beside the sender; what was said."""
    sender = Sender(store, Spool(folder, limit))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.run)
            await scene(sender)
            tasks.cancel_scope.cancel()

    with capture_logs() as said:
        virtual_time.run(main)
    return sender, [one["event"] for one in said]


def lines(*numbers: int) -> list[bytes]:
    """Numbered lines."""
    return [b"line %d" % number for number in numbers]


async def offer(sender: Sender, *numbers: int) -> None:
    """Hand over one batch of them."""
    await sender.offer(b"".join(line + b"\n" for line in lines(*numbers)), len(numbers))


def test_a_batch_is_sent_at_once(tmp_path: Path) -> None:
    """And never touches the disk."""
    store = Store(takes_s=0.1)

    async def scene(sender: Sender) -> None:
        entry = await sender.offer(b"line 1\n", 1)
        assert not entry.safe.is_set()
        await anyio.sleep(0.2)
        assert entry.safe.is_set()

    sender, said = play(tmp_path / "s", store, scene)
    assert store.got == lines(1)
    assert (sender.counts.sent, sender.counts.spooled, said) == (1, 0, [])


def test_what_comes_while_one_is_on_its_way(tmp_path: Path) -> None:
    """L28: goes to the disk, and so does the one before it, so that a crash can lose neither; sent once each, in order."""
    store = Store(takes_s=5)

    async def scene(sender: Sender) -> None:
        first = await sender.offer(b"line 1\n", 1)
        await anyio.sleep(1)
        await offer(sender, 2)
        await offer(sender, 3)
        assert first.safe.is_set()
        assert len(sender.spool) == 3
        await anyio.sleep(30)

    sender, _ = play(tmp_path / "s", store, scene)
    assert store.got == lines(1, 2, 3)
    assert len(sender.spool) == 0


def test_a_store_that_is_away(tmp_path: Path) -> None:
    """Tried after 1 s, 2 s, … 30 s; said once; in order and once each when it is back."""
    store = Store(away=True)

    async def scene(sender: Sender) -> None:
        for number in range(5):
            await offer(sender, number)
            await anyio.sleep(100)
        assert store.tries < 25
        store.away = False
        await anyio.sleep(40)

    sender, said = play(tmp_path / "s", store, scene)
    assert store.got == lines(*range(5))
    assert said == ["logs not sent", "logs go out again"]
    assert (sender.counts.sent, sender.counts.spooled) == (5, 5)


def test_a_crash_while_it_is_away(tmp_path: Path) -> None:
    """The next run sends what waits, before what is new."""

    async def away(sender: Sender) -> None:
        await offer(sender, 1, 2)
        await anyio.sleep(10)
        await offer(sender, 3)

    play(tmp_path / "s", Store(away=True), away)
    store = Store()

    async def back(sender: Sender) -> None:
        await offer(sender, 4)
        await anyio.sleep(1)

    play(tmp_path / "s", store, back)
    assert store.got == lines(1, 2, 3, 4)


def test_a_bad_line_is_found(tmp_path: Path) -> None:
    """Left out alone, counted; said."""
    store = Store(bad=b"line 37\n")

    async def scene(sender: Sender) -> None:
        await offer(sender, *range(100))
        await anyio.sleep(1)

    sender, said = play(tmp_path / "s", store, scene)
    assert store.got == lines(*range(37), *range(38, 100))
    assert sender.counts.refused == 1
    assert said[0] == "log line refused"
    assert store.tries <= 16


def test_lines_are_counted_once_though_two_requests_are_under_way(tmp_path: Path) -> None:
    """What one of them had refused is not taken from what the other has sent."""
    store = Store(bad=b"line 3\n", takes_s=1)

    async def scene(sender: Sender) -> None:
        await offer(sender, *range(10))
        for number in range(10, 30):  # one of them is under way when the bad line of the first is found
            await anyio.sleep(0.7)
            await offer(sender, number)
        await anyio.sleep(60)

    sender, _ = play(tmp_path / "s", store, scene)
    assert sorted(store.got) == sorted(lines(*range(3), *range(4, 30)))
    assert (sender.counts.sent, sender.counts.refused) == (29, 1)


def test_what_refuses_everything(tmp_path: Path) -> None:
    """Is no store: nothing is left out, and it is not asked without pause; L14."""
    store = Store(is_none=True)

    async def scene(sender: Sender) -> None:
        await offer(sender, *range(1000))
        await anyio.sleep(100)
        assert store.tries < 12 * 8
        await offer(sender, 1000)
        await anyio.sleep(100)
        store.is_none = False
        await anyio.sleep(40)

    sender, said = play(tmp_path / "s", store, scene)
    assert store.got == lines(*range(1001))
    assert said == ["logs not sent", "logs go out again"]
    assert (sender.counts.sent, sender.counts.refused) == (1001, 0)


def test_small_batches_take_whole_blocks(tmp_path: Path) -> None:
    """L46: of the disk; so many files are no way around the limit, and what waited before counts as well."""
    spool = Spool(tmp_path, 10 * 4096)
    for number in range(15):
        spool.add(Batch(number, 2, b"x\ny\n"))
    assert (len(spool), spool.size_bytes, spool.lines) == (10, 10 * 4096, 20)
    again = Spool(tmp_path, 10 * 4096)
    assert (again.size_bytes, again.lines) == (spool.size_bytes, spool.lines)
    again.remove(14)
    again.add(Batch(20, 1, b"x" * 4097))
    assert (len(again), again.size_bytes, again.lines) == (9, 10 * 4096, 17)


def test_the_spool_is_bounded(tmp_path: Path) -> None:
    """The oldest go, counted and said; what is left is sent."""
    store = Store(away=True)

    async def scene(sender: Sender) -> None:
        for number in range(10):
            await sender.offer(b"%d" % number + b"x" * 999 + b"\n", 1)
            await anyio.sleep(60)
        assert sender.spool.size_bytes <= 20_000
        store.away = False
        await anyio.sleep(60)

    sender, said = play(tmp_path / "s", store, scene, limit=20_000)
    assert [line[:1] for line in store.got] == [b"6", b"7", b"8", b"9"]
    assert sender.counts.dropped == 6
    assert "log lines dropped" in said


def test_neither_store_nor_disk(tmp_path: Path) -> None:
    """Whoever reads waits, and nothing is lost: the lines are where they are."""
    store = Store(away=True)
    folder = tmp_path / "s"

    async def scene(sender: Sender) -> None:
        await offer(sender, 1)
        folder.rmdir()
        folder.write_text("")
        await anyio.sleep(5)
        await offer(sender, 2)
        entry = await sender.offer(b"line 3\n", 1)
        with anyio.move_on_after(60) as limit:
            await sender.insist(entry)
        assert limit.cancelled_caught
        folder.unlink()
        folder.mkdir()
        await sender.insist(entry)
        assert entry.safe.is_set()
        store.away = False
        await anyio.sleep(60)

    _, said = play(folder, store, scene)
    assert store.got == lines(1, 2, 3)
    assert "logs not kept" in said


def test_a_full_disk_and_a_store_that_is_well(tmp_path: Path) -> None:
    """What the disk does not take goes to the store as soon as that has what came before."""
    store = Store(takes_s=1)
    folder = tmp_path / "s"

    async def scene(sender: Sender) -> None:
        folder.rmdir()
        folder.write_text("")
        for number in range(5):
            await sender.insist(await sender.offer(b"line %d\n" % number, 1))
        await anyio.sleep(2)

    sender, _ = play(folder, store, scene)
    assert store.got == lines(*range(5))
    assert sender.counts.sent == 5


def test_a_spool_after_a_crash(tmp_path: Path) -> None:
    """What was being written is not there; odd files harm nobody."""
    spool = Spool(tmp_path, MIB)
    spool.add(Batch(7, 1, b"x\n"))
    (tmp_path / "0000000000000008-1.batch.new").write_text("half")
    (tmp_path / "odd.batch").write_text("")
    again = Spool(tmp_path, MIB)
    assert again.last_number == 7
    assert again.lines == 1
    found = []
    while (batch := again.oldest()) is not None:
        found.append(batch.content)
        again.remove(batch.number)
    assert found == [b"x\n"]


@pytest.mark.parametrize(
    "content", [pack(b"line 1\n")[:12], pack(b"line 1\n")[:-9], b"\x1f\x8b?", pack(b"")[:10] + b"?" * 20]
)
def test_a_batch_that_the_disk_has_damaged(tmp_path: Path, content: bytes) -> None:
    """L60: left out and counted when the store refuses it; what is behind it goes out."""
    spool = Spool(tmp_path / "s", MIB)
    spool.add(Batch(1, 1, content))
    spool.add(Batch(2, 1, b"line 2\n"))  # as it was before batches were packed
    store = Store(is_damaged_refused=True)

    async def scene(sender: Sender) -> None:
        await anyio.sleep(10)

    sender, said = play(tmp_path / "s", store, scene)
    assert store.got == lines(2)
    assert (sender.counts.refused, len(sender.spool), said) == (1, 0, ["log line refused"])


def test_a_disk_that_hangs_holds_up_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L60: adding, reading and removing a batch happen in threads, so that the event loop goes on; in order all the same."""
    store, hangs, threads = Store(away=True), threading.Event(), set()
    add, oldest, remove = Spool.add, Spool.oldest, Spool.remove

    def used(method: Callable[..., Any]) -> Callable[..., Any]:
        def use(*args: Any) -> Any:
            threads.add((method.__name__, threading.current_thread() is threading.main_thread()))
            assert hangs.wait(PATIENCE_S)
            return method(*args)

        return use

    for method in (add, oldest, remove):
        monkeypatch.setattr(Spool, method.__name__, used(method))

    async def main() -> None:
        sender = Sender(store, Spool(tmp_path / "s", MIB))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.run)
            await offer(sender, 1)
            tasks.start_soon(offer, sender, 2)
            while not threads:  # noqa: ASYNC110  # a thread tells nobody
                await anyio.sleep(0.01)
            await anyio.sleep(0.05)  # the loop still turns, although the disk does not
            assert len(sender.spool) == 0
            hangs.set()
            store.away = False
            with anyio.fail_after(PATIENCE_S):
                while len(store.got) < 2 or len(sender.spool):  # noqa: ASYNC110  # the store tells nobody
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    with capture_logs():
        anyio.run(main)
    assert threads == {("add", False), ("oldest", False), ("remove", False)}
    assert store.got == lines(1, 2)


def test_what_waits_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L60: a position is kept once a batch is safe, so the batch and its name are on the disk before."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    Spool(tmp_path / "s", MIB).add(Batch(1, 1, b"line 1\n"))
    first, second = synced
    assert (first.startswith(".0000000000000001-1.batch."), second) == (True, "s")
