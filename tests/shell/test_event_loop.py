"""`shell.event_loop`: what holds up the loop is counted and named."""

import selectors
import time

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from shell import event_loop
from shell.event_loop import METRIC, SLOW_S, WatchedSelector
from shell.figures import FIGURES


def count() -> int:
    """Slow turns so far."""
    return FIGURES.counts[METRIC, ()]


def occupied(seconds: float) -> None:
    """Keep the thread for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def in_a_task_of_its_own() -> None:
    """Hold up the loop twice at one place, in a task with a name."""

    async def hold_up() -> None:
        for _ in range(2):
            occupied(1.5 * SLOW_S)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold_up, name="reports")


def test_a_turn_that_takes_long_is_logged_with_its_task_and_place() -> None:
    """L55: once for one place, and counted each time."""
    before = count()
    with capture_logs() as said:
        event_loop.run(in_a_task_of_its_own)
    told = [one for one in said if one["event"] == "event loop held up" and one["by"].startswith("reports: ")]
    assert len(told) == 1, said
    assert "occupied (test_event_loop.py:" in told[0]["by"]
    assert "hold_up" in told[0]["by"]
    assert told[0]["seconds"] >= SLOW_S
    assert count() >= before + 2


def test_a_wait_that_ends_late_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that keeps the interpreter holds up the loop as well."""

    def late(self: object, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        occupied(1.2 * SLOW_S)
        return []

    monkeypatch.setattr(selectors.DefaultSelector, "select", late)
    before = count()
    with capture_logs() as said:
        selector = WatchedSelector()
        selector.select(0.0)
        selector.close()
    assert count() == before + 1
    assert [one["by"] for one in said] == ["another thread, or the machine"]


def test_a_loop_that_moves_is_not_told_of() -> None:
    """However long it waits for something to do."""

    async def main() -> None:
        await anyio.lowlevel.checkpoint()

    with capture_logs() as said:
        event_loop.run(main)
    assert [one for one in said if one.get("by", "").startswith("main")] == []
