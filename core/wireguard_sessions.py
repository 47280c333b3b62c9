"""Which peers are unreachable where the interface sends to, although another endpoint was given for them.

An interface follows a peer that speaks from another address. When the peer ends there (it came back at its own address without a word, or
what it used in between is gone), the interface sends to that place for ever. The rule: a peer whose last handshake has not changed for
`SILENCE_S`, and whose live endpoint is not the given one, is lost; then its live endpoint counts as what is configured, so that it differs
from what is expected and is given again.

Time is that of a clock that never jumps, counted from when a handshake was first seen: the time of a handshake itself is the calendar's,
and a correction of that clock must not make every peer that has roamed look lost.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from core.wireguard_uapi import KEEPALIVE_S, Device

_REJECT_AFTER_S: Final = 180.0  # the age at which both ends drop a session's packets (REJECT_AFTER_TIME)
_REPEAT_S: Final = 5.0  # between two attempts at a handshake (REKEY_TIMEOUT)

# A peer that says nothing of its own lets its session run out; the keepalive after that asks for the next one, and once more if that is
# lost. A peer that can be reached where it is has a new handshake by then.
SILENCE_S: Final = _REJECT_AFTER_S + KEEPALIVE_S + _REPEAT_S


@dataclass(frozen=True, slots=True)
class Session:
    """The time of a peer's last handshake as the interface gives it (0 for none), and when that was first seen."""

    handshake_ns: int
    since: float


def observe(sessions: Mapping[str, Session], device: Device, now: float) -> dict[str, Session]:
    """The sessions of the interface's peers, by public key, after it was read at `now`."""
    fresh = {peer.public_key: Session(peer.handshake_ns, now) for peer in device.peers}
    return {
        key: before if (before := sessions.get(key)) is not None and before.handshake_ns == one.handshake_ns else one
        for key, one in fresh.items()
    }


def without(sessions: Mapping[str, Session], keys: Iterable[str]) -> dict[str, Session]:
    """The sessions without those of peers that were just set: each gets its whole time anew, so that none is set with every tick."""
    gone = frozenset(keys)
    return {key: one for key, one in sessions.items() if key not in gone}


def lost(
    sessions: Mapping[str, Session], device: Device, given: Mapping[str, str | None], now: float, silence_s: float
) -> frozenset[str]:
    """The public keys of the peers that are unreachable where they were last heard from. One without a given endpoint never is."""
    return frozenset(
        peer.public_key
        for peer in device.peers
        if given.get(peer.public_key) not in (None, peer.endpoint)
        and now - sessions[peer.public_key].since >= silence_s
    )
