"""`shell.perform` beside the work queue: one change at a time, nothing held longer than a change, and each change says why it was made."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
from structlog.contextvars import get_contextvars

from core.action import Action, CouldNotBeRead, NotRunning, Redeploy, Start, StopOrphan, UpdateDns, explain
from core.dns import Record
from core.events import Applied, Failed, Outcome, Withheld
from shell.perform import Perform
from tests.shell import virtual_time
from tests.shell.stand_ins import Stage, failing, image_id_of, taking
from tests.shell.test_perform import DEPLOY, GONE, HERE, KEY, MADE, NETWORK, ORPHAN, REDEPLOY, WANTED, a_stage

START = Start(WANTED.deployment_id, HERE, WANTED.name, NotRunning("exited"))
DNS = UpdateDns((Record("web.internal", ("10.200.3.2",)),), CouldNotBeRead())

Ask = Callable[[Action], Awaitable[str | None]]
Other = Callable[[anyio.Lock], Coroutine[Any, Any, None]]


async def nobody(writer: anyio.Lock) -> None:
    """Nothing else wants to change this server."""


async def never_withheld(action: Action) -> str | None:
    """Nothing has come in between."""
    return None


def beside(
    stage: Stage, action: Action, other: Other = nobody, withheld: Ask = never_withheld
) -> tuple[Outcome, float]:
    """The outcome of an action and how long it took, while somebody else does something with the writer."""

    async def main() -> tuple[Outcome, float]:
        writer = anyio.Lock()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other, writer)
            await anyio.lowlevel.checkpoint()
            performing = Perform(stage.components, image_id_of, KEY, writer, withheld)
            began = anyio.current_time()
            outcome = await performing(action)
            took = anyio.current_time() - began
            tasks.cancel_scope.cancel()
        assert not writer.locked(), "whatever came of it"
        return outcome, took

    return virtual_time.run(main)


@pytest.mark.parametrize(
    "action", [DEPLOY, REDEPLOY, ORPHAN, START, DNS], ids=["deploy", "redeploy", "orphan", "start", "dns"]
)
def test_a_change_waits_for_the_one_in_hand(action: Action) -> None:
    """One writer: nothing is touched before a work item has done its part."""
    stage = a_stage(there=action is not DEPLOY)

    async def working(writer: anyio.Lock) -> None:
        async with writer:
            await anyio.sleep(30)
            assert stage.journal == []

    assert beside(stage, action, working) == (Applied(), 30.0)
    assert stage.journal


def test_the_whole_change_is_one_turn() -> None:
    """Nobody comes between the old container's end and the new one's start."""
    stage = a_stage(there=True)
    stage.podman.scripts |= {"stop_and_remove": taking(5), "create_and_start": taking(5)}

    async def working(writer: anyio.Lock) -> None:
        await anyio.sleep(1)
        async with writer:
            stage.journal.append(("work item",))

    assert beside(stage, REDEPLOY, working)[0] == Applied()
    assert stage.journal[:3] == [NETWORK, GONE, MADE]


@pytest.mark.parametrize(
    "action", [DEPLOY, REDEPLOY, ORPHAN, START, DNS], ids=["deploy", "redeploy", "orphan", "start", "dns"]
)
def test_whether_it_may_be_begun_is_asked_when_its_turn_has_come(action: Action) -> None:
    """L2: a work item removes the deployment while the change waits for it; the older choice is not carried out."""
    stage = a_stage(there=action is not DEPLOY)
    overtaken: list[str] = []

    async def working(writer: anyio.Lock) -> None:
        async with writer:
            await anyio.sleep(30)
            overtaken.append("a work item has just removed this deployment")

    async def withheld(asked: Action) -> str | None:
        return overtaken[0] if overtaken and asked == action else None

    outcome, _ = beside(stage, action, working, withheld)
    assert outcome == Withheld("a work item has just removed this deployment")
    assert stage.journal == []


@pytest.mark.parametrize("step", ["ensure_network", "stop_and_remove", "create_and_start"])
def test_a_change_that_fails_gives_its_turn_back(step: str) -> None:
    """Else nothing would ever be changed again."""
    stage = a_stage(there=True)
    stage.podman.scripts[step] = failing(step)
    outcome, _ = beside(stage, REDEPLOY)
    assert isinstance(outcome, Failed)


@pytest.mark.parametrize("action", [REDEPLOY, ORPHAN], ids=["redeploy", "orphan"])
def test_a_removal_knows_why_and_for_whom(action: Redeploy | StopOrphan) -> None:
    """Whoever wonders where a container went reads it beside the removal, and beside nothing else."""
    stage = a_stage(there=True)
    bound: list[dict[str, Any]] = []

    async def removing() -> None:
        bound.append(dict(get_contextvars()))

    stage.podman.scripts["stop_and_remove"] = removing
    assert beside(stage, action)[0] == Applied()
    assert bound == [{"source": "expected state", "why": explain(action.reason)}]
    assert get_contextvars() == {}
