"""The text protocol of the userspace WireGuard: what is asked, and what is made of any answer."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import wireguard_uapi as uapi
from core.wireguard import Peer, canonical_peers
from core.wireguard_uapi import Device, DevicePeer

HEX = {number: f"{number:02x}" * 32 for number in range(1, 10)}
KEY = {number: base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 10)}
SECRET = bytes([8] * 31 + [72])

ENDPOINTS = st.sampled_from(["192.0.2.1:1", "192.0.2.1:51820", "[2001:db8::1]:51820"])
NETWORKS = st.sampled_from(["10.100.1.0/24", "10.100.1.1/32", "10.200.0.0/18", "10.200.1.0/24"])
PEERS = st.builds(
    Peer,
    st.sampled_from(sorted(KEY.values())),
    st.lists(NETWORKS, unique=True, max_size=3).map(lambda found: tuple(sorted(found))),
    ENDPOINTS | st.none(),
)
PEER_LISTS = st.lists(PEERS, unique_by=lambda peer: peer.public_key, max_size=5)


def answer_of(request: str) -> str:
    """What an interface that was empty says after a request to set peers: the keys that were set, without what only a request has."""
    rows = [line for line in request.splitlines() if line and not line.startswith(("set=", "replace_"))]
    return "\n".join(["private_key=" + SECRET.hex(), "listen_port=51820", *rows, "errno=0"]) + "\n\n"


@given(PEER_LISTS)
def test_what_is_rendered_is_parsed(peers: list[Peer]) -> None:
    """L5: the same peers, whatever their order."""
    device = uapi.parse_device(answer_of(uapi.render_peers(peers, ()))).unwrap()
    assert uapi.peers_of(device, {}) == canonical_peers(peers)
    assert (device.private_key, device.listen_port) == (SECRET, 51820)


@given(PEER_LISTS, st.lists(st.sampled_from(sorted(KEY.values())), max_size=3))
def test_removals_come_first(upsert: list[Peer], remove: list[str]) -> None:
    """A network that moves from a peer that goes to one that stays ends there."""
    lines = uapi.render_peers(upsert, remove).splitlines()
    removals = [number for number, line in enumerate(lines) if line == "remove=true"]
    settings = [number for number, line in enumerate(lines) if line == "replace_allowed_ips=true"]
    assert (len(removals), len(settings)) == (len(remove), len(upsert))
    assert max(removals, default=0) < min(settings, default=len(lines))


def test_a_request_to_set_peers_is_exactly_this() -> None:
    """One empty line at its end and none within; an endpoint only when there is one; the keepalive of 25 s always."""
    peers = (
        Peer(KEY[1], ("10.100.1.0/24", "10.200.1.0/24"), "192.0.2.1:51820"),
        Peer(KEY[2], (), None),
    )
    assert uapi.render_peers(peers, (KEY[3],)).split("\n") == [
        "set=1",
        f"public_key={HEX[3]}",
        "remove=true",
        f"public_key={HEX[1]}",
        "replace_allowed_ips=true",
        "endpoint=192.0.2.1:51820",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.100.1.0/24",
        "allowed_ip=10.200.1.0/24",
        f"public_key={HEX[2]}",
        "replace_allowed_ips=true",
        "persistent_keepalive_interval=25",
        "",
        "",
    ]


def test_a_request_to_configure_touches_no_peer() -> None:
    """L20: key and port alone."""
    assert uapi.render_interface(SECRET, 51820) == f"set=1\nprivate_key={SECRET.hex()}\nlisten_port=51820\n\n"


def test_an_answer_is_read_whole() -> None:
    """Counters mean nothing here; the last endpoint counts, in its one spelling; so does the time of the last handshake."""
    answer = (
        f"private_key={SECRET.hex()}\nlisten_port=51820\nfwmark=1\n"
        f"public_key={HEX[1]}\npreshared_key={'00' * 32}\nprotocol_version=1\nendpoint=[2001:0db8::0001]:51820\n"
        "last_handshake_time_sec=3\nlast_handshake_time_nsec=7\ntx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=25\n"
        "allowed_ip=10.200.1.0/24\nallowed_ip=10.100.1.0/24\n"
        f"public_key={HEX[2]}\nerrno=0\n\n"
    )
    device = Device(
        SECRET,
        51820,
        (
            DevicePeer(KEY[1], ("10.200.1.0/24", "10.100.1.0/24"), "[2001:db8::1]:51820", 3_000_000_007),
            DevicePeer(KEY[2], (), None),
        ),
    )
    assert uapi.parse_device(answer).unwrap() == device


@pytest.mark.parametrize("key", ["", f"private_key={'00' * 32}\n"], ids=["absent", "zero"])
def test_an_interface_without_a_key_is_recognised(key: str) -> None:
    """It is new, and configured before anything else."""
    assert uapi.parse_device(f"{key}listen_port=0\nerrno=0\n\n").unwrap() == Device(None, 0, ())


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("errno=0\n\n", True),
        ("errno=-22\n\n", False),
        ("errno=0\nerrno=-22\n\n", False),
        ("", False),
        ("set=1\n\n", False),
    ],
)
def test_only_errno_0_is_success(answer: str, taken: bool) -> None:
    """Whatever else is said, or nothing at all, is a failure."""
    assert is_successful(uapi.parse_errno(answer)) is taken


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "errno=-2\n\n",
        "listen_port=51820\n",
        "listen_port=many\nerrno=0\n\n",
        "private_key=abc\nerrno=0\n\n",
        "private_key=00\nerrno=0\n\n",
        "public_key=0000\nerrno=0\n\n",
        "allowed_ip=10.200.1.0/24\nerrno=0\n\n",
        "endpoint=192.0.2.1:1\nerrno=0\n\n",
    ],
    ids=[
        "nothing",
        "refused",
        "cut short",
        "port",
        "half a digit",
        "short key",
        "short peer key",
        "network of nobody",
        "endpoint of nobody",
    ],
)
def test_an_answer_without_sense_is_a_failure(answer: str) -> None:
    """L4: never an empty interface."""
    assert not is_successful(uapi.parse_device(answer))


@given(
    st.text()
    | st.lists(
        st.sampled_from(["private_key", "listen_port", "public_key", "allowed_ip", "endpoint", "errno"]).flatmap(
            lambda name: st.text(max_size=70).map(lambda value: f"{name}={value}")
        )
    ).map("\n".join)
)
def test_no_answer_raises(answer: str) -> None:
    """Whatever a socket says."""
    uapi.parse_device(answer)
    uapi.parse_errno(answer)


@given(st.binary(min_size=32, max_size=32))
def test_a_clamped_key_stays_as_it_is(key: bytes) -> None:
    """RFC 7748, section 5: the lowest three bits and the highest are clear, the second highest is set."""
    clamped = uapi.clamped(key)
    assert uapi.clamped(clamped) == clamped
    assert clamped[1:31] == key[1:31]
    assert (clamped[0] % 8, clamped[31] >> 6) == (0, 1)


@given(PEERS.filter(lambda peer: peer.endpoint is not None), ENDPOINTS)
def test_a_peer_that_roams_is_no_drift(peer: Peer, elsewhere: str) -> None:
    """L5: it counts by the endpoint that it was given; without a memory of one, by the one that the interface has."""
    device = Device(SECRET, 51820, (DevicePeer(peer.public_key, peer.networks, elsewhere),))
    assert uapi.peers_of(device, {peer.public_key: peer.endpoint}) == (peer,)
    assert uapi.peers_of(device, {})[0].endpoint == elsewhere


def test_a_private_key_is_not_shown() -> None:
    """It must not reach a log by way of a value."""
    assert SECRET.hex() not in repr(Device(SECRET, 51820, ())) and repr(SECRET) not in repr(Device(SECRET, 51820, ()))
