"""`core.machine`: images are asked for together, hold up their own container only, and are verified when a container does not start."""

from dataclasses import replace
from typing import Any

from core.dns import Record
from core.events import Fetch, FetchImages, Woken
from core.state import ExpectedState
from tests.builders import an_expected_container, an_image
from tests.core.simulated_server import SLOW, Server, failing, there, want

NAMES = (Record("web.internal", ("10.200.4.2",)),)


def a_mix(slow: str, *quick: str) -> ExpectedState:
    """One container whose image comes slowly, and others."""
    return ExpectedState((*want(slow, image=SLOW).containers, *want(*quick).containers))


def test_an_image_that_stays_away_holds_up_its_own_container_only() -> None:
    """L11: the others go on at once, names within two seconds; when the image is here, its container follows within a second or two."""
    server = Server(replace(a_mix("a", "b", "c"), dns=NAMES), pulls={SLOW: (600.0, None)})
    server.run(1.0)
    assert server.done() == ["deploy b", "deploy c"]
    server.run(2.0)
    assert server.done() == ["deploy b", "deploy c", "update_dns 1 DNS records"]
    server.run(596.0)
    assert len(server.done()) == 3
    server.run(4.0)
    assert server.converged


def test_all_images_are_asked_for_at_once_and_in_order() -> None:
    """When PROCESSING begins, each once; nothing is begun before its image is here, and names come after the containers."""
    names = [f"d{number}" for number in range(6)]
    wanted = ExpectedState(tuple(want(name, image=an_image(f"i{name}:1")).containers[0] for name in names), dns=NAMES)
    pulls: dict[Any, tuple[float, str | None]] = {an_image(f"i{name}:1"): (0.3, None) for name in names}
    server = Server(wanted, pulls=pulls)
    server.run(3.0)
    ((_, asked),) = server.asked(FetchImages)
    assert isinstance(asked, FetchImages)
    assert [one.deployment_id for one in asked.requests] == names
    assert server.done() == [*(f"deploy {name}" for name in names), "update_dns 1 DNS records"]


def test_images_that_come_one_after_the_other_are_one_round() -> None:
    """No poll between, as long as one comes every few seconds."""
    names = [f"d{number}" for number in range(5)]
    wanted = ExpectedState(tuple(want(name, image=an_image(f"i{name}:1")).containers[0] for name in names))
    pulls: dict[Any, tuple[float, str | None]] = {an_image(f"id{n}:1"): (3.0 * n, None) for n in range(5)}
    server = Server(wanted, pulls=pulls)
    server.run(13.0)
    assert (server.converged, len(server.said("processing ended"))) == (True, 1)


def test_a_wake_up_while_images_are_awaited_is_heard() -> None:
    """L15: a new release must not wait for the image of the old one."""
    server = Server(a_mix("a", "b"), pulls={SLOW: (600.0, None)})
    server.run(4.0)
    server.say(Woken())
    server.run(1.0)
    assert len(server.asked(Fetch)) == 2


def test_an_image_that_cannot_be_had_is_asked_for_with_growing_pauses() -> None:
    """L11: like any other failure; nothing else is touched again, and what is to be started is not tried without it."""
    server = Server(a_mix("a", "b"), pulls={SLOW: (2.0, "no such tag")})
    server.run(300.0)
    assert server.done() == ["deploy b"]
    asked = [
        one for _, effect in server.asked(FetchImages) if isinstance(effect, FetchImages) for one in effect.requests
    ]
    assert 4 <= sum(one.deployment_id == "a" for one in asked) <= 6
    assert [dict(note.facts)["why"] for note in server.said("image not fetched")] == ["no such tag"] * (len(asked) - 1)


def test_an_image_that_fails_after_its_round_is_asked_for_again_when_its_time_comes() -> None:
    """L53: the look before took it for one under way, and knew no time for it."""
    for tenths in range(100, 120):
        fails_after_s = tenths / 10
        server = Server(ExpectedState((an_expected_container(image=SLOW),)), pulls={SLOW: (fails_after_s, "refused")})
        server.run(fails_after_s + 1)
        (attempt,) = server.state.memory.retries.values()
        server.run(30)
        again = server.asked(FetchImages)[1][0]
        assert attempt.not_before <= again <= attempt.not_before + 0.5, fails_after_s


def test_what_was_fetched_is_asked_for_again_with_each_attempt() -> None:
    """A container that does not start: its image may be gone by then. L50: after two failed starts it is verified, once."""
    server = Server(want("a"), outcome=failing("a"))
    server.run(100.0)
    asked = [
        one for _, effect in server.asked(FetchImages) if isinstance(effect, FetchImages) for one in effect.requests
    ]
    assert [one.verify for one in asked] == [False, False, True, False]
    assert len(server.done()) == 4


def test_the_image_of_a_container_that_dies_at_once_is_verified() -> None:
    """L50: also when Podman says that it started."""
    server = Server(want("a"), there("a", state="exited"))
    for _ in range(60):
        server.run(1.0)
        server.actual = there("a", state="exited", lived_s=0.0)
    asked = [
        one for _, effect in server.asked(FetchImages) if isinstance(effect, FetchImages) for one in effect.requests
    ]
    assert [(one.deployment_id, one.verify) for one in asked] == [("a", True)]
    assert server.done()[:3] == ["start a"] * 3


def test_a_stop_waits_for_its_successors_image_and_for_no_other() -> None:
    """L18: the old one runs until the new image is here; one request serves the stop and what replaces it."""
    server = Server(want("new", image=SLOW), there("old"), pulls={SLOW: (60.0, None)})
    server.run(59.0)
    assert server.done() == []
    server.run(5.0)
    assert {one.name for one in server.actual.containers} == {"new"}
    assert server.done() == ["stop_orphan old", "deploy new"]
    assert len(server.asked(FetchImages)) == 1


def test_a_stop_whose_successors_image_cannot_be_had_asks_once_an_attempt() -> None:
    """L18, L52: the stop and the deploy wait for the same answer."""
    server = Server(want("new", image=SLOW), there("old"), pulls={SLOW: (0.5, "no such tag")})
    server.run(9.0)
    assert (server.done(), len(server.asked(FetchImages))) == ([], 1)
