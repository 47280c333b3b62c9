"""`shell.turns`: a look that a work item has overtaken is known as such."""

import anyio

from shell.turns import Turns
from tests.shell import virtual_time


def test_a_look_before_during_and_after_a_work_item() -> None:
    """Only what was seen after the item's end is good for a change; the item may also have failed."""

    async def main() -> None:
        turns = Turns()
        before = turns.epoch
        try:
            async with turns.lock:
                assert turns.epoch == before, "to look and decide overtakes nobody"
                with turns.changing():
                    during = turns.epoch
                    raise ValueError
        except ValueError:
            pass
        assert len({before, during, turns.epoch}) == 3

    virtual_time.run(main)


def test_one_at_a_time() -> None:
    """A work item waits for the state machine's change, and begins no sooner."""

    async def main() -> list[float]:
        turns = Turns()
        begun: list[float] = []

        async def item() -> None:
            async with turns.lock:
                with turns.changing():
                    begun.append(anyio.current_time())
                    await anyio.sleep(1)

        async with anyio.create_task_group() as tasks, turns.lock:
            tasks.start_soon(item)
            tasks.start_soon(item)
            await anyio.sleep(5)
            assert turns.epoch == 0
        return begun

    assert virtual_time.run(main) == [5.0, 6.0]
