"""`core.wireguard`: peers, which are text from strangers."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import address, state, wireguard
from core.wireguard import Peer
from tests.builders import a_key, a_peer_entry, actual_of, an_actual_document, an_expected_document, expected_of


def sifted(
    *entries: dict[str, Any], subnet_id: int | None = None
) -> tuple[tuple[Peer, ...], set[str], list[tuple[str, str]]]:
    """Good peers, held keys, and path and key of what is rejected."""
    found = expected_of(an_expected_document([], peers=list(entries)), subnet_id)
    return found.wireguard, set(found.held.wireguard), [(one.path, one.key) for one in found.rejected]


@pytest.mark.parametrize(
    "key",
    ["", "x", a_key()[:-1], a_key() + "=", a_key() + "\n", " " + a_key(), a_key().replace("=", ""), base64.b64encode(b"x" * 31).decode(),
     base64.b64encode(b"x" * 33).decode(), base64.urlsafe_b64encode(b"\xff" * 32).decode(), "é" * 44, "not a key; rm -rf /"],
)  # fmt: skip
def test_a_key_that_is_not_32_bytes_of_base64(key: str) -> None:
    """One node's bad key does not stop the others (L7)."""
    good, held, rejected = sifted(a_peer_entry(), a_peer_entry(publicKey=key))
    assert ([one.public_key for one in good], held, rejected) == (
        [a_key()],
        {key},
        [("wireguard.peers[1].publicKey", key)],
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("allowedIps", {"allowedIps": "0.0.0.0/0"}),
        ("allowedIps", {"allowedIps": "10.100.1.0/24,192.168.0.0/24"}),
        ("allowedIps", {"allowedIps": "10.0.0.0/8"}),
        ("allowedIps", {"allowedIps": "10.101.0.0/16"}),
        ("allowedIps", {"allowedIps": "fd00::/64"}),
        ("allowedIps", {"allowedIps": "10.100.1.0/33"}),
        ("allowedIps", {"allowedIps": "everything"}),
        ("endpoint", {"endpoint": "198.51.100.4"}),
        ("endpoint", {"endpoint": "host.example:51820"}),
        ("endpoint", {"endpoint": "198.51.100.4:51820\nPostUp = x"}),
        ("endpoint", {"endpoint": "198.51.100.4:99999"}),
        ("endpoint", {"endpoint": " "}),
    ],
)
def test_a_bad_peer_is_rejected_at_its_field(field: str, changes: dict[str, Any]) -> None:
    """L34: networks within the two ranges only, endpoints are address and port."""
    assert sifted(a_peer_entry(**changes)) == ((), {a_key()}, [(f"wireguard.peers[0].{field}", a_key())])


def test_one_peer_that_claims_everything_takes_nobody_with_it() -> None:
    """L7: it touches this server's own networks, and is wrong by itself; two that claim the same are both held."""
    wide = a_peer_entry(publicKey=a_key(1), allowedIps="10.100.0.0/16")
    others = [a_peer_entry(publicKey=a_key(n), allowedIps=f"10.100.{n}.0/24,10.200.{n}.0/24") for n in (7, 8)]
    good, held, _ = sifted(wide, *others, subnet_id=3)
    assert ({one.public_key for one in good}, held) == ({a_key(7), a_key(8)}, {a_key(1)})
    good, held, _ = sifted(*others, {**others[0], "publicKey": a_key(9)}, subnet_id=3)
    assert ({one.public_key for one in good}, held) == ({a_key(8)}, {a_key(7), a_key(9)})


def test_this_servers_own_key() -> None:
    """No interface takes it for a peer, so it would count as drift for ever (L5); it takes nobody with it (L7)."""
    document = an_expected_document(
        [], peers=[a_peer_entry(publicKey=a_key(7)), a_peer_entry(publicKey=a_key(8), allowedIps="")]
    )
    found = state.parse_expected_after(None, json.dumps(document).encode(), 3, a_key(7)).unwrap().expected
    assert [one.public_key for one in found.wireguard] == [a_key(8)]
    assert [(one.path, one.key) for one in found.rejected] == [("wireguard.peers[0].publicKey", a_key(7))]


@pytest.mark.parametrize(
    ("networks", "form"),
    [
        ("10.200.1.0/24,10.100.1.0/24", ("10.100.1.0/24", "10.200.1.0/24")),
        (" 10.100.1.9/24 , 10.100.1.0/24,", ("10.100.1.0/24",)),
        ("10.100.1.9", ("10.100.1.9/32",)),
        ("10.100.0.0/16", ("10.100.0.0/16",)),
        ("", ()),
    ],
)
def test_networks_are_a_set_of_cidrs(networks: str, form: tuple[str, ...]) -> None:
    """In one spelling and order, on both sides (L5)."""
    (peer,) = sifted(a_peer_entry(allowedIps=networks))[0]
    assert peer.networks == form
    assert actual_of(an_actual_document(peers=[a_peer_entry(allowedIps=networks)])).wireguard == (peer,)


@pytest.mark.parametrize(
    ("endpoint", "form"),
    [
        (None, None),
        ("", None),
        ("2001:db8::1:51820", "[2001:db8::1]:51820"),
        ("[2001:DB8::1]:51820", "[2001:db8::1]:51820"),
    ],
)
def test_endpoints_have_one_spelling(endpoint: str | None, form: str | None) -> None:
    """Null and empty are the same; IPv6 bare as the control plane sends it, or in brackets."""
    (peer,) = sifted(a_peer_entry(endpoint=endpoint))[0]
    assert peer.endpoint == form
    assert actual_of(an_actual_document(peers=[a_peer_entry(endpoint=endpoint)])).wireguard == (peer,)


def test_two_peers_with_one_key() -> None:
    """Those that differ are both rejected, those that say the same are one."""
    same = a_peer_entry(allowedIps="10.200.1.1/24,10.100.1.0/24")
    assert len(sifted(a_peer_entry(), same)[0]) == 1
    clash = [("wireguard.peers[0]", a_key()), ("wireguard.peers[1]", a_key())]
    assert sifted(a_peer_entry(), a_peer_entry(endpoint=None)) == ((), {a_key()}, clash)


@pytest.mark.parametrize(
    "networks", ["10.100.3.0/24", "10.200.3.7/32", "10.100.0.0/16", "10.100.2.0/23", "10.100.9.0/24,10.200.3.0/24"]
)
def test_a_peer_may_not_claim_this_servers_own_networks(networks: str) -> None:
    """L34: it would take the server's own traffic."""
    entry = a_peer_entry(allowedIps=networks)
    assert sifted(entry, subnet_id=3) == ((), {a_key()}, [("wireguard.peers[0].allowedIps", a_key())])
    assert len(sifted(entry)[0]) == 1


def peer(number: int, networks: str) -> dict[str, Any]:
    """A peer with the given networks."""
    return a_peer_entry(publicKey=a_key(number), allowedIps=networks)


CLAIMS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["10.100.1.0/24", "10.100.1.128/25", "10.100.1.0/32", "10.100.1.200/32", "10.100.2.0/24",
                                                  "10.100.2.0/23", "10.100.9.0/24", "10.200.1.0/24", "10.200.0.0/17"])),
    max_size=7,
)  # fmt: skip


@given(CLAIMS)
def test_two_peers_may_not_claim_one_network(claims: list[tuple[int, str]]) -> None:
    """The interface would give it to the last one and the other would be drift for ever: all that overlap another's are held (L5)."""
    networks: dict[int, list[str]] = {}
    for number, network in claims:
        networks.setdefault(number, []).append(network)
    entries = [peer(number, ",".join(theirs)) for number, theirs in networks.items()]
    held = sifted(*entries, subnet_id=255)[1]
    parsed = [(number, address.network(text)) for number, text in claims]
    clashing = {
        a_key(one)
        for one, network in parsed
        for other, another in parsed
        if one != other and network is not None and another is not None and network.overlaps(another)
    }
    assert held == clashing


def test_peers_of_other_servers_as_the_control_plane_sends_them() -> None:
    """A hundred servers, none in the way of another."""
    entries = [peer(n, f"10.100.{n}.0/24,10.200.{n}.0/24") for n in range(1, 100)]
    assert len(sifted(*entries, subnet_id=100)[0]) == 99


@given(st.binary(min_size=30, max_size=34))
def test_exactly_32_bytes_are_a_key(raw: bytes) -> None:
    """In standard base64."""
    assert wireguard.is_key(base64.b64encode(raw).decode()) == (len(raw) == 32)
