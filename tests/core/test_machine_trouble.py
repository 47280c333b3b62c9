"""`core.machine`: trouble of all kinds, on virtual time: nothing fetched, nothing listed, bad or suspicious states, pulls, and the end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core import machine
from core.action import StopOrphan, UpdateDns
from core.containers import DeploymentId
from core.dns import Record
from core.events import (
    Applied,
    Failed,
    Fetch,
    Fetched,
    FetchFailed,
    Finish,
    Look,
    Looked,
    LookFailed,
    Perform,
    Remember,
    Report,
    StopAsked,
    Tick,
    Woken,
)
from core.memory import Memory
from core.phases import (
    AwaitingImages,
    Changing,
    Closing,
    Fetching,
    Idle,
    Looking,
    LookingAgain,
    Processing,
    State,
    Waiting,
)
from core.rejection import Rejection
from core.saying import MOST_LINES
from core.state import ActualState, ExpectedState, Held, NodeType
from tests.builders import a_container_entry, an_expected_document, an_image, expected_of
from tests.core.simulated_server import Server, taking, there, want

NAMES = (Record("web.internal", ("10.200.4.2",)),)


def test_what_a_work_item_removed_stays_away_while_nobody_answers() -> None:
    """L26: the state in force still has it, until a poll has been answered."""
    server = Server(want("a", "b"), there("a", "b"))
    server.run(5.0)
    server.expected = None
    server.actual = there("b")
    server.say(Woken(frozenset({DeploymentId("a")})))
    server.run(60.0)
    assert server.done() == []
    server.expected = want("a", "b")
    server.run(15.0)
    assert server.done() == ["deploy a"]


def test_what_a_work_item_removed_stays_away_until_the_answer_is_in_force() -> None:
    """L26: a poll is answered, and then nothing can be listed; the next one is not, and the state in force still has it."""
    removed = frozenset({DeploymentId("a")})
    state: State = Idle(Memory(NodeType.WORKER, in_force=want("a"), polls=1), Fetching(removed))
    for event in (Fetched(want()), LookFailed("x"), Tick(), FetchFailed("HTTP 502"), Looked(there())):
        state, effects = machine.step(state, event, 100.0)
    assert not [one for one in effects if isinstance(one, Perform)]
    assert state.memory.removed == removed


def test_the_last_good_state_stays_in_force() -> None:
    """L1: with the control plane away what breaks is still repaired; a report from a look goes out."""
    server = Server(want("a"), there("a"))
    server.run(5.0)
    assert len(server.asked(Remember)) == 1
    server.expected, server.actual = None, ActualState()
    server.run(12.0)
    assert server.done() == ["deploy a"]
    assert len(server.asked(Remember)) == 1


def test_from_the_start_with_the_control_plane_away() -> None:
    """L29: the state that was kept on disk is used; without one nothing is changed."""
    server = Server(None, ActualState(), in_force=want("a"))
    server.run(2.0)
    assert server.done() == ["deploy a"]
    bare = Server(None, there("a"))
    bare.run(60.0)
    assert bare.done() == []
    assert [type(effect) for _, effect in bare.asked(Report)] == [Report] * len(bare.asked(Fetch))


def test_a_listing_that_failed_is_no_listing() -> None:
    """L3: nothing is changed and nothing is reported from it."""
    server = Server(want("a"), there("gone"), listing_works=False)
    server.run(60.0)
    assert (server.done(), server.asked(Report)) == ([], [])
    assert len(server.said("containers not listed")) == 1, "and that is said once"
    server.listing_works = True
    server.run(12.0)
    assert server.converged


def test_names_routes_and_the_tunnel_need_no_listing() -> None:
    """L11, L16: with Podman hung what clients need is kept up, also by a state that has just come; no container is touched."""
    server = Server(replace(want("a"), dns=NAMES), there("gone"), listing_works=False, in_force=want("a"))
    server.run(60.0)
    assert (server.done(), server.asked(Report)) == (["update_dns 1 DNS records"], [])
    assert server.actual.dns == NAMES
    server.actual = replace(server.actual, dns=())
    server.run(60.0)
    assert server.done() == ["update_dns 1 DNS records"] * 2
    server.expected = None
    server.actual = replace(server.actual, dns=())
    server.run(40.0)
    assert server.done() == ["update_dns 1 DNS records"] * 3, "also when nobody answers any more"
    assert server.state.memory.in_force == want("a"), "it has not been held against a listing"
    server.listing_works = True
    server.run(20.0)
    assert server.state.memory.in_force == replace(want("a"), dns=NAMES)
    server.expected = server.state.memory.in_force
    assert server.converged


@pytest.mark.parametrize("listing_works", [True, False])
def test_what_somebody_undoes_is_back_with_the_next_poll_each_time(listing_works: bool) -> None:
    """L4, L14: the update was seen in force, so making it again is no repetition; but it is never made twice within five seconds."""
    wanted = replace(want("a"), dns=NAMES)
    server = Server(wanted, there("a"), listing_works=listing_works, in_force=wanted)
    for _ in range(20):
        server.run(11.0)
        assert server.actual.dns == NAMES
        server.actual = replace(server.actual, dns=())
    before = len(server.done())
    for _ in range(60):
        server.run(1.0)
        server.say(Woken())
        server.actual = replace(server.actual, dns=())
    assert len(server.done()) - before <= 12


@pytest.mark.parametrize("in_force", [None, want(*"abcdefgh")], ids=["none", "of eight"])
def test_what_came_while_nobody_could_look_is_doubted_once_one_can(in_force: ExpectedState | None) -> None:
    """L2: what would be stopped is held against what runs, also when the round has begun without a listing."""
    server = Server(replace(want(*"abcd"), dns=NAMES), there(*"efgh"), listing_works=False, in_force=in_force)
    server.outcome = lambda action: _listing_works_again(server)
    server.run(5.0)
    server.listing_works = True
    server.run(9.0 if in_force is None else 4.0)
    assert server.state.memory.doubted
    assert not [one for one in server.done() if one.startswith("stop")]
    server.expected = None
    server.run(60.0)
    assert not [one for one in server.done() if one.startswith("stop")], "nor once nobody answers any more"


def _listing_works_again(server: Server) -> Applied:
    server.listing_works = True
    return Applied()


def test_a_doubt_ends_with_a_poll_that_says_the_opposite() -> None:
    """L2: also when nobody could look at that moment."""
    full = want("a", "b", "c")
    server = Server(full, there("a", "b", "c"))
    server.run(5.0)
    server.expected = want()
    server.run(10.0)
    assert server.state.memory.doubted
    server.expected, server.listing_works = full, False
    server.run(10.0)
    server.expected, server.listing_works = want(), True
    server.run(9.0)
    assert server.done() == []


def test_a_suspicious_state_waits_for_the_listing() -> None:
    """L2: an emptied database must not empty names and routes either, when nobody can see what it would remove."""
    full = replace(want("a", "b", "c"), dns=NAMES)
    server = Server(full, replace(there("a", "b", "c"), dns=NAMES))
    server.run(5.0)
    server.expected, server.listing_works = want(), False
    server.run(120.0)
    assert server.done() == []
    assert server.state.memory.in_force == full


def test_what_runs_stays_while_its_successor_makes_no_sense() -> None:
    """L18: a redeploy with a typing error; once that is put right, or the service is given up, the old one goes."""
    entry = a_container_entry(deploymentId="new", name="new", serviceId="s")
    nothing: dict[str, Any] = {"records": [], "peers": []}
    old = there("old", service_id="s")
    server = Server(expected_of(an_expected_document([entry | {"env": {"1 A": ""}}], **nothing)), old)
    server.run(60.0)
    assert server.done() == []
    assert [type(one) for one in server.state.memory.drift] == [StopOrphan], "it is still to be done, and shown"
    server.expected = expected_of(an_expected_document([entry], **nothing))
    server.run(15.0)
    assert server.done() == ["stop_orphan old", "deploy new"]
    both = Server(
        expected_of(an_expected_document([entry | {"env": {"1 A": ""}}, entry | {"deploymentId": "b"}], **nothing)), old
    )
    both.run(5.0)
    assert both.done() == ["stop_orphan old", "deploy new"], (
        "one that can be made replaces it, and does not run beside it"
    )
    given_up = Server(
        expected_of(an_expected_document([entry | {"serviceId": "t", "env": {"1 A": ""}}], **nothing)), old
    )
    given_up.run(5.0)
    assert given_up.done() == ["stop_orphan old"]


def test_what_waits_for_a_refused_successor_is_not_looked_at_again_and_again() -> None:
    """L14: its stop has failed before, and its time has come; what keeps it is an entry, which comes with a poll."""
    entry = a_container_entry(deploymentId="new", name="new", serviceId="s", env={"1 A": ""})
    server = Server(want(), there("old", service_id="s"), outcome=lambda action: Failed("it does not stop"))
    server.run(5.0)
    server.expected = expected_of(an_expected_document([entry], records=[], peers=[]))
    server.run(300.0)
    assert server.done() == ["stop_orphan old"]
    assert len(server.asked(Look)) <= len(server.asked(Fetch)) + 2


@pytest.mark.parametrize(("count", "takes_s"), [(6, 60.0), (40, 3.0)])
def test_what_fails_again_and_again_does_not_take_every_turn(count: int, takes_s: float) -> None:
    """L11: what has not been tried comes first, or names and the tunnel would never have their turn."""
    ids = [f"d{number:03d}" for number in range(count)]
    server = Server(replace(want(*ids), dns=NAMES), there(), duration=lambda action: takes_s)
    server.outcome = lambda action: Applied() if isinstance(action, UpdateDns) else Failed("netavark")
    server.run(700.0)
    assert "update_dns 1 DNS records" in server.done()


def test_a_listing_that_fails_in_the_middle_ends_the_round_without_a_report() -> None:
    """L3: and the next poll goes on."""
    server = Server(want("a", "b"), duration=taking(5.0, "a"))
    server.run(3.0)
    server.listing_works = False
    server.run(4.0)
    assert isinstance(server.state, Idle)
    assert not any(effect.final for _, effect in server.asked(Report) if isinstance(effect, Report))
    server.listing_works = True
    server.run(12.0)
    assert server.converged


@pytest.mark.parametrize("wanted", [want(), want("a"), want("x", "y", "z")])
def test_a_suspicious_state_is_acted_on_only_when_the_next_poll_says_the_same(wanted: ExpectedState) -> None:
    """L2."""
    server = Server(wanted, there("a", "b", "c", "d", "e"), in_force=want("a", "b", "c", "d", "e"))
    server.run(9.0)
    assert (server.done(), len(server.said("expected state held back"))) == ([], 1)
    assert server.asked(Remember) == []
    server.run(5.0)
    assert server.converged


def test_an_accident_of_one_poll_costs_nothing() -> None:
    """L2: also when failed polls lie between, the last good state is what is kept up."""
    whole = want("a", "b", "c", "d")
    server = Server(ExpectedState(), there("a", "b", "c", "d"), in_force=whole)
    server.run(5.0)
    server.expected = None
    server.run(60.0)
    server.expected = whole
    server.run(60.0)
    assert server.done() == []
    server.expected = ExpectedState()
    server.run(9.0)
    assert server.done() == []


def test_another_suspicious_state_is_held_back_anew() -> None:
    """L2: the next poll must say the same, not something as bad."""
    names = ("a", "b", "c", "d", "e", "f", "g")
    server = Server(want("a", "b", "c"), there(*names))
    server.run(5.0)
    server.expected = want("e", "f", "g")
    server.run(10.0)
    assert server.done() == []
    server.run(10.0)
    assert server.converged


PHASES: dict[str, tuple[float, Callable[[Any], bool]]] = {
    "waiting": (9.0, lambda state: isinstance(state.phase, Waiting)),
    "fetching": (0.01, lambda state: isinstance(state.phase, Fetching)),
    "looking": (0.06, lambda state: isinstance(state.phase, Looking)),
    "awaiting images": (0.085, lambda state: isinstance(state.phase, AwaitingImages)),
    "changing": (0.15, lambda state: isinstance(state.phase, Changing)),
    "looking again": (0.33, lambda state: isinstance(state.phase, LookingAgain)),
    "closing": (0.6, lambda state: isinstance(state.phase, Closing)),
}


@pytest.mark.parametrize("phase", PHASES)
def test_asked_to_stop_it_ends(phase: str) -> None:
    """In every phase: the change in hand is finished, a report goes out after it, no other change begins, and it says Finish."""
    seconds, holds = PHASES[phase]
    server = Server(want("a", "b"))
    server.run(seconds)
    assert holds(server.state), server.state
    begun, was_processing = len(server.done()), isinstance(server.state, Processing)
    server.say(StopAsked())
    server.run(1.0)
    assert server.finished
    assert len(server.done()) == begun
    assert isinstance(server.log[-1][1], Finish)
    if was_processing:
        assert any(isinstance(effect, Report) and effect.final for _, effect in server.log)


def test_a_bad_entry_is_said_once_a_change() -> None:
    """L7: not at every poll, and not because the list came in another order."""
    good, bad = a_container_entry(deploymentId="a", name="a"), a_container_entry(deploymentId="b", name="b", image="")
    server = Server(expected_of(an_expected_document([good, bad], [], [], [])), there("a"))
    server.run(15.0)
    server.expected = expected_of(an_expected_document([bad, good], [], [], []))
    server.run(15.0)
    assert len(server.said("entry rejected")) == 1
    worse = {**bad, "image": "nginx", "ipAddress": "x"}
    server.expected = expected_of(an_expected_document([worse, good], [], [], []))
    server.run(15.0)
    assert len(server.said("entry rejected")) == 2


def test_lines_about_one_document_are_bounded() -> None:
    """L59: fifty thousand bad records that change with every poll were a log of 10 MB each time; the rest is counted."""
    server = Server(want("a"), there("a"))
    for poll in range(3):
        bad = tuple(Rejection(f"dnsRecords[{n}].name", f"{poll}-{n}", "is no name") for n in range(1000))
        server.expected = replace(want("a"), rejected=bad)
        server.run(10.5)
    assert len(server.said("entry rejected")) == 3 * MOST_LINES
    assert len(server.said("more entries rejected")) == 3


def test_what_is_held_stays() -> None:
    """L7: neither stopped nor replaced, and the rest goes on."""
    expected = replace(want("b"), held=Held(containers=frozenset({"a"})))
    server = Server(expected, there("a", image=an_image("old")))
    server.run(5.0)
    assert server.done() == ["deploy b"]
    assert {one.name for one in server.actual.containers} == {"a", "b"}
