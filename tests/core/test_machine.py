"""`core.machine`: whole rounds on virtual time, on a simulated server with a script."""

import itertools
from dataclasses import replace

import pytest

from core import caddy
from core.action import Deploy, subject
from core.containers import DeploymentId
from core.events import Applied, Failed, Fetch, Look, Outcome, PauseSeen, Perform, Report, Woken
from core.pause import Pause
from core.phases import Idle, Processing
from core.state import NodeType
from tests.core.simulated_server import Server, failing, taking, there, want


def test_a_tick_with_nothing_to_do() -> None:
    """One request for state, one look, one report, and nothing else; ten seconds apart."""
    server = Server(want("a"), there("a"), in_force=want("a"))
    server.run(9.4)
    assert [type(effect) for _, effect in server.log] == [Fetch, Look, Report]
    server.run(95.0)
    times = [when for when, _ in server.asked(Fetch)]
    assert all(sooner + 9.5 <= later <= sooner + 10.0 for sooner, later in itertools.pairwise(times))
    assert len(server.log) == 3 * len(times)


def test_one_change_after_the_other_without_waiting_for_a_tick() -> None:
    """In the order of the plan, each after a fresh look, on one snapshot."""
    server = Server(want("a", "b", "c"), there("gone"))
    server.run(1.5)
    assert server.done() == ["stop_orphan gone", "deploy a", "deploy b", "deploy c"]
    assert (len(server.asked(Fetch)), server.converged) == (1, True)
    assert len(server.asked(Look)) == 6, "one of them once the images are here"
    assert isinstance(server.state, Idle)


def test_processing_works_on_its_snapshot() -> None:
    """What the control plane says meanwhile is for the next poll."""
    server = Server(want("a", "b"), duration=taking(20.0, "a"))
    server.run(5.0)
    assert isinstance(server.state, Processing)
    server.expected = want("a")
    server.run(15.3)
    assert server.done() == ["deploy a", "deploy b"]
    server.run(10.0)
    assert server.done() == ["deploy a", "deploy b", "stop_orphan b"]


def test_a_failure_ends_the_round_and_the_others_go_on_at_once() -> None:
    """L11: one bad container costs the others a report and a look, and the control plane no poll."""
    server = Server(want("a", "b", "c"), outcome=failing("a"))
    server.run(1.5)
    assert server.done() == ["deploy a", "deploy b", "deploy c"]
    assert [note.facts[0][1] for note in server.said("processing ended")] == ["failed", "waiting"]
    assert len(server.asked(Fetch)) == 1


def test_what_fails_is_tried_again_with_growing_pauses() -> None:
    """10 s, 20 s, 40 s, ... 5 min, each when its time has come; the rest is never touched again."""
    server = Server(want("a", "b"), outcome=failing("a"))
    server.run(1500.0)
    times = [
        when for when, effect in server.asked(Perform) if isinstance(effect, Perform) and subject(effect.action) == "a"
    ]
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert server.done().count("deploy b") == 1
    assert len(pauses) >= 7
    for pause, full in zip(pauses, [10, 20, 40, 80, 160, 300, 300], strict=False):
        assert 0.9 * full <= pause <= full + 0.5


@pytest.mark.parametrize("takes_s", [0.2, 1.0, 5.0, 12.0])
def test_an_attempt_is_made_when_its_time_has_come_and_not_with_the_poll_after_it(takes_s: float) -> None:
    """L53: its wait ends just after a poll; the server is looked at then, and what is expected is what was in force."""
    server = Server(want("a"), outcome=failing("a"), duration=taking(takes_s, "a"))
    server.run(300.0)
    times = [when for when, _ in server.asked(Perform)]
    for sooner, later, full in zip(times, times[1:], [10, 20, 40, 80], strict=False):
        assert 0.9 * full <= later - sooner - takes_s <= full + 0.3
    polls = [when for when, _ in server.asked(Fetch)]
    assert all(later >= sooner + 9.5 for sooner, later in itertools.pairwise(polls))


def test_a_retry_needs_nobody_to_answer() -> None:
    """L53: the control plane is away; the state in force is gone on with."""
    server = Server(None, in_force=want("a"), outcome=failing("a"))
    server.run(29.0)
    first, second, third = [when for when, _ in server.asked(Perform)]
    assert second - first <= 10.5
    assert third - second <= 20.5


def test_routes_that_settle_are_updated_when_they_have() -> None:
    """L53: a second update of routes follows the first five seconds later, not with the poll after that."""
    first, second = (caddy.Route(name, f"{name}.test", "s", ("10.200.1.2:80",)) for name in "ab")
    server = Server(replace(want(), caddy=(first,)), node_type=NodeType.PROXY)
    server.run(1.0)
    server.expected = replace(want(), caddy=(first, second))
    server.say(Woken())
    server.run(6.0)
    one, other = [when for when, _ in server.asked(Perform)]
    assert 5.0 <= other - one - 0.2 <= 5.3


@pytest.mark.parametrize(
    "kept",
    ["paused", "a work item removed it", "its image is pulled", "another change still runs", "nothing can be listed"],
)
def test_what_may_not_be_done_when_its_time_has_come_is_not_looked_at_again_and_again(kept: str) -> None:
    """L14: no look but those of the polls, and one when the time comes at most."""
    server = Server(want("a"), there("z"), outcome=failing("a"))
    server.expected = want("a", "z")
    server.run(1.0)
    assert server.done() == ["deploy a"]
    if kept == "paused":
        server.say(PauseSeen(Pause(0.0, None, "")))
    elif kept == "a work item removed it":
        server.expected = None
        server.say(Woken(frozenset({DeploymentId("a")})))
    elif kept == "its image is pulled":
        server.pulls = {want("a").containers[0].image: (900.0, None)}
    elif kept == "another change still runs":
        server.duration = lambda action: 900.0
    else:
        server.listing_works = False
    server.run(310.0)
    since = server.now
    server.run(290.0)
    polls, looks = len(server.asked(Fetch, since)), len(server.asked(Look, since))
    assert 28 <= polls <= 31
    assert looks <= polls + 1


@pytest.mark.parametrize("bad", [("a",), ("a", "b"), ("a", "c", "e")])
def test_however_many_fail_the_others_converge(bad: tuple[str, ...]) -> None:
    """L11: a second or two for each that fails, at most."""
    server = Server(want("a", "b", "c", "d", "e"), outcome=failing(*bad))
    server.run(3.0 + 2.0 * len(bad))
    assert {one.name for one in server.actual.containers} == set("abcde") - set(bad)


def test_a_change_that_changes_nothing_is_not_repeated_at_once() -> None:
    """L14: applied, and yet the server looks as before."""
    server = Server(want("a", "b"))
    server._apply = lambda action: None  # type: ignore[method-assign]  # a component that only says that it did it
    server.run(8.0)
    assert server.done() == ["deploy a", "deploy b"]
    server.run(60.0)
    assert server.done().count("deploy a") <= 4


def test_a_container_that_falls_over_again_is_started_with_growing_pauses() -> None:
    """L14, L17: nothing spins, whatever the server does behind our back."""
    server = Server(want("a"), there("a", state="exited"))
    for _ in range(300):
        server.run(1.0)
        server.actual = there("a", state="exited", lived_s=0.5)
    assert 3 <= len(server.done()) <= 6
    reports = [effect for _, effect in server.asked(Report) if isinstance(effect, Report)]
    assert {one.entries for one in reports} == {()}


def test_five_minutes_end_a_round() -> None:
    """The rest follows after a fresh poll."""
    names = [f"d{n:02}" for n in range(40)]
    server = Server(want(*names), duration=lambda _: 30.0)
    server.run(340.0)
    assert [note.facts[0] for note in server.said("processing ended")] == [("ending", "timed out")]
    assert len(server.asked(Fetch)) <= 3
    server.run(1200.0)
    assert server.converged


def test_no_change_begins_after_five_minutes() -> None:
    """Also when one has just ended and the look after it comes too late."""
    server = Server(want("a", "b"), duration=taking(299.99, "a"))
    server.run(300.2)
    assert server.done() == ["deploy a"]
    assert [note.facts[0] for note in server.said("processing ended")] == [("ending", "timed out")]
    server.run(2.0)
    assert server.done() == ["deploy a", "deploy b"]


def test_an_action_that_still_runs_does_not_hold_processing_open() -> None:
    """It goes on; reports go on; no second change begins before it has ended; and then the rest is done."""
    server = Server(want("a", "b"), duration=taking(700.0, "a"))
    server.run(302.0)
    assert isinstance(server.state, Idle)
    server.run(390.0)
    assert server.done() == ["deploy a"]
    reports = [when for when, _ in server.asked(Report)]
    assert max(later - sooner for sooner, later in itertools.pairwise(reports[2:])) <= 12.0
    server.run(14.0)
    assert (server.done(), server.converged) == (["deploy a", "deploy b"], True)


@pytest.mark.parametrize("outcome", [Failed("late"), Applied()])
def test_an_action_that_ended_late_lets_the_others_go_on(outcome: Outcome) -> None:
    """However it ended."""
    server = Server(want("a", "b"), duration=taking(400.0, "a"))
    server.outcome = lambda action: outcome if subject(action) == "a" else Applied()
    server.run(405.0)
    assert "deploy b" in server.done()


def test_a_wake_up_while_waiting_brings_the_poll_forward() -> None:
    """Within a second, and never two within one."""
    server = Server(want(), in_force=want())
    server.run(5.0)
    server.say(Woken())
    server.run(0.2)
    assert len(server.asked(Fetch)) == 2
    for after_s in (0.0, 0.1, 0.2, 0.3):
        server.say(Woken(), after_s)
    server.run(1.5)
    assert len(server.asked(Fetch)) == 3


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.06, 0.1, 1.0, 5.2, 5.25])
def test_a_wake_up_at_any_time_leads_to_one_fresh_poll(after_s: float) -> None:
    """L15: during PROCESSING right after it."""
    server = Server(want("a"), duration=taking(5.0, "a"), in_force=want("a"))
    server.say(Woken(), after_s)
    server.run(7.0)
    assert isinstance(server.state, Idle)
    assert len(server.asked(Fetch)) == 1 if after_s == 0.0 else len(server.asked(Fetch)) == 2
    server.run(2.0)
    assert len(server.asked(Fetch)) <= 2


def test_a_container_is_reported_as_soon_as_it_counts_as_up() -> None:
    """L17: two seconds after its start, without waiting for the next poll, and without holding up the next change."""
    server = Server(want("a", "b"))
    server.run(4.0)
    reports = [(when, effect) for when, effect in server.asked(Report) if isinstance(effect, Report)]
    up = next(when for when, effect in reports if len(effect.entries) == 2)
    assert 2.0 <= up - server.asked(Perform)[1][0] <= 2.6
    assert len(server.asked(Fetch)) == 1


def test_a_deploy_carries_the_snapshot_it_was_chosen_from() -> None:
    """The shell looks up nothing."""
    server = Server(want("a"))
    server.run(1.0)
    ((_, effect),) = server.asked(Perform)
    assert isinstance(effect, Perform)
    assert effect.expected == want("a")
    assert isinstance(effect.action, Deploy)
