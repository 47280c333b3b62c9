"""`shell.loops.firewall` on a stand-in of the firewall, on virtual time."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from core.containers import ActualContainer, Port
from core.firewall import Blocked
from core.state import ExpectedState
from shell.adapters.firewall import Seen
from shell.failure import AdapterError
from shell.loops.firewall import FirewallLoop, Ports
from tests.builders import an_actual_container, an_expected_container
from tests.shell import virtual_time

WHOLE = Seen(fault=None, lost=(), blocked=())
DROPPER = Blocked("inet", "filter", "forward", "policy drop", ("the mesh to the containers",), ("nft insert rule …",))


@dataclass
class StandIn:
    """A firewall, an engine and the rest of a server. What is missing comes back when it is set, unless told otherwise."""

    seen: Seen = WHOLE
    containers: tuple[ActualContainer, ...] = field(default_factory=lambda: (an_actual_container(),))
    listed: tuple[ActualContainer, ...] | None = None
    expected: ExpectedState | None = None
    is_paused: bool = False
    helps: bool = True
    failure: AdapterError | None = None
    listing_fails: bool = False
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    done: list[tuple[float, str]] = field(default_factory=list)
    asked: list[tuple[bool, bool]] = field(default_factory=list)
    hangs: bool = False
    takes_s: float = 0

    async def fetch(self, *, runs: bool, publishes: bool) -> Seen:
        self.asked.append((runs, publishes))
        await anyio.sleep(self.takes_s)
        if self.hangs:
            await anyio.sleep_forever()
        if self.failure is not None:
            raise self.failure
        return self.seen if runs else replace(self.seen, lost=())

    async def paused(self) -> bool:
        return self.is_paused

    async def apply(self) -> None:
        self._note("apply")
        if self.helps:
            self.seen = replace(self.seen, fault=None)

    async def reload(self, container_id: str) -> None:
        self._note(f"reload {container_id[:4]}")
        if self.helps:
            self.seen = replace(self.seen, lost=())

    async def list_containers(self) -> tuple[ActualContainer, ...]:
        if self.listing_fails:
            raise AdapterError("podman", "list containers", "it is away")
        return self.containers if self.listed is None else self.listed

    def words(self) -> list[str]:
        return [word for _, word in self.done]

    def _note(self, word: str) -> None:
        assert self.lock.statistics().locked, "somebody else may be changing this server"
        self.done.append((anyio.current_time(), word))


def play(server: StandIn, scene: Callable[[FirewallLoop], Awaitable[None]]) -> list[Any]:
    """Run the loop beside a scene, which ends it; what was logged."""

    async def main() -> None:
        loop = FirewallLoop(
            Ports(
                firewall=server,
                containers=lambda: server.containers,
                list_containers=server.list_containers,
                expected=lambda: server.expected,
                lock=server.lock,
                is_paused=server.paused,
            )
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            await loop.first_turn()
            await scene(loop)
            tasks.cancel_scope.cancel()

    with capture_logs() as logs:
        virtual_time.run(main)
    return logs


def for_seconds(seconds: float) -> Callable[[FirewallLoop], Awaitable[None]]:
    async def scene(_: FirewallLoop) -> None:
        await anyio.sleep(seconds)

    return scene


def test_our_rules_are_set_before_anything_else() -> None:
    """A run that ends at once has set them, too; and nothing is said of a server that never had them."""
    server = StandIn(seen=Seen("a rule is missing", (), ()))
    logs = play(server, for_seconds(0))
    assert (server.words(), logs) == (["apply"], [])


def test_the_start_waits_for_no_firewall() -> None:
    """L16: it hangs, and the agent starts within seconds."""
    server = StandIn(hangs=True)

    async def scene(_: FirewallLoop) -> None:
        assert 0 < anyio.current_time() < 5

    play(server, scene)


def test_a_flush_is_mended_within_one_poll() -> None:
    """L54: ours by us, Podman's by one reload of one container, since the rules are their network's."""
    server = StandIn()

    async def scene(_: FirewallLoop) -> None:
        await anyio.sleep(60)
        server.seen = Seen("a rule is missing", ("masquerading",), ())
        flushed_at = anyio.current_time()
        await anyio.sleep(10)
        assert server.words() == ["apply", f"reload {min(one.id for one in server.containers)[:4]}"]
        assert all(at - flushed_at <= 10 for at, _ in server.done)
        await anyio.sleep(600)

    logs = play(server, scene)
    assert len(server.done) == 2
    assert [one["event"] for one in logs] == ["Podman's firewall rules removed"]


def test_a_removal_of_ours_is_said() -> None:
    """L21: once the agent had set them, a firewall manager is named; a quarrel costs no more than a change in five seconds."""
    server = StandIn(seen=Seen("a firewall manager has removed a rule", (), ()))

    async def scene(_: FirewallLoop) -> None:
        for _round in range(60):
            server.seen = Seen("a firewall manager has removed a rule", (), ())
            await anyio.sleep(0.5)

    logs = play(server, scene)
    assert 3 <= len(server.done) <= 8
    assert {one["event"] for one in logs} == {"firewall rules removed"}


def test_each_container_with_ports_of_this_server_is_reloaded() -> None:
    """They have rules of their own; containers with an address have none."""
    first = an_expected_container(address=None, ports=(Port(80, 30_000),))
    server = StandIn(
        seen=Seen(None, ("ports of this server",), ()),
        containers=(an_actual_container(id="0aaa" * 16, deployment_id="other"), an_actual_container()),
        expected=ExpectedState((first,), (), (), ()),
    )
    play(server, for_seconds(6))
    assert server.asked[0] == (True, True)
    assert server.words() == [f"reload {server.containers[1].id[:4]}"]


def test_what_ended_meanwhile_is_no_loss() -> None:
    """Podman takes the rules of a network away with its last container: a fresh listing decides, and not the last look."""
    server = StandIn(seen=Seen(None, ("masquerading",), ()), listed=())
    play(server, for_seconds(60))
    assert server.done == []


def test_reloads_that_bring_nothing_back_end() -> None:
    """L14: each costs a container its network for a moment. Three, further and further apart, and then a word what to do."""
    server = StandIn(seen=Seen(None, ("masquerading",), ()), helps=False)
    logs = play(server, for_seconds(3600))
    times = [at for at, _ in server.done]
    assert len(times) == 3
    assert times[1] - times[0] >= 8 and times[2] - times[1] >= 16
    assert "not tried again" in logs[-1]["then"] and "network reload --all" in logs[-1]["then"]


def test_a_well_look_makes_up_for_what_was_in_vain() -> None:
    """The administrator has put it right; the next flush is mended as the first."""
    server = StandIn(seen=Seen(None, ("masquerading",), ()), helps=False)

    async def scene(_: FirewallLoop) -> None:
        await anyio.sleep(3600)
        server.seen, server.helps = WHOLE, True
        await anyio.sleep(10)
        server.seen = Seen(None, ("masquerading",), ())
        await anyio.sleep(10)

    play(server, scene)
    assert len(server.done) == 4


def test_nothing_is_changed_while_paused() -> None:
    """It is seen, and mended when the pause is over."""
    server = StandIn(seen=Seen("a rule is missing", ("masquerading",), ()), is_paused=True)

    async def scene(loop: FirewallLoop) -> None:
        await anyio.sleep(60)
        assert server.done == []
        assert loop.document()["missing"] == ["a rule is missing", "masquerading"]
        server.is_paused = False
        await anyio.sleep(10)
        assert loop.document()["missing"] == []

    play(server, scene)
    assert len(server.done) == 2


def test_our_rules_need_no_podman() -> None:
    """L16: they are set while it is away; its own wait for it."""
    server = StandIn(seen=Seen("a rule is missing", ("masquerading",), ()), listing_fails=True)
    logs = play(server, for_seconds(60))
    assert server.words() == ["apply"]
    assert [one["event"] for one in logs] == ["firewall not read"], "said once"


def test_another_firewall_is_named_once_until_it_changes() -> None:
    """L54: with the rule to add, in the log and for `agent status`; and never changed."""
    server = StandIn(seen=Seen(None, (), (DROPPER,)))

    async def scene(loop: FirewallLoop) -> None:
        await anyio.sleep(60)
        assert loop.document()["blocked"] == [DROPPER.json()]
        server.seen = Seen(None, (), (replace(DROPPER, by="a rule"),))
        await anyio.sleep(60)
        server.seen = WHOLE
        await anyio.sleep(60)
        assert loop.document() == {"failure": None, "othersSeen": True, "missing": [], "blocked": []}

    logs = play(server, scene)
    named = "firewall drops what must pass"
    assert [one["event"] for one in logs] == [named, named, "firewall drops nothing any more that must pass"]
    assert DROPPER.commands[0] in logs[0]["then"]
    assert server.done == []


@pytest.mark.parametrize(
    "error", [AdapterError("firewall", "read the rules", "they change"), OSError("no file is free")]
)
def test_what_cannot_be_read_is_said_once(error: Exception) -> None:
    """And looked at again; a failure is no reason to change anything."""
    server = StandIn(failure=error)  # type: ignore[arg-type]  # a system's error reaches the loop as well

    async def scene(loop: FirewallLoop) -> None:
        await anyio.sleep(60)
        assert loop.document()["failure"] == str(error)
        server.failure = None
        await anyio.sleep(10)
        assert loop.document()["failure"] is None

    logs = play(server, scene)
    assert [one["event"] for one in logs] == ["firewall not read"]
    assert server.done == []


def test_a_firewall_that_is_slow_to_read_is_read_less_often() -> None:
    """Twenty thousand rules that change all the time: the agent spends a twentieth of one processor, not half of it."""
    server = StandIn(takes_s=2)
    play(server, for_seconds(200))
    assert len(server.asked) == 5


def test_nothing_is_set_where_a_person_has_paused_while_another_change_was_waited_for() -> None:
    server = StandIn(seen=Seen("a rule is missing", ("masquerading",), ()))

    async def busy() -> None:
        async with server.lock:
            await anyio.sleep(2)
            server.is_paused = True

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(busy)
            await anyio.lowlevel.checkpoint()
            loop = FirewallLoop(
                Ports(
                    firewall=server,
                    containers=lambda: server.containers,
                    list_containers=server.list_containers,
                    expected=lambda: server.expected,
                    lock=server.lock,
                    is_paused=server.paused,
                )
            )
            tasks.start_soon(loop.run)
            await anyio.sleep(60)
            tasks.cancel_scope.cancel()

    virtual_time.run(main)
    assert server.words() == []
