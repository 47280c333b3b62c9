"""Parsing and deciding, without any component: in multiples of `json.loads` of the same expected state's bytes in the same process (J).

Each size is measured in a process of its own, so that what one leaves behind does not slow the next; what the agent is given comes from
outside, as in the agent, so that the making of it leaves nothing behind either. Every step is checked to have done its work before it is
timed.
"""

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from benchmarks import states
from benchmarks.figures import ROUNDS, Figure, Times, ratio, timed, timed_anew, usual
from benchmarks.states import Texts
from core import caddy, digest, dns, machine, plan, podman_answers, state, status, wireguard
from core.action import Action, Redeploy
from core.events import Fetched, Looked, Reported, Tick
from core.memory import POLL_S, Memory
from core.phases import State
from core.podman_answers import Listing
from core.state import ActualState, Document, ExpectedState, NodeType
from shell import collector

T = TypeVar("T")

SIZES: Final = (100, 1_000, 10_000, 100_000)
SMALL_SIZES: Final = (100, 1_000)
_RUNS_OF_SMALL_SIZES: Final = 3
_GOALS_AT: Final = 10_000
COLD: Final = "decision, cold"
CHANGED_COLD: Final = "decision, last container changed, cold"
_GOALS: Final = {
    "parse, cold": 2.5,
    "parse, one container changed": 1.5,
    "decision, listing just parsed": 0.08,
    COLD: 0.2,
    "idle tick": 0.8,
}
_EMPTIED: Final = ", caches emptied"
_EMPTIED_ROUNDS: Final = 31
GROWTH_GOAL: Final = 11.0
PLAN_GOAL: Final = 10.0
_J: Final = "json.loads"
_COLD_J: Final = f"{_J}{_EMPTIED}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What the agent is given, and what it parsed of it."""

    texts: Texts
    document: Document
    listed: Listing

    @property
    def expected(self) -> ExpectedState:
        return self.document.expected

    def actual(self) -> ActualState:
        """A server that is as expected, just looked at."""
        there = podman_answers.parse_listing(self.texts.listing, states.NOW_S).unwrap()
        return states.as_served(self.expected, there)


def subject(texts: Texts) -> Subject:
    """Everything that is needed to measure one size."""
    document = state.parse_expected_after(None, texts.document).unwrap()
    assert document.expected.containers and not document.expected.rejected
    return Subject(texts, document, podman_answers.parse_listing_after(None, texts.listing, states.NOW_S).unwrap())


def main() -> list[Figure]:
    """All figures, and how the times grow from 10,000 to 100,000. The small sizes, which the check is held against, three times."""
    found = [
        *usual([run(SMALL_SIZES) for _ in range(_RUNS_OF_SMALL_SIZES)]),
        *run([size for size in SIZES if size not in SMALL_SIZES]),
    ]
    return found + list(_growth(found))


def run(sizes: Sequence[int]) -> list[Figure]:
    """The figures of these sizes."""
    found: list[Figure] = []
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        with context.Pool(1) as pool:
            found += pool.apply(measure, (states.texts(size),))
    return found


def measure(texts: Texts) -> list[Figure]:
    """The figures of one size."""
    one = subject(texts)
    size = len(one.expected.containers)
    j = timed(partial(json.loads, texts.document), fewest=ROUNDS)
    times = {**_parsing(one), **_deciding(one), **_ticking(one), "nested dictionaries compared": _nested(one)}
    # What finds its caches empty takes as long as the machine's memory, which others use as well; small sizes are held against a record.
    cold_j = timed_anew(lambda: partial(json.loads, texts.document), _EMPTIED_ROUNDS, emptied=True)
    units = dict.fromkeys((COLD, CHANGED_COLD) if size in SMALL_SIZES else (), (_COLD_J, cold_j))
    figures = [
        ratio(what, unit, size, took, of, _GOALS.get(what) if size == _GOALS_AT else None)
        for what, took in times.items()
        for unit, of in [units.get(what, (_J, j))]
    ]
    goal = PLAN_GOAL if size == _GOALS_AT else None
    figures.append(ratio("whole plan, all missing", CHANGED_COLD, size, _plan(one), times[CHANGED_COLD], goal))
    figures.append(_hashes(one, size))
    figures.append(_transitions(one, size, j))
    return figures


def _parsing(one: Subject) -> dict[str, Times]:
    raw, following = one.texts.document, one.texts.following
    after = state.parse_expected_after(one.document, following).unwrap()
    assert after.expected == state.parse_expected(following).unwrap() != one.expected
    assert state.parse_expected_after(one.document, raw).unwrap() is one.document
    return {
        "parse, cold": timed(_calmly(partial(state.parse_expected, raw))),
        **_both_ways(
            "parse, one container changed",
            lambda: _calmly(partial(state.parse_expected_after, one.document, following)),
            one,
        ),
        "parse a listing, cold": timed(_calmly(partial(podman_answers.parse_listing, one.texts.listing, states.NOW_S))),
    }


def _both_ways(what: str, prepare: Callable[[], Callable[[], object]], one: Subject) -> dict[str, Times]:
    """In a loop; and, for the sizes whose growth is of interest, right after it with the caches emptied.

    An agent wakes every ten seconds, and others have used the caches meanwhile. One after the other, since what was made between two
    measurements leaves the heap in another order, which counts for more.
    """
    found = {what: timed_anew(prepare)}
    if len(one.expected.containers) not in SMALL_SIZES:
        found[what + _EMPTIED] = timed_anew(prepare, _EMPTIED_ROUNDS, emptied=True)
    return found


def _calmly(run: Callable[[], T]) -> Callable[[], T]:
    """As the agent runs it: no cycle is looked for meanwhile."""

    def calm() -> T:
        with collector.paused():
            return run()

    return calm


def _deciding(one: Subject) -> dict[str, Times]:
    changed = state.parse_expected(one.texts.following).unwrap()
    last = _decision(changed, one.actual())
    assert len(last) == 1 and isinstance(last[0], Redeploy)
    missing = ActualState()
    assert len(_decision(one.expected, missing)) == len(one.expected.containers) + 3
    actual = one.actual()
    assert _decision(one.expected, actual) == ()

    def cold(raw: bytes = one.texts.document) -> partial[tuple[Action, ...]]:
        return partial(_decision, state.parse_expected(raw).unwrap(), one.actual())

    return {
        "decision, unchanged since the last look": timed(partial(_decision, one.expected, actual)),
        **_both_ways("decision, listing just parsed", lambda: partial(_decision, one.expected, one.actual()), one),
        COLD: timed_anew(cold, _EMPTIED_ROUNDS, emptied=True),
        CHANGED_COLD: timed_anew(partial(cold, one.texts.following), _EMPTIED_ROUNDS, emptied=True),
        "decision, last container changed": timed(partial(_decision, changed, actual)),
        "decision, all missing": timed(partial(_decision, one.expected, missing)),
    }


def _decision(expected: ExpectedState, actual: ActualState) -> tuple[Action, ...]:
    with collector.paused():
        return plan.outstanding(expected, actual, NodeType.PROXY)


def _ticking(one: Subject) -> dict[str, Times]:
    listing = one.texts.listing
    return {
        **_both_ways("idle tick", _tick(one, (listing, one.texts.later)), one),
        "idle tick, listing unchanged": timed_anew(_tick(one, (listing,))),
        "idle tick, listing parsed afresh": timed_anew(_tick(one, (listing,), afresh=True)),
    }


def _tick(one: Subject, listings: tuple[bytes, ...], *, afresh: bool = False) -> Callable[[], partial[bytes]]:
    """Idle ticks: the document's bytes as last time, a listing (these in turn), the comparison, the report's bytes.

    As in the agent, the answers are equal and never the very same bytes, and what is known of the last listing and of which containers
    were up is kept until the next one is there. `afresh`: the last listing is not used.
    """
    served = states.as_served(one.expected, ())
    kept, up = [one.listed], [status.now_up(one.listed.containers, frozenset())]
    turns = itertools.cycle(listings)

    def tick(document: bytes, listing: bytes) -> bytes:
        with collector.paused():
            wanted = state.parse_expected_after(one.document, document).unwrap().expected
        before = None if afresh else kept[0]
        with collector.paused():
            kept[0] = podman_answers.parse_listing_after(before, listing, states.NOW_S + 10).unwrap()
        there = kept[0].containers
        with collector.paused():
            drift = _decision(wanted, ActualState(there, served.dns, served.caddy, served.wireguard))
            up[0] = status.now_up(there, up[0])
            entries = status.entries(there, up[0], {})
        assert drift == ()
        return status.encode(entries, None, None)

    def answered() -> partial[bytes]:
        return partial(tick, bytes(memoryview(one.texts.document)), bytes(memoryview(next(turns))))

    assert len(json.loads(answered()())["containers"]) == len(one.expected.containers)
    return answered


def _plan(one: Subject) -> Times:
    """Beside a cold decision that finds a change, so it finds the caches empty as well. (One without any compares hashes alone.)"""
    whole = plan.plan(one.expected, ActualState(), NodeType.PROXY)
    assert len(whole) == len(one.expected.containers) + 3
    return timed_anew(
        lambda: partial(plan.plan, one.expected, ActualState(), NodeType.PROXY), _EMPTIED_ROUNDS, emptied=True
    )


def _hashes(one: Subject, size: int) -> Figure:
    """The three digests of one side, each worked out anew, beside hashlib over the very bytes that they are of."""
    expected = one.expected
    rows = (
        tuple(map(dns.plain, expected.dns)),
        tuple(map(caddy.plain, expected.caddy)),
        tuple(map(wireguard.plain, expected.wireguard)),
    )
    texts = [digest.canonical(part).encode("ascii") for part in rows]

    def ours() -> list[str]:
        return [
            digest.digest(map(dns.plain, expected.dns)),
            digest.digest(map(caddy.plain, expected.caddy)),
            digest.digest(map(wireguard.plain, expected.wireguard)),
        ]

    def theirs() -> list[str]:
        return [hashlib.sha256(text).hexdigest() for text in texts]

    assert ours() == theirs() == list(expected.digests.values())
    return ratio("the three sorted hashes", "hashlib over the same bytes", size, timed(ours), timed(theirs))


def _nested(one: Subject) -> Times:
    """A straightforward peer: both sides as nested dictionaries by key, compared for equality; making them is not counted."""
    ours, theirs = plain(one.expected, one.actual())
    assert ours == theirs and ours is not theirs
    return timed(lambda: ours == theirs)


def plain(expected: ExpectedState, actual: ActualState) -> tuple[dict[str, object], dict[str, object]]:
    """Both sides as a program without types of its own would keep them."""
    wanted: dict[str, object] = {
        "containers": {c.deployment_id: {"image": str(c.image), "state": "running"} for c in expected.containers}
    }
    there: dict[str, object] = {
        "containers": {c.deployment_id: {"image": str(c.image), "state": c.state} for c in actual.containers}
    }
    for side, whole in ((expected, wanted), (actual, there)):
        assert not isinstance(side.dns, state.Unread) and not isinstance(side.caddy, state.Unread)
        assert not isinstance(side.wireguard, state.Unread)
        whole["dns"] = {record.name: list(record.ips) for record in side.dns}
        whole["caddy"] = {
            route.id: {"domain": route.domain, "service": route.service_id, "upstreams": list(route.upstreams)}
            for route in side.caddy
        }
        whole["wireguard"] = {
            peer.public_key: {"networks": list(peer.networks), "endpoint": peer.endpoint} for peer in side.wireguard
        }
    return wanted, there


def _transitions(one: Subject, size: int, j: Times) -> Figure:
    """One whole idle round of the state machine (four events), its look included."""
    actual = one.actual()
    begun, _ = machine.start(Memory(NodeType.PROXY), 0.0)

    def rounds(count: int) -> State:
        now, at = 0.0, begun
        for _ in range(count):
            for event in (Tick(), Fetched(one.expected), Looked(actual), Reported()):
                at, _ = machine.step(at, event, now)
            now += POLL_S
        return at

    last = rounds(3)
    assert last.memory.polls == 3 and last.memory.drift == () and last.memory.in_force is one.expected
    return ratio("a round of the state machine (4 transitions)", _J, size, timed(partial(rounds, 20)) / 20, j)


def _growth(found: list[Figure]) -> Iterator[Figure]:
    """How many times longer ten times as much takes."""
    times = {(one.what, one.size): one.measured for one in found}
    for what in dict.fromkeys(one.what for one in found):
        ten, hundred = times.get((what, 10_000)), times.get((what, 100_000))
        goal = GROWTH_GOAL if what in _GOALS else None
        if ten is not None and hundred is not None and (goal or what.endswith(_EMPTIED)):
            yield Figure(f"growth: {what}", "the same at 10,000", 100_000, hundred, ten, goal)
