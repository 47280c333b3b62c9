"""Which peers get their given endpoint again: those that are silent where they were last heard from, and no others (L54)."""

from dataclasses import replace

import pytest

from core import wireguard_sessions as sessions
from core.wireguard_sessions import SILENCE_S, Session
from core.wireguard_uapi import Device, DevicePeer

GIVEN, ELSEWHERE = "192.0.2.1:51820", "192.0.2.99:40000"
ROAMED = DevicePeer("key", ("10.100.2.0/24",), ELSEWHERE, handshake_ns=1_700_000_000_000_000_000)


def lost_after(peer: DevicePeer, waited_s: float, given: str | None = GIVEN) -> frozenset[str]:
    """What is lost of an interface with one peer that was seen at 1000 s and again after this time, without a new handshake."""
    device = Device(None, 51_820, (peer,))
    seen = sessions.observe({}, device, 1000.0)
    now = 1000.0 + waited_s
    return sessions.lost(sessions.observe(seen, device, now), device, {peer.public_key: given}, now, SILENCE_S)


@pytest.mark.parametrize(
    ("peer", "waited_s", "given", "is_lost"),
    [
        (ROAMED, SILENCE_S, GIVEN, True),
        (ROAMED, SILENCE_S - 0.1, GIVEN, False),
        (replace(ROAMED, endpoint=GIVEN), SILENCE_S, GIVEN, False),
        (ROAMED, 10 * SILENCE_S, None, False),
        (replace(ROAMED, handshake_ns=0), SILENCE_S, GIVEN, True),
        (replace(ROAMED, endpoint=None), SILENCE_S, GIVEN, True),
    ],
    ids=["roamed and silent", "silent for less", "where it should be", "none was given", "never heard", "has none"],
)
def test_lost_is_who_is_silent_elsewhere(peer: DevicePeer, waited_s: float, given: str | None, is_lost: bool) -> None:
    """L54: silent for the whole time, somewhere else than at the endpoint that was given."""
    assert lost_after(peer, waited_s, given) == (frozenset({"key"}) if is_lost else frozenset())


def test_a_peer_that_was_never_given_anything_is_left_where_it_is() -> None:
    """Nothing is remembered of it, so its own endpoint counts already."""
    device = Device(None, 51_820, (ROAMED,))
    seen = sessions.observe({}, device, 0.0)
    assert sessions.lost(seen, device, {}, 10_000.0, SILENCE_S) == frozenset()


def test_a_peer_that_shakes_hands_is_never_lost() -> None:
    """It roamed and is alive: every new handshake starts the time anew, and so does none at the same clock time (L54)."""
    seen: dict[str, Session] = {}
    for number in range(20):
        now = number * (SILENCE_S - 1)
        device = Device(None, 51_820, (replace(ROAMED, handshake_ns=number),))
        seen = sessions.observe(seen, device, now)
        assert sessions.lost(seen, device, {"key": GIVEN}, now, SILENCE_S) == frozenset()


def test_the_calendar_does_not_count() -> None:
    """A handshake from 1970, or from next year, is as old as it has been seen to be: clocks are set."""
    for handshake_ns in (1, 2**62):
        assert lost_after(replace(ROAMED, handshake_ns=handshake_ns), SILENCE_S - 1) == frozenset()


def test_one_that_was_just_set_gets_its_time() -> None:
    """L14: its endpoint is not given with every tick, although it may speak from elsewhere at once and never complete a handshake."""
    device = Device(None, 51_820, (ROAMED,))
    seen = sessions.observe({}, device, 0.0)
    now = SILENCE_S
    assert sessions.lost(seen, device, {"key": GIVEN}, now, SILENCE_S)
    seen = sessions.observe(sessions.without(seen, ("key",)), device, now)
    assert not sessions.lost(seen, device, {"key": GIVEN}, now + SILENCE_S - 1, SILENCE_S)
    assert sessions.lost(seen, device, {"key": GIVEN}, now + SILENCE_S, SILENCE_S)


def test_peers_that_are_gone_are_forgotten() -> None:
    """What is remembered is bounded by the interface."""
    seen = sessions.observe({}, Device(None, 51_820, (ROAMED,)), 0.0)
    assert sessions.observe(seen, Device(None, 51_820, ()), 1.0) == {}
