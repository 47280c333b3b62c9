"""`shell.loops.reconcile`: every effect is carried out and answered, one change at a time, and a stop ends it from anywhere."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from core import plan
from core.action import Action, subject
from core.containers import DeploymentId
from core.events import Applied, Effect, Failed, Note, Outcome
from core.fetching import ImageRequest
from core.memory import DEADLINE_S, POLL_S, Memory
from core.phases import Idle, Processing, State
from core.state import ActualState, ExpectedState, NodeType
from core.status import Entry
from shell.loops.reconcile import Reconcile, World
from tests.builders import an_image
from tests.core.simulated_server import there, want
from tests.shell import virtual_time
from tests.shell.stand_ins import Script, failing, hanging, taking


@dataclass
class Server:
    """A server and its control plane: `scripts` run inside the call of their name; `act` decides how an action ends."""

    expected: ExpectedState
    actual: ActualState = field(default_factory=ActualState)
    scripts: dict[str, Script] = field(default_factory=dict)
    outcome: Callable[[Action], Outcome] = lambda action: Applied()
    begun: list[tuple[float, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    fetched: list[float] = field(default_factory=list)
    reported: list[tuple[str, tuple[Entry, ...]]] = field(default_factory=list)
    remembered: int = 0
    slow: frozenset[str] = frozenset()
    answer: Callable[[ImageRequest], object] = lambda request: None
    heard: list[tuple[State, tuple[Effect, ...]]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """What actions were begun, in order."""
        return [name for _, name in self.begun]

    @property
    def world(self) -> World:
        """As the loop is given it."""
        return World(self.fetch, self.look, self.perform, self.fetch_images, self.post, self.deliver, self.remember)

    async def fetch(self) -> ExpectedState:
        """The expected state."""
        self.fetched.append(anyio.current_time())
        await self._scripted("fetch")
        return self.expected

    async def look(self) -> ActualState:
        """What is there at the end of the look."""
        await self._scripted("look")
        return self.actual

    async def perform(self, action: Action) -> Outcome:
        """Do it, unless the test says otherwise; never beside another, and never without the writer's lock."""
        assert len(self.begun) == len(self.ended), "one change at a time"
        self.begun.append((anyio.current_time(), subject(action)))
        try:
            await self._scripted("perform")
        finally:
            self.ended.append(subject(action))
        outcome = self.outcome(action)
        if isinstance(outcome, Applied):
            self.actual = plan.predict(self.actual, (action,))
        return outcome

    def fetch_images(self, requests: tuple[ImageRequest, ...]) -> None:
        """All are here at once, but those that the test answers itself."""
        for one in requests:
            if one.deployment_id not in self.slow:
                self.answer(one)

    def post(self, entries: tuple[Entry, ...]) -> None:
        """Write it down."""
        self.reported.append(("post", entries))

    async def deliver(self, entries: tuple[Entry, ...]) -> None:
        """Write it down."""
        await self._scripted("deliver")
        self.reported.append(("deliver", entries))

    async def remember(self) -> None:
        """Count it."""
        await self._scripted("remember")
        self.remembered += 1

    def observe(self, state: State, effects: tuple[Effect, ...]) -> None:
        """Write it down."""
        self.heard.append((state, effects))

    async def _scripted(self, name: str) -> None:
        await anyio.lowlevel.checkpoint()
        if name in self.scripts:
            await self.scripts[name]()


Scene = Callable[[Reconcile], Awaitable[Any]]


def play(server: Server, scene: Scene, memory: Memory | None = None) -> float:
    """Run the loop beside a scene, then stop it; the second at which the loop ended."""
    ends: list[float] = []

    async def main() -> None:
        loop = Reconcile(memory or Memory(NodeType.WORKER, seed="test"), server.observe)

        async def work() -> None:
            await loop.run(server.world)
            ends.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            server.answer = lambda request: tasks.start_soon(loop.image_fetched, request, None)
            tasks.start_soon(work)
            await scene(loop)
            await loop.stop()

    virtual_time.run(main)
    return ends[0]


def after(seconds: float) -> Scene:
    """A scene in which only time passes."""

    async def scene(_: Reconcile) -> None:
        await anyio.sleep(seconds)

    return scene


def phases(server: Server) -> set[str]:
    """The names of all phases that were gone through."""
    return {type(state.phase).__name__ for state, _ in server.heard}


def test_drift_is_worked_off_without_waiting() -> None:
    """One poll, one change after the other, one last report, and the state in force is kept."""
    server = Server(want("a", "b", "c"), there("gone"))
    play(server, after(5))
    assert server.names == ["gone", "a", "b", "c"]
    assert [when for when, _ in server.begun] == [0.0] * 4
    assert plan.next_action(server.expected, server.actual, NodeType.WORKER) is None
    assert server.fetched == [0.0]
    assert [how for how, _ in server.reported] == ["post"] * 5 + ["deliver"]
    assert server.remembered == 1
    assert {"Waiting", "Fetching", "Looking", "AwaitingImages", "Changing", "LookingAgain", "Closing"} <= phases(server)


def test_it_polls_every_ten_seconds_and_reports_each_time() -> None:
    """L14: a little less than ten, never less than nine and a half."""
    server = Server(want("a"), there("a"))
    play(server, after(101))
    assert 11 <= len(server.fetched) <= 12
    assert len(server.reported) == len(server.fetched)
    assert server.begun == []


def test_a_wake_up_polls_soon() -> None:
    """L15: at once while waiting; one that comes during a change leads to one poll right after it."""

    async def scene(loop: Reconcile) -> None:
        await anyio.sleep(5)
        server.expected = want("a", "b")
        await loop.wake()
        await anyio.sleep(0.5)
        assert server.fetched == [0.0, 5.0]
        assert server.names == ["b"]
        server.expected = want("a", "b", "c")
        await loop.wake()
        await loop.wake()
        await anyio.sleep(5)

    server = Server(want("a"), there("a"), {"perform": taking(2)})
    play(server, scene)
    assert server.fetched == [0.0, 5.0, 7.0]
    assert server.names == ["b", "c"]


def test_without_a_control_plane_the_last_good_state_stays_in_force() -> None:
    """L29: repairs go on; with nothing in force nothing is changed (L1)."""
    server = Server(want("a"), scripts={"fetch": failing("fetch the expected state")})
    with capture_logs() as said:
        play(server, after(5), Memory(NodeType.WORKER, in_force=want("a"), seed="test"))
    assert server.names == ["a"]
    assert "expected state not fetched" in [one["event"] for one in said]
    assert server.remembered == 0

    blank = Server(want("a"), there("x"), scripts={"fetch": failing("fetch the expected state")})
    play(blank, after(30))
    assert blank.begun == []
    assert blank.reported, "what runs is told all the same"


def test_a_server_that_cannot_be_seen_is_left_alone() -> None:
    """L3: no change, no report; afterwards it goes on by itself."""

    async def scene(_: Reconcile) -> None:
        await anyio.sleep(35)
        assert (server.begun, server.reported) == ([], [])
        del server.scripts["look"]
        await anyio.sleep(POLL_S)
        assert server.names == ["a"]

    server = Server(want("a"), there("x"), {"look": failing("list containers", "socket gone")})
    server.expected = want("x", "a")
    with capture_logs() as said:
        play(server, scene)
    assert {(one["event"], one["log_level"]) for one in said} >= {("containers not listed", "error")}


def test_a_failed_change_costs_the_others_nothing() -> None:
    """L11: it is tried again with growing pauses, the rest at once."""
    server = Server(
        want("a", "b", "c"), outcome=lambda action: Failed("no room") if subject(action) == "a" else Applied()
    )
    play(server, after(60))
    assert server.names[:3] == ["a", "b", "c"]
    tries = [when for when, name in server.begun if name == "a"]
    assert 3 <= len(tries) <= 4
    assert server.names.count("b") == server.names.count("c") == 1


@pytest.mark.parametrize("failure", [None, "manifest unknown"])
def test_a_change_that_waits_for_its_image(failure: str | None) -> None:
    """It waits until the image has come, and is made at once then; one that cannot be had is asked for again later."""

    async def scene(loop: Reconcile) -> None:
        await anyio.sleep(45)
        assert server.names == ["b"]
        (request,) = loop.state.memory.images.on_the_way.values()
        await loop.image_fetched(request, failure)
        await anyio.sleep(1)
        assert server.names == (["b", "a"] if failure is None else ["b"])

    server = Server(want("a", "b"), slow=frozenset({"a"}))
    play(server, scene)


def test_a_change_that_hangs() -> None:
    """L12, L13: after five minutes the round ends with a report; no second change is made beside the first, however long it takes."""

    async def scene(_: Reconcile) -> None:
        await anyio.sleep(DEADLINE_S + 1)
        assert [how for how, _ in server.reported].count("deliver") == 1
        polls = len(server.fetched)
        await anyio.sleep(200)
        assert len(server.fetched) > polls + 15
        assert server.names == ["a"]
        await anyio.sleep(200)
        assert server.names == ["a", "b"], "it ended after ten minutes, and the rest follows"

    server = Server(want("a", "b"), scripts={"perform": taking(600)})
    play(server, scene)


STEPS = ("fetch", "look", "perform", "deliver", "remember")


@pytest.mark.parametrize("halves", range(1, 34))
def test_a_stop_at_any_time(halves: int) -> None:
    """L13: the change in hand is finished, nothing is begun after, and a round that was under way is reported."""
    asked_at = halves / 2
    server = Server(want("a", "b", "c"), scripts={name: taking(1) for name in STEPS})
    ended_at = play(server, after(asked_at))
    assert len(server.begun) == len(server.ended)
    assert all(when < asked_at for when, _ in server.begun)
    assert ended_at - asked_at <= 3.5, "the change, a look and a report at most"
    state_when_asked = [state for state, _ in server.heard if not state.memory.stopping][-1]
    if isinstance(state_when_asked, Processing):
        assert server.reported[-1][0] == "deliver"
    else:
        assert ended_at == asked_at


def test_the_times_of_stopping_cover_every_phase() -> None:
    """So that the test above means what it says."""
    server = Server(want("a", "b", "c"), scripts={name: taking(1) for name in STEPS})
    play(server, after(16.5))
    assert phases(server) == {"Waiting", "Fetching", "Looking", "AwaitingImages", "Changing", "LookingAgain", "Closing"}
    assert isinstance(server.heard[-1][0], Idle)


def test_a_stop_before_it_has_begun() -> None:
    """It ends at once and nothing is changed."""
    server = Server(want("a"), scripts={"fetch": hanging})

    async def main() -> float:
        loop = Reconcile(Memory(NodeType.WORKER))
        await loop.stop()
        await loop.run(server.world)
        return anyio.current_time()

    assert virtual_time.run(main) == 0.0
    assert server.begun == []


def test_stopping_twice_and_late_news_do_no_harm() -> None:
    """An image may come, and a second stop be asked for, after the loop has ended."""
    server = Server(want("a"))

    async def main() -> None:
        loop = Reconcile(Memory(NodeType.WORKER))
        await loop.stop()
        await loop.stop()
        await loop.run(server.world)
        await loop.image_fetched(ImageRequest(DeploymentId("a"), an_image()), None)
        await loop.stop()
        await loop.wake()

    virtual_time.run(main)


def test_a_stop_when_the_server_cannot_be_seen() -> None:
    """L3, L13: it ends without a report."""

    async def scene(_: Reconcile) -> None:
        await anyio.sleep(0.5)
        server.scripts["look"] = failing("list containers")

    server = Server(want("a", "b"), scripts={"perform": taking(1)})
    assert play(server, scene) <= 2
    assert server.names == ["a"]
    assert "deliver" not in [how for how, _ in server.reported]


def test_a_stop_during_a_change_that_hangs_is_cut_short_by_cancelling() -> None:
    """L13: whoever runs the loop may cancel it at any moment."""
    server = Server(want("a"), scripts={"perform": hanging})

    async def main() -> float:
        loop = Reconcile(Memory(NodeType.WORKER))
        with anyio.move_on_after(8):
            async with anyio.create_task_group() as tasks:
                server.answer = lambda request: tasks.start_soon(loop.image_fetched, request, None)
                await loop.run(server.world)
        return anyio.current_time()

    assert virtual_time.run(main) == 8.0
    assert server.ended == ["a"]


def test_notes_become_log_lines() -> None:
    """With the level, the event and the facts of the note; nothing is said that is not a note."""
    server = Server(want("a"))
    with capture_logs() as said:
        play(server, after(1))
    notes = [effect for _, effects in server.heard for effect in effects if isinstance(effect, Note)]
    assert [(one["log_level"], one["event"]) for one in said] == [(note.level, note.event) for note in notes]
    assert [{key: one[key] for key, _ in note.facts} for one, note in zip(said, notes, strict=True)] == [
        dict(note.facts) for note in notes
    ]
    assert {"drift found", "applied", "processing ended"} <= {one["event"] for one in said}
