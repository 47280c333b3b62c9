"""`shell.loops.work_queue`: each item done and acknowledged by itself, whatever becomes of the others."""

import json
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import structs
from structlog.testing import capture_logs

from core import bounds
from core.containers import ContainerId, DeploymentId
from shell.adapters.control_plane import ControlPlaneError
from shell.failure import AdapterError
from shell.ledger import Ledger
from shell.loops import work_queue
from shell.loops.work_queue import POLL_S, Hands
from shell.turns import Turns
from tests.builders import an_actual_container
from tests.shell import virtual_time
from tests.shell.stand_ins import Podman, failing, hanging

ONE = an_actual_container(pid=7)
DEPLOYMENT = ONE.deployment_id


def an_item(name: str, kind: str, payload: object) -> dict[str, Any]:
    """One item as the control plane lists it."""
    return {"id": name, "type": kind, "payload": json.dumps(payload), "createdAt": f"2026-01-01T00:00:00.{name}"}


STOP = an_item("s", "stop", {"deploymentId": DEPLOYMENT})
RESTART = an_item("r", "restart", {"deploymentId": DEPLOYMENT})


@dataclass
class Queue:
    """A control plane with these items; an acknowledged one leaves unless the acknowledgement was lost."""

    items: list[Any]
    raw: bytes | None = None
    lost: int = 0
    heard: list[tuple[str, str | None]] = field(default_factory=list)

    async def fetch_work(self) -> bytes:
        """The pending ones."""
        await anyio.lowlevel.checkpoint()
        return json.dumps({"items": self.items}).encode() if self.raw is None else self.raw

    async def complete_work(self, item_id: str, error: str | None = None) -> None:
        """As often as set up, fails before it is heard."""
        if self.lost:
            self.lost -= 1
            raise AdapterError("control plane", "acknowledge a work item", "it cannot be reached")
        self.heard.append((item_id, error))
        self.items = [one for one in self.items if not isinstance(one, dict) or one.get("id") != item_id]


@dataclass
class Bench:
    """A loop's hands with what they touch."""

    queue: Queue
    podman: Podman
    hands: Hands
    woken: list[frozenset[DeploymentId]]


def a_bench(folder: Path, *items: Any) -> Bench:
    """One container of ours is there."""
    queue, podman = Queue(list(items)), Podman(there={ONE.id: ONE})
    woken: list[frozenset[DeploymentId]] = []

    async def wake(gone: frozenset[DeploymentId]) -> None:
        woken.append(gone)

    hands = Hands(queue, podman, Ledger(folder), Turns(), wake, lambda: 0.0)
    return Bench(queue, podman, hands, woken)


def rounds(bench: Bench, number: int = 1) -> list[Any]:
    """What is logged while the loop asks so many times."""

    async def main() -> None:
        with anyio.move_on_after(POLL_S * number - 1):
            await work_queue.run(bench.hands)

    with capture_logs() as said:
        virtual_time.run(main)
    return [one for one in said if one["log_level"] in ("warning", "error")]


def test_an_item_is_done_and_acknowledged(tmp_path: Path) -> None:
    """The deployment that went is told, so that an older expected state does not bring it back."""
    bench = a_bench(tmp_path, STOP)
    assert rounds(bench, 2) == []
    assert bench.podman.journal == [("stop_and_remove", ONE.id)]
    assert bench.queue.heard == [("s", None)]
    assert bench.woken == [{DEPLOYMENT}]


def test_an_acknowledgement_is_repeated_and_the_work_is_not(tmp_path: Path) -> None:
    """L26: also across a restart of the agent; and said once."""
    bench = a_bench(tmp_path, RESTART)
    bench.queue.lost = 3
    said = rounds(bench, 2)
    assert [one["event"] for one in said] == ["work item left for later"]
    bench.hands = replace(bench.hands, ledger=Ledger(tmp_path))
    rounds(bench, 3)
    assert bench.podman.journal == [("restart", ONE.id)]
    assert bench.queue.heard == [("r", None)]


def test_a_restart_that_was_interrupted(tmp_path: Path) -> None:
    """L26: killed after Podman did it and before anybody wrote that down; the next run sees another process, and only acknowledges."""
    bench = a_bench(tmp_path, RESTART)

    async def restarted_then_killed() -> None:
        bench.podman.there[ONE.id] = structs.replace(ONE, pid=8)
        await anyio.sleep_forever()

    bench.podman.scripts["restart"] = restarted_then_killed
    rounds(bench)
    assert bench.queue.heard == []
    bench.hands = replace(bench.hands, ledger=Ledger(tmp_path))
    rounds(bench)
    assert bench.podman.journal == [("restart", ONE.id)]
    assert bench.queue.heard == [("r", None)]


def test_one_failure_holds_nothing_up(tmp_path: Path) -> None:
    """L2: what fails, what makes no sense and what has no name; the good one behind them is done."""
    bench = a_bench(tmp_path, RESTART, an_item("x", "explode", {}), {"id": "ill"}, 5, STOP)
    bench.podman.scripts["restart"] = failing("restart")
    said = rounds(bench, 3)
    assert dict(bench.queue.heard).keys() == {"r", "x", "ill", "s"}
    assert [bool(error) for _, error in sorted(bench.queue.heard)] == [True, True, False, True]
    assert [one["event"] for one in said].count("work item passed over") == 1


def test_every_container_gets_its_turn(tmp_path: Path) -> None:
    """One that cannot be removed keeps the others from nothing, and the item fails with the reason."""
    bench = a_bench(tmp_path, STOP)
    other = structs.replace(ONE, id=ContainerId("e" * 64))
    bench.podman.there[other.id] = other
    calls: list[str] = []

    async def first_fails() -> None:
        calls.append("stop")
        if len(calls) == 1:
            await failing("stop", "it is stuck")()

    bench.podman.scripts["stop_and_remove"] = first_fails
    rounds(bench)
    assert len(bench.podman.there) == 1
    ((name, error),) = bench.queue.heard
    assert name == "s"
    assert "it is stuck" in str(error)


def test_nothing_is_touched_when_nobody_knows_what_is_there(tmp_path: Path) -> None:
    """L3: the item waits until Podman lists again; said once, and wake-ups need no listing."""
    for script in (failing("list"), hanging):
        bench = a_bench(tmp_path, STOP, an_item("w", "deploy", {}))
        bench.podman.scripts["containers"] = script
        said = rounds(bench, 15)
        assert bench.queue.heard == [("w", None)]
        assert [one["event"] for one in said] == ["work item left for later"]
        del bench.podman.scripts["containers"]
        rounds(bench)
        assert bench.queue.heard == [("w", None), ("s", None)]
        (tmp_path / "work-done.json").unlink()


def test_a_queue_that_makes_no_sense(tmp_path: Path) -> None:
    """L4: said once, told to whoever asks, and asked for again."""
    bench = a_bench(tmp_path, STOP)
    heard: list[str | None] = []
    bench.hands = replace(bench.hands, heard=heard.append)
    bench.queue.raw = b"<html>"
    said = rounds(bench, 3)
    assert [one["event"] for one in said] == ["work queue not read"]
    assert all(one and "use the work queue" in one for one in heard)
    bench.queue.raw = None
    rounds(bench)
    assert heard[-1] is None
    assert bench.queue.heard == [("s", None)]


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """The item is done and acknowledged all the same, once, with a warning."""
    folder = tmp_path / "gone"
    folder.mkdir()
    bench = a_bench(folder, RESTART)
    folder.rmdir()
    bench.queue.lost = 1
    said = rounds(bench, 3)
    assert "state file not written" in [one["event"] for one in said]
    assert bench.podman.journal == [("restart", ONE.id)]
    assert bench.queue.heard == [("r", None)]


def test_pausing_in_the_middle(tmp_path: Path) -> None:
    """The item in hand is finished; the rest waits."""
    bench = a_bench(tmp_path, RESTART, STOP)

    async def paused() -> bool:
        return bool(bench.podman.journal)

    bench.hands = replace(bench.hands, paused=paused)
    rounds(bench, 3)
    assert bench.queue.heard == [("r", None)]


def test_it_waits_for_the_other_writer(tmp_path: Path) -> None:
    """One change at a time on this server."""
    bench = a_bench(tmp_path, STOP)

    async def busy(work: Callable[[], Awaitable[None]]) -> None:
        async with bench.hands.turns.lock:
            with anyio.move_on_after(2):
                await work()
            assert bench.podman.journal == []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(busy, anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            with anyio.move_on_after(4):
                await work_queue.run(bench.hands)

    virtual_time.run(main)
    assert bench.queue.heard == [("s", None)]


CLEANUP = an_item("v", "cleanup_volumes", {"serviceId": ONE.service_id})


def test_volumes_wait_until_the_last_container_is_gone(tmp_path: Path) -> None:
    """A deleted service's item comes before its containers are stopped, and once: neither refused nor acknowledged meanwhile."""
    bench = a_bench(tmp_path, CLEANUP)
    bench.hands = replace(bench.hands, expected=lambda since: frozenset())
    said = rounds(bench, 3)
    assert bench.hands.turns.epoch == 0, (
        "nobody who has looked meanwhile has to look again: the stop that it waits for would never come"
    )
    assert bench.woken == []
    assert [one["event"] for one in said] == ["work item left for later"]
    assert bench.queue.heard == bench.podman.journal == []
    bench.podman.there.clear()
    assert rounds(bench, 1) == []
    assert (bench.queue.heard, bench.podman.journal) == ([("v", None)], [("remove_volumes", ONE.service_id)])


def test_volumes_of_a_service_that_is_wanted_are_refused(tmp_path: Path) -> None:
    """L35: by an expected state that is no older than the item; until there is one, it is asked for and waited for."""
    bench = a_bench(tmp_path, CLEANUP)
    asked_at = -1.0
    assert DEPLOYMENT is not None
    wanted = frozenset({DEPLOYMENT})
    bench.hands = replace(bench.hands, expected=lambda since: wanted if asked_at >= since else None)
    rounds(bench, 2)
    assert bench.queue.heard == []
    assert bench.woken == [frozenset()] * 2
    asked_at = 1e9
    rounds(bench, 1)
    assert [name for name, error in bench.queue.heard if error is not None] == ["v"]
    assert bench.podman.journal == []


@pytest.mark.parametrize("kind", ["nameless", "ill-shaped", "refused"])
def test_lines_about_one_list_are_bounded(tmp_path: Path, kind: str) -> None:
    """L59: however many items make no sense, each in its own way; the rest is counted. The next list has lines of its own."""
    number = iter(range(10_000))

    def item() -> Any:
        name = f"{kind} {next(number)}"
        made = an_item(name, "restart", {"deploymentId": ""})
        missing = {"nameless": "id", "ill-shaped": "type"}.get(kind)
        return {key: value for key, value in made.items() if key != missing}

    bench = a_bench(tmp_path, *(item() for _ in range(50)))
    for _ in range(2):
        said = rounds(bench)
        about = [one for one in said if one["event"].startswith("work item ")]
        rest = [one["count"] for one in said if one["event"] == "more work items like these"]
        if kind == "nameless":  # they have one reason, which is said once
            assert (len(about) <= 1, rest) == (True, [])
        else:
            assert (len(about), rest) == (20, [30])
        bench.queue.items[:] = [item() for _ in range(50)]


def test_an_overlong_queue_is_remembered_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L26: what is done stays so while others are unread; of what is gone nothing is kept; that it is too long is said once."""
    monkeypatch.setattr(bounds, "WORK_ITEMS", 3)
    bench = a_bench(tmp_path)
    told: list[Set[str]] = []
    monkeypatch.setattr(Ledger, "still_pending", lambda ledger, ids: told.append(ids))
    said: list[Any] = []
    for number in range(5):
        names = [f"{number}{letter}" for letter in "abcdef"]
        bench.queue.items[:] = [an_item(name, "restart", {"deploymentId": ""}) for name in names]
        bench.queue.lost = 1000
        said += rounds(bench)
        assert told[-1] == set(names)
    assert [one["event"] for one in said].count("work queue too long") == 1
    assert len(bench.hands.seen) == 3
    assert len(bench.hands.complaints) <= 4


def test_acknowledgements_that_nobody_hears_hold_up_no_work(tmp_path: Path) -> None:
    """One is tried in a round, since each would take its whole time limit; what is asked for is done all the same."""
    wakes = [an_item(str(number), "deploy", {}) for number in range(20)]
    bench = a_bench(tmp_path, *wakes, STOP)
    bench.queue.lost = 2
    tried: list[str] = []
    complete = bench.queue.complete_work

    async def slowly(item_id: str, error: str | None = None) -> None:
        tried.append(item_id)
        if bench.queue.lost:
            await anyio.sleep(10)
        await complete(item_id, error)

    bench.queue.complete_work = slowly  # type: ignore[method-assign]  # an answer that does not come takes its time
    rounds(bench, 6)
    assert bench.podman.journal == [("stop_and_remove", ONE.id)]
    assert len(tried) == 2
    rounds(bench, 1)
    assert len(bench.queue.heard) == 21


def test_a_refused_acknowledgement_holds_up_no_other(tmp_path: Path) -> None:
    """Nor its own work, which is not done again."""
    bench = a_bench(tmp_path, RESTART, an_item("x", "deploy", {}))
    complete = bench.queue.complete_work

    async def refusing(item_id: str, error: str | None = None) -> None:
        if item_id == "r":
            raise ControlPlaneError("acknowledge a work item", "HTTP 400", "", 400)
        await complete(item_id, error)

    bench.queue.complete_work = refusing  # type: ignore[method-assign]  # one that it never takes
    rounds(bench, 3)
    assert bench.queue.heard == [("x", None)]
    assert bench.podman.journal == [("restart", ONE.id)]
