"""`shell.gather`: the whole server in one look, and what cannot be seen is never taken for empty."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from core import plan
from core.action import UpdateCaddy, UpdateDns
from core.caddy import Route
from core.caddy_config import ALTERED
from core.dns import Record
from core.local_rules import LocalRules
from core.state import UNREAD, ActualState, ExpectedState, Held, NodeType
from shell.components import Components
from shell.gather import LOOK_LIMIT_S, Gather, NotListedError
from tests.builders import actual_of, an_actual_document
from tests.shell import virtual_time
from tests.shell.stand_ins import Script, Stage, failing, hanging, taking

RULES = LocalRules(names=frozenset({"web1.example.org"}), searched=frozenset({"corp.internal"}))
STATE = actual_of(an_actual_document())
WALL = 1_767_500_100.0


async def no_process() -> None:
    """As when the kernel's table of processes, or of open files, is full."""
    await anyio.lowlevel.checkpoint()
    raise BlockingIOError(11, "Resource temporarily unavailable")


def a_stage() -> Stage:
    """A server with one of each."""
    stage = Stage()
    stage.serve(STATE)
    return stage


def looks(stage: Stage, *scripts: dict[str, Script]) -> tuple[list[ActualState], list[Any]]:
    """One look for each set of fetch scripts, by the same Gather; what was seen, and what was said."""
    seen: list[ActualState] = []

    async def main() -> None:
        gather = Gather(stage.components, rules=RULES)
        for one in scripts:
            for name in ("dns", "caddy", "wireguard"):
                component = getattr(stage, name)
                component.scripts = {"fetch": one[name]} if name in one else {}
            seen.append(await gather(WALL))

    with capture_logs() as said:
        virtual_time.run(main)
    return seen, said


def test_everything_in_one_look() -> None:
    """What was served is also what is remembered as served last."""
    (seen,), said = looks(a_stage(), {})
    assert seen == replace(STATE, dns_before=seen.dns, caddy_before=seen.caddy)  # type: ignore[arg-type]  # they were read
    assert (seen.dns_before, seen.caddy_before) == (STATE.dns, STATE.caddy)
    assert said == []


def test_all_components_are_read_at_the_same_time() -> None:
    """A look lasts as long as its slowest part, not as long as all of them."""
    stage = a_stage()
    stage.podman.scripts["containers"] = taking(5)
    slow = taking(5)

    async def main() -> float:
        stage.dns.scripts = stage.caddy.scripts = stage.wireguard.scripts = {"fetch": slow}
        await Gather(stage.components)(WALL)
        return anyio.current_time()

    assert virtual_time.run(main) == pytest.approx(5)


@pytest.mark.parametrize("script", [failing("list containers"), hanging], ids=["fails", "hangs"])
def test_containers_that_cannot_be_listed_fail_the_look(script: Script) -> None:
    """L3: never an empty server; a listing that hangs is given up (L13)."""
    stage = a_stage()
    stage.podman.scripts["containers"] = script

    async def main() -> float:
        with pytest.raises(NotListedError, match="list containers") as caught:
            await Gather(stage.components)(WALL)
        seen = caught.value.beside
        assert (seen.dns, seen.caddy, seen.wireguard) == (STATE.dns, STATE.caddy, STATE.wireguard), "L16"
        return anyio.current_time()

    assert virtual_time.run(main) <= LOOK_LIMIT_S


@pytest.mark.parametrize("name", ["dns", "caddy", "wireguard"])
@pytest.mark.parametrize("script", [failing("read"), hanging, no_process], ids=["fails", "hangs", "no process"])
def test_a_component_that_cannot_be_read_is_unread_alone(name: str, script: Script) -> None:
    """L3, L16: unread is a value of its own, and the others are seen as they are."""
    (seen,), said = looks(a_stage(), {name: script})
    whole = replace(seen, **{name: getattr(STATE, name)}, dns_before=(), caddy_before=())
    assert getattr(seen, name) is UNREAD
    assert whole == STATE
    assert [(one["event"], one["component"]) for one in said] == [("component not read", name)]
    assert said[0]["why"]


def test_a_lasting_fault_is_said_once_and_its_end_too() -> None:
    """The same fault again says nothing; another fault, the end and a new beginning do."""
    one, other = failing("read", "refused"), failing("read", "garbage")
    _, said = looks(a_stage(), {"dns": one}, {"dns": one}, {"dns": other}, {"dns": other}, {}, {}, {"dns": one})
    assert [entry["event"] for entry in said] == [
        "component not read",
        "component not read",
        "component read again",
        "component not read",
    ]


def test_faults_of_two_components_are_said_apart() -> None:
    """One component's complaint neither hides nor ends another's."""
    fault = failing("read")
    _, said = looks(a_stage(), {"dns": fault}, {"dns": fault, "caddy": fault}, {"caddy": fault})
    assert [(entry["event"], entry["component"]) for entry in said] == [
        ("component not read", "dns"),
        ("component not read", "caddy"),
        ("component read again", "dns"),
    ]


def test_what_was_served_before_is_remembered_while_unread() -> None:
    """So that held names survive a restart of the component (L7); the next good look replaces it."""
    stage = a_stage()
    fault = failing("read")
    seen, _ = looks(stage, {}, {"dns": fault, "caddy": fault}, {"dns": fault, "caddy": fault})
    for one in seen[1:]:
        assert (one.dns, one.caddy) == (UNREAD, UNREAD)
        assert (one.dns_before, one.caddy_before) == (STATE.dns, STATE.caddy)
    stage.dns.now = ()
    (fresh,), _ = looks(stage, {})
    assert (fresh.dns, fresh.dns_before) == ((), ())


def test_a_component_that_is_not_managed_is_empty() -> None:
    """It is left out of the expected side as well, so it is neither unread nor drift."""
    stage = a_stage()

    async def main() -> ActualState:
        return await Gather(Components(stage.podman))(WALL)

    assert virtual_time.run(main) == ActualState(containers=STATE.containers)


def test_the_wall_clock_is_handed_on() -> None:
    """Podman's ages are reckoned from the time that the caller gives."""
    stage = a_stage()
    heard: list[float] = []
    listing: Callable[[float], Awaitable[Any]] = stage.podman.containers

    async def containers(wall_now_s: float) -> Any:
        heard.append(wall_now_s)
        return await listing(wall_now_s)

    stage.podman.containers = containers  # type: ignore[method-assign]  # listens in

    async def main() -> None:
        await Gather(stage.components)(WALL)

    virtual_time.run(main)
    assert heard == [WALL]


def test_being_cancelled_is_not_a_fault() -> None:
    """L13: a stop in the middle of a look ends it at once and says nothing."""
    stage = a_stage()
    stage.dns.scripts["fetch"] = hanging

    async def main() -> float:
        with anyio.move_on_after(1):
            await Gather(stage.components)(WALL)
        return anyio.current_time()

    with capture_logs() as said:
        assert virtual_time.run(main) == pytest.approx(1)
    assert said == []


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("caddy", Route("evil", "localhost", "s", ("127.0.0.1:2019",))),
        ("caddy", Route("evil", "app.example.org", "s", ("10.200.3.1:53",))),
        ("caddy", Route("evil", "web1.example.org", "s", ("10.200.1.5:80",))),
        ("caddy", Route("evil", "*.example.org", "s", ("10.200.1.5:80",))),
        ("caddy", ALTERED),
        ("dns", Record("metadata.google.internal", ("10.200.3.2",))),
        ("dns", Record("db.corp.internal", ("10.200.3.2",))),
        ("dns", Record("_unmarked._techulus.internal", ("192.0.2.1",))),
    ],
)
def test_what_could_never_be_expected_is_not_held(name: str, planted: Any) -> None:
    """L61, L62: planted before the agent knew better, it goes with the next update, whatever is held; what was good beside it stays."""
    stage = a_stage()
    good = getattr(STATE, name)
    getattr(stage, name).now = (*good, planted)
    (seen, again), said = looks(stage, {}, {})
    assert getattr(seen, name) is UNREAD and getattr(again, name) is UNREAD
    assert getattr(seen, f"{name}_before") == getattr(again, f"{name}_before") == good
    assert [(one["event"], one["component"]) for one in said] == [("component not read", name)]
    key = planted.id if isinstance(planted, Route) else planted.name
    held = Held(**{name: frozenset({key, *(one.id if isinstance(one, Route) else one.name for one in good)})})
    (update,) = [
        one
        for one in plan.plan(ExpectedState(held=held), seen, NodeType.PROXY)
        if isinstance(one, UpdateCaddy if name == "caddy" else UpdateDns)
    ]
    assert (update.routes if isinstance(update, UpdateCaddy) else update.records) == good
