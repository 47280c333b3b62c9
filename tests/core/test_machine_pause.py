"""`core.machine` while it is paused: it looks and reports, and changes nothing. And what it says once about things that go on."""

from core.events import Fetch, PauseSeen, Perform, Report, Woken
from core.pause import Pause
from core.phases import Idle, Processing
from tests.core.simulated_server import Server, failing, taking, there, want

PAUSED = PauseSeen(Pause(0.0, None, "moving the disk"))
RESUMED = PauseSeen(None)


def in_state(server: Server, kind: type) -> bool:
    """Whether the machine is in this state now."""
    return isinstance(server.state, kind)


def failures(server: Server) -> tuple[str | None, str | None]:
    """Why the last poll and the last look failed."""
    return server.state.memory.poll_failure, server.state.memory.look_failure


def test_a_paused_agent_changes_nothing() -> None:
    """It goes on polling and reporting, and says at every poll that finds drift what it would do."""
    server = Server(want("a", "b"))
    server.say(PAUSED)
    server.run(95.0)
    assert server.done() == []
    assert isinstance(server.state, Idle)
    polls = len(server.said("drift found while paused"))
    assert 9 <= polls <= 11
    assert len(server.asked(Report)) >= polls
    (said,) = server.said("paused")
    assert ("why", "moving the disk") in said.facts


def test_it_goes_on_soon_after() -> None:
    """A pause's end is followed by a poll."""
    server = Server(want("a"))
    server.say(PAUSED)
    server.run(45.0)
    since = server.now
    server.say(RESUMED)
    server.run(3.0)
    assert server.done(since) == ["deploy a"]
    assert server.converged


def test_a_change_in_hand_is_finished_and_the_next_is_not_begun() -> None:
    """Nothing is left half done; the report goes out before IDLE."""
    server = Server(want("a", "b"), duration=taking(20.0, "a"))
    server.run(5.0)
    assert in_state(server, Processing)
    server.say(PAUSED)
    server.run(60.0)
    assert server.done() == ["deploy a"]
    assert {one.name for one in server.actual.containers} == {"a"}
    assert in_state(server, Idle)
    (ended,) = server.said("processing ended")
    assert ("ending", "paused") in ended.facts
    server.say(RESUMED)
    server.run(30.0)
    assert server.converged


def test_a_wake_up_before_a_pause_is_not_lost() -> None:
    """L15: the work queue wanted a fresh look, then somebody paused: the poll follows the round at once all the same."""
    server = Server(want("a"), duration=taking(5.0, "a"))
    server.run(2.0)
    assert in_state(server, Processing)
    server.say(Woken())
    server.say(PAUSED, 1.0)
    polls = len(server.asked(Fetch))
    server.run(5.0)
    assert in_state(server, Idle)
    assert len(server.asked(Fetch)) == polls + 1


def test_drift_that_is_put_aside_is_said_too() -> None:
    """A change that failed waits for minutes; a paused agent does not keep it to itself so long."""
    server = Server(want("a"), outcome=failing("a"))
    server.run(200.0)
    server.say(PAUSED)
    since, before = server.now, len(server.asked(Fetch))
    server.run(35.0)
    assert all(one.not_before > server.now for one in server.state.memory.retries.values()), "it is still put aside"
    assert server.done(since) == []
    polls = len(server.asked(Fetch)) - before
    assert polls >= 3
    assert len(server.said("drift found while paused")) == polls


def test_a_failed_change_is_not_tried_again_while_paused() -> None:
    """However often its turn would have come; its reason stays to be seen."""
    server = Server(want("a"), outcome=failing("a"), duration=taking(5.0, "a"))
    server.run(2.0)
    server.say(PAUSED)
    server.run(500.0)
    assert server.done() == ["deploy a"]
    assert [one.failure for one in server.state.memory.retries.values()] == ["scripted"]


def test_without_drift_it_says_nothing() -> None:
    """A pause over a quiet night fills no log."""
    server = Server(want("a"), there("a"))
    server.say(PAUSED)
    server.run(600.0)
    assert server.said("drift found while paused") == []
    assert server.asked(Perform) == []


def test_trouble_that_goes_on_is_said_once_and_so_is_its_end() -> None:
    """A control plane that is away for ten minutes, then a listing that fails for as long."""
    server = Server(None)
    server.run(600.0)
    assert len(server.said("expected state not fetched")) == 1
    assert failures(server) == ("connection refused", None)
    server.expected = want()
    server.run(30.0)
    assert failures(server) == (None, None)
    server.listing_works = False
    server.run(600.0)
    assert len(server.said("containers not listed")) == 1
    server.listing_works = True
    server.run(30.0)
    assert failures(server) == (None, None)
    ends = [
        note.event for note in (*server.said("expected state fetched again"), *server.said("containers listed again"))
    ]
    assert len(ends) == 2
