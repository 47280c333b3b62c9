"""Laws of `core.machine`: whatever happens, in whatever order, these hold in every state."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from core import machine, phases, plan, retry
from core.action import Action, subject
from core.containers import ContainerId, DeploymentId
from core.events import (
    ActionDone,
    Applied,
    ContainersChanged,
    Effect,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchFailed,
    FetchImages,
    Finish,
    ImageFetched,
    Look,
    Looked,
    LookFailed,
    Outcome,
    PauseSeen,
    Perform,
    Report,
    Reported,
    StopAsked,
    Tick,
    Woken,
)
from core.fetching import ImageRequest, doubted
from core.memory import Memory
from core.pause import Pause
from core.phases import Changing, Idle, Looking, Processing, State, Waiting
from core.state import ActualState, ExpectedState, NodeType
from tests.builders import an_actual_container, an_expected_container, an_image
from tests.core.simulated_server import Server, want

NAMES = ("a", "b", "c", "d", "e")
IMAGES = (an_image("one:1"), an_image("two:1"))
WANTED: st.SearchStrategy[ExpectedState] = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(IMAGES)), max_size=5, unique_by=lambda pair: pair[0]
).map(
    lambda pairs: ExpectedState(
        tuple(
            an_expected_container(deployment_id=DeploymentId(n), name=n, image=image)
            for n, image in sorted(pairs, key=str)
        )
    )
)
THERE: st.SearchStrategy[ActualState] = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(IMAGES),
        st.sampled_from(["running", "exited", "dead"]),
        st.sampled_from([None, 0.5, 9.0]),
    ),
    max_size=5,
    unique_by=lambda facts: facts[0],
).map(
    lambda all_facts: ActualState(
        tuple(
            an_actual_container(
                id=ContainerId(f"c-{n}"), deployment_id=DeploymentId(n), name=n, image=i, state=s, running_for_s=r
            )
            for n, i, s, r in all_facts
        )
    )
)
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from([Applied(), Failed("x")])
REQUESTS: st.SearchStrategy[ImageRequest] = st.builds(
    ImageRequest, st.sampled_from(NAMES).map(DeploymentId), st.sampled_from(IMAGES), st.booleans()
)
PAUSES = st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0, 10.0, 30.0, 299.0, 301.0])
SHORT_PAUSES = st.sampled_from([0.0, 0.01, 0.5, 3.0])


class Rounds(RuleBasedStateMachine):
    """Answers come when they please, but only to what was asked; everything else may happen at any time.

    `goes_on` answers and does not disturb; the other rules disturb.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.awaited: list[type[Effect]] = []
        self.performing: Action | None = None
        self.images: list[ImageRequest] = []
        self.last_seen: ActualState | None = None
        self.fetched_at = float("-inf")
        self.looked_unasked_at = float("-inf")
        self.finished = False
        self.state: State = Idle(Memory(NodeType.WORKER), Waiting(0.0))

    @initialize(known=st.none() | WANTED, data=st.data(), steps=st.integers(0, 12))
    def begin(self, known: ExpectedState | None, data: st.DataObject, steps: int) -> None:
        """With or without a state kept from before; undisturbed for a while, so that most runs get into PROCESSING."""
        self.state, _ = machine.start(Memory(NodeType.WORKER, in_force=known), self.now)
        self.goes_on(data, steps)

    def feed(self, event: Event) -> None:
        """One event, and the rules about what may follow from it."""
        before = self.state
        self.state, effects = machine.step(before, event, self.now)
        for effect in effects:
            self.heed(effect)
        if isinstance(before.phase, Waiting) and isinstance(self.state.phase, Looking):
            assert self.now > self.looked_unasked_at, "L14: a time that has come makes nobody look twice"
            self.looked_unasked_at = self.now
        if isinstance(self.state, Processing):
            self.looked_unasked_at = float("-inf")
        if isinstance(before, Processing) and isinstance(self.state, Idle):
            assert isinstance(event, Reported | LookFailed)

    def heed(self, effect: Effect) -> None:
        """What may be asked for, and when."""
        match effect:
            case Fetch():
                assert isinstance(self.state, Idle)
                assert self.now >= self.fetched_at + 1.0
                self.fetched_at = self.now
                self.awaited.append(Fetch)
            case Look():
                self.awaited.append(Look)
            case Report(final=final):
                if final:
                    self.awaited.append(Report)
            case Perform(action=action, expected=snapshot):
                self.check_perform(action, snapshot)
            case Finish():
                self.finished = True
            case FetchImages(requests=requests):
                assert requests
                assert not self.state.memory.stopping
                self.images += requests
            case _:
                pass
        assert len(self.awaited) <= 1, "one question at a time"

    def check_perform(self, action: Action, snapshot: ExpectedState) -> None:
        """One writer; only what the plan asks for, and what is neither put aside nor waiting for an image."""
        assert self.performing is None
        assert not self.state.memory.stopping
        assert self.state.memory.paused is None
        assert self.last_seen is not None
        assert action in plan.outstanding(snapshot, self.last_seen, NodeType.WORKER)
        key = retry.key(action)
        assert not retry.is_waiting(self.state.memory.retries, key, self.now)
        assert not self.state.memory.images.needs(action, snapshot, doubted(self.state.memory.retries))
        self.performing = action

    def answers(self, kind: type[Effect]) -> bool:
        """Whether an answer of that kind is awaited; then it is given."""
        if kind not in self.awaited:
            return False
        self.awaited.remove(kind)
        return True

    @rule(data=st.data(), steps=st.integers(1, 6))
    def undisturbed(self, data: st.DataObject, steps: int) -> None:
        """As on most days."""
        self.goes_on(data, steps)

    def goes_on(self, data: st.DataObject, steps: int) -> None:
        """What was asked for comes, at once or a little later; when nothing was, time passes until the machine wakes."""
        for _ in range(steps):
            if self.performing is not None:
                self.action_ended_as(data.draw(OUTCOMES), data.draw(SHORT_PAUSES))
            elif not self.awaited:
                self.now = max(self.now, phases.wake_at(self.state) or self.now)
                self.feed(Tick())
            elif (asked := self.awaited.pop()) is Fetch:
                self.feed(Fetched(data.draw(WANTED)))
            elif asked is Look:
                self.last_seen = data.draw(THERE)
                self.feed(Looked(self.last_seen))
            else:
                self.now += data.draw(SHORT_PAUSES)
                self.feed(Reported())

    @rule(pause=PAUSES)
    def tick(self, pause: float) -> None:
        """Time passes."""
        self.now += pause
        self.feed(Tick())

    @rule()
    def woken(self) -> None:
        """A work item, say."""
        self.feed(Woken())

    @rule()
    def containers_changed(self) -> None:
        """Podman says so."""
        self.feed(ContainersChanged())

    @precondition(lambda self: self.now > 20.0)
    @rule()
    def stop_asked(self) -> None:
        """SIGTERM."""
        self.feed(StopAsked())

    @rule(expected=st.none() | WANTED, pause=PAUSES)
    def fetched(self, expected: ExpectedState | None, pause: float) -> None:
        """The control plane answers, or does not."""
        if self.answers(Fetch):
            self.now += min(pause, 10.0)
            self.feed(FetchFailed("x") if expected is None else Fetched(expected))

    @rule(actual=st.none() | THERE)
    def looked(self, actual: ActualState | None) -> None:
        """The server looks like anything at all, or cannot be looked at."""
        if self.answers(Look):
            self.last_seen = actual
            self.feed(LookFailed("x", ActualState()) if actual is None else Looked(actual))

    @rule(outcome=OUTCOMES, pause=PAUSES)
    def action_ended(self, outcome: Outcome, pause: float) -> None:
        """The action that runs ends in any way."""
        if self.performing is not None:
            self.action_ended_as(outcome, pause)

    def action_ended_as(self, outcome: Outcome, pause: float) -> None:
        """After so long, in this way."""
        assert self.performing is not None
        self.now += pause
        ended, self.performing = self.performing, None
        self.feed(ActionDone(ended, outcome))

    @rule(pause=st.none() | st.just(Pause(0.0, None, "")))
    def paused(self, pause: Pause | None) -> None:
        """Somebody pauses the agent, or the pause ends; the shell tells only changes."""
        if pause != self.state.memory.paused:
            self.feed(PauseSeen(pause))

    @rule(failure=st.none() | st.just("x"), which=st.integers(0, 10))
    def image_fetched(self, failure: str | None, which: int) -> None:
        """An image that was asked for is here, or cannot be had."""
        if self.images:
            self.feed(ImageFetched(self.images.pop(which % len(self.images)), failure))

    @rule(request=REQUESTS, failure=st.none() | st.just("x"))
    def foreign_image(self, request: ImageRequest, failure: str | None) -> None:
        """An answer that nobody waits for."""
        if request not in self.images:
            self.feed(ImageFetched(request, failure))

    @rule()
    def reported(self) -> None:
        """The last report of a round has gone out."""
        if self.answers(Report):
            self.feed(Reported())

    @invariant()
    def something_will_happen(self) -> None:
        """Never stuck: an answer is awaited, or a time is set."""
        assert self.awaited or self.performing is not None or phases.wake_at(self.state) is not None

    @invariant()
    def what_runs_is_known(self) -> None:
        """While an action runs it is the one in hand, or remembered as unfinished; and nothing is remembered that has ended."""
        unfinished = self.state.memory.unfinished
        if self.performing is None:
            assert unfinished is None
        elif unfinished is None:
            assert isinstance(self.state, Processing)
            assert isinstance(self.state.phase, Changing)
        else:
            assert unfinished == retry.key(self.performing)

    @invariant()
    def a_stop_is_heard(self) -> None:
        """In IDLE it is over; in PROCESSING it will be."""
        if self.state.memory.stopping:
            assert self.finished or isinstance(self.state, Processing)


Rounds.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestRounds = Rounds.TestCase

ACTIONS = plan.plan(want(*NAMES), ActualState(), NodeType.WORKER)
ANY_EVENT: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(
        [
            *(
                Tick(),
                Woken(),
                StopAsked(),
                FetchFailed("x"),
                LookFailed("x"),
                LookFailed("x", ActualState()),
                Reported(),
            ),
            *(ContainersChanged(), PauseSeen(None), PauseSeen(Pause(0.0, None, ""))),
        ]
    ),
    WANTED.map(Fetched),
    THERE.map(Looked),
    st.builds(ActionDone, st.sampled_from(ACTIONS), OUTCOMES),
    st.builds(ImageFetched, REQUESTS, st.none() | st.just("x")),
)


@given(st.lists(st.tuples(ANY_EVENT, PAUSES), max_size=40))
def test_the_machine_is_total(events: list[tuple[Event, float]]) -> None:
    """Any event in any state, asked for or not: never an exception, and a state that goes on."""
    now = 0.0
    state, _ = machine.start(Memory(NodeType.PROXY), now)
    for event, pause in events:
        now += pause
        state, _ = machine.step(state, event, now)
        due = phases.wake_at(state)
        assert due is None or due >= 0.0


@given(WANTED, THERE, st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), max_size=3), st.integers(0, 5))
def test_it_converges_once_things_stop_failing(
    wanted: ExpectedState, there: ActualState, failures: dict[str, int], refused: int
) -> None:
    """Each container fails a few times, the control plane is away a few times: after that the server is as expected."""
    left = dict(failures)
    server = Server(None if refused else wanted, _steady(there))

    def outcome(action: Action) -> Outcome:
        name = subject(action)
        left[name] = left.get(name, 0) - 1
        return Failed("scripted") if left[name] >= 0 else Applied()

    server.outcome = outcome
    server.run(11.0 * refused)
    server.expected = wanted
    server.run(150.0)
    assert server.converged


def _steady(there: ActualState) -> ActualState:
    """Without times that stand still: those of new containers are the simulated server's affair."""
    return replace(there, containers=tuple(structs.replace(one, running_for_s=None) for one in there.containers))


FAILURES = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.floats(0.0, 40.0), min_size=1, max_size=8), min_size=1, max_size=5
)


@given(WANTED, THERE, FAILURES, st.booleans())
def test_each_retry_begins_when_its_time_has_come(
    wanted: ExpectedState, there: ActualState, failures: dict[str, list[float]], answered: bool
) -> None:
    """L53: within half a second of its time, or of the end of the change that was under way then; and nobody polls more often for it.

    The server and the control plane answer at once; each name's attempts fail after as long as they like, and then succeed.
    """
    server = Server(wanted if answered else None, _steady(there), in_force=wanted)
    left = {name: list(lengths) for name, lengths in failures.items()}
    due: dict[retry.RetryKey, float] = {}
    free_at = server.now

    def fails(action: Action) -> Outcome:
        return Failed("scripted") if left.get(subject(action)) else Applied()

    def takes(action: Action) -> float:
        nonlocal free_at
        begun, key = server.now, retry.key(action)
        lateness = begun - max(due.get(key, begun), free_at)
        assert lateness <= 0.5, f"{key} began {lateness} s late"
        lengths = left.get(subject(action))
        lasts = lengths.pop(0) if lengths else 0.2
        free_at = begun + lasts
        due[key] = free_at + retry.delay(key, _count(server, key) + 1)
        return lasts

    server.outcome, server.duration = fails, takes
    server.run(400.0)
    memory = server.state.memory
    for action in memory.drift if isinstance(server.state, Idle) else ():
        waits_until = memory.retries[retry.key(action)].not_before
        assert max(waits_until, free_at) + 0.5 >= server.now, "and none is left waiting"
    polls = [when for when, _ in server.asked(Fetch)]
    assert all(later >= sooner + 9.5 for sooner, later in itertools.pairwise(polls))
    rounds = len(server.said("processing ended"))
    assert len(server.asked(Look)) <= len(polls) + len(server.done()) + 4 * (rounds + 1), "and nobody looks for nothing"


def _count(server: Server, key: retry.RetryKey) -> int:
    known = server.state.memory.retries.get(key)
    return 0 if known is None else known.count
