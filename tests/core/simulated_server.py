"""A server and a control plane on virtual time, and the loop that carries out what the machine asks for.

The loop decides nothing: it answers each effect with its event after the time that the script gives, and holds the machine to the rules
that must never break (one change at a time, no poll while processing, a second between polls, nothing new once stopping).
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from core import guard, machine, phases, plan
from core.action import Action, kind, subject
from core.containers import ContainerId, DeploymentId, ExpectedContainer
from core.events import (
    ActionDone,
    Applied,
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
    Note,
    Outcome,
    Perform,
    Report,
    Reported,
    Tick,
)
from core.fetching import doubted
from core.image import Image
from core.memory import Memory
from core.phases import Processing, State
from core.state import ActualState, ExpectedState, NodeType
from tests.builders import an_actual_container, an_expected_container, an_image

FETCH_S, LOOK_S, PERFORM_S, REPORT_S, IMAGE_S = 0.05, 0.03, 0.2, 0.05, 0.01
MOST_EVENTS = 20_000


def succeeds(_: Action) -> Outcome:
    """What every action does unless the script says otherwise."""
    return Applied()


def quickly(_: Action) -> float:
    """How long an action takes unless the script says otherwise, in seconds."""
    return PERFORM_S


@dataclass
class Server:
    """The script (what is expected, what fails, what takes long), the server, and what has been asked for at which time.

    `pulls` are the images that do not come at once: after how many seconds, and why they fail, or None.
    """

    expected: ExpectedState | None
    actual: ActualState = field(default_factory=ActualState)
    node_type: NodeType = NodeType.WORKER
    outcome: Callable[[Action], Outcome] = succeeds
    duration: Callable[[Action], float] = quickly
    pulls: dict[Image, tuple[float, str | None]] = field(default_factory=dict)
    listing_works: bool = True
    in_force: ExpectedState | None = None
    now: float = 1000.0
    log: list[tuple[float, Effect]] = field(default_factory=list)
    finished: bool = False

    def __post_init__(self) -> None:
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Event]] = []
        self._performing: Action | None = None
        self._started: dict[str, float] = {}
        memory = Memory(self.node_type, in_force=self.in_force, seed="test")
        self.state: State
        self.state, effects = machine.start(memory, self.now)
        self._carry_out(effects)

    def say(self, event: Event, after_s: float = 0.0) -> None:
        """Something happens on its own, in that many seconds."""
        heapq.heappush(self._queue, (self.now + after_s, next(self._order), event))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        for _ in range(MOST_EVENTS):
            due = phases.wake_at(self.state)
            first = self._queue[0][0] if self._queue else float("inf")
            when = min(first, float("inf") if due is None else max(due, self.now))
            if when > until or self.finished:
                self.now = until
                return
            self.now = when
            self._feed(heapq.heappop(self._queue)[2] if first <= when else Tick())
        raise AssertionError("it spins")

    def asked(self, kind_: type[Effect], since: float = 0.0) -> list[tuple[float, Effect]]:
        """The effects of a kind, with their times."""
        return [(when, effect) for when, effect in self.log if isinstance(effect, kind_) and when >= since]

    def done(self, since: float = 0.0) -> list[str]:
        """Kind and subject of each action that was begun."""
        made = [effect.action for when, effect in self.log if isinstance(effect, Perform) and when >= since]
        return [f"{kind(one)} {subject(one)}" for one in made]

    def said(self, event: str) -> list[Note]:
        """The notes of that name."""
        return [effect for _, effect in self.log if isinstance(effect, Note) and effect.event == event]

    @property
    def converged(self) -> bool:
        """Whether nothing is left to do."""
        assert self.expected is not None
        return plan.next_action(self.expected, self.actual, self.node_type) is None

    def _feed(self, event: Event) -> None:
        if isinstance(event, ActionDone):
            assert self._performing == event.action
            self._performing = None
            if isinstance(event.outcome, Applied):
                self._apply(event.action)
        if isinstance(event, Looked):
            event = Looked(self._seen())
        before = self.state
        self.state, effects = machine.step(before, event, self.now)
        if isinstance(before, Processing) and not isinstance(self.state, Processing):
            assert isinstance(event, Reported | LookFailed), "a report goes out before IDLE, unless the listing failed"
        self._carry_out(effects)

    def _carry_out(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            self.log.append((self.now, effect))
            match effect:
                case Fetch():
                    self._check_fetch()
                    found = FetchFailed("connection refused") if self.expected is None else Fetched(self.expected)
                    self.say(found, FETCH_S)
                case Look():
                    beside = replace(self.actual, containers=())
                    self.say(Looked(self.actual) if self.listing_works else LookFailed("socket gone", beside), LOOK_S)
                case Perform(action=action, expected=snapshot):
                    self._perform(action, snapshot)
                case FetchImages(requests=requests):
                    for one in requests:
                        seconds, failure = self.pulls.get(one.image, (IMAGE_S, None))
                        self.say(ImageFetched(one, failure), seconds)
                case Report(final=True):
                    self.say(Reported(), REPORT_S)
                case Finish():
                    self.finished = True
                case _:
                    pass

    def _check_fetch(self) -> None:
        polls = [when for when, effect in self.log[:-1] if isinstance(effect, Fetch)]
        assert not isinstance(self.state, Processing), "PROCESSING never polls"
        assert not polls or self.now >= polls[-1] + 1.0, "a second between two polls"

    def _perform(self, action: Action, snapshot: ExpectedState) -> None:
        assert self._performing is None, "one writer"
        assert not self.state.memory.stopping
        assert guard.breach(action, snapshot, self.actual, self.node_type) is None
        needed = self.state.memory.images.needs(action, snapshot, doubted(self.state.memory.retries))
        assert not needed, "an image is here before the change that needs it"
        self._performing = action
        outcome = self.outcome(action)
        self.say(ActionDone(action, outcome), self.duration(action))

    def _apply(self, action: Action) -> None:
        before = {one.id for one in self.actual.containers if one.state == "running"}
        self.actual = plan.predict(self.actual, (action,))
        for one in self.actual.containers:
            if one.state == "running" and one.id not in before:
                self._started[one.id] = self.now

    def _seen(self) -> ActualState:
        return replace(
            self.actual,
            containers=tuple(
                structs.replace(one, running_for_s=self.now - self._started[one.id])
                if one.state == "running" and one.id in self._started
                else one
                for one in self.actual.containers
            ),
        )


SLOW = an_image("slow:1")


def want(*names: str, **changes: Any) -> ExpectedState:
    """An expected state with a container of each name."""
    made = [an_expected_container(deployment_id=DeploymentId(name), name=name, **changes) for name in names]
    return ExpectedState(tuple(sorted(made, key=deployment)))


def deployment(container: ExpectedContainer) -> str:
    """The order of an expected state."""
    return container.deployment_id


def there(*names: str, **changes: Any) -> ActualState:
    """A server on which a container of each name runs."""
    return ActualState(
        tuple(
            an_actual_container(id=ContainerId(f"c-{n}"), name=n, deployment_id=DeploymentId(n), **changes)
            for n in names
        )
    )


def failing(*names: str) -> Callable[[Action], Outcome]:
    """A script in which what concerns these names fails."""
    return lambda action: Failed("scripted") if subject(action) in names else Applied()


def taking(seconds: float, *names: str) -> Callable[[Action], float]:
    """A script in which what concerns these names takes so long."""
    return lambda action: seconds if subject(action) in names else 0.2
