"""What holds for a tunnel whichever implementation carries it. Run here on the userspace one, and in a virtual machine on the kernel's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from core.wireguard import canonical_peers
from shell.failure import AdapterError
from tests.real.wireguard.tunnel import ADDRESS, Tunnel, command, ip, key, peer, same

KEEPALIVE_COLUMN: Final = 7
ENDPOINT_COLUMN: Final = 2


def an_interface_is_made(tunnel: Tunnel) -> None:
    """L21: with its address, 1420 bytes, up; its key and port are those of `wg show`."""
    assert "the interface is missing" in tunnel.trouble()
    tunnel.ensure_up()
    (link,) = ip("address", "show", "dev", tunnel.name)
    same((link["mtu"], "UP" in link["flags"]), (1420, True))
    same([row["local"] for row in link["addr_info"] if row["family"] == "inet"], [ADDRESS])
    (row,) = tunnel.dump()
    assert row[2] == str(tunnel.settings.listen_port), row[2]
    same(tunnel.fetch(), ())


def peers_come_change_and_go_one_by_one(tunnel: Tunnel) -> None:
    """L20: with their routes and a keepalive of 25 s; the others stay as they are."""
    one, two = peer(1), peer(2)
    tunnel.apply(one)
    same(tunnel.fetch(), (one,))
    before = tunnel.dump()[1]
    assert before[KEEPALIVE_COLUMN] == "25", before
    tunnel.apply(two)
    same(tunnel.fetch(), canonical_peers((one, two)))
    assert set(one.networks + two.networks) <= tunnel.routes()
    changed = replace(two, networks=("10.200.2.0/24",), endpoint="127.0.0.1:4444")
    tunnel.apply(changed)
    same(tunnel.fetch(), canonical_peers((one, changed)))
    assert "10.100.2.0/24" not in tunnel.routes()
    tunnel.apply(remove=(two.public_key,))
    same(tunnel.fetch(), (one,))
    same(tunnel.routes(), set(one.networks))
    same(tunnel.dump()[1][: KEEPALIVE_COLUMN - 3], before[: KEEPALIVE_COLUMN - 3])


def what_was_applied_is_what_is_read(tunnel: Tunnel) -> None:
    """L5: no endpoint, no networks, single addresses, wide networks, an IPv6 endpoint."""
    peers = canonical_peers(
        (
            peer(1, endpoint=None),
            replace(peer(2), networks=()),
            peer(3, "10.100.3.1/32", "10.200.3.0/24", "10.200.64.0/18"),
            peer(4, endpoint="[2001:db8::4]:51820"),
            peer(5, endpoint="[::ffff:127.0.0.1]:51820"),
        )
    )
    tunnel.apply(*peers)
    same(tunnel.fetch(), peers)
    assert any(row[ENDPOINT_COLUMN] == "[2001:db8::4]:51820" for row in tunnel.dump()[1:])
    tunnel.apply(*peers)
    same(tunnel.fetch(), peers)


def many_peers_are_read_whole(tunnel: Tunnel) -> None:
    """Forty at once, and gone at once, with their routes."""
    peers = canonical_peers(peer(number) for number in range(40))
    tunnel.apply(*peers)
    same(tunnel.fetch(), peers)
    tunnel.apply(remove=tuple(one.public_key for one in peers))
    same((tunnel.fetch(), tunnel.routes()), ((), set()))


def what_a_hand_changes_is_seen(tunnel: Tunnel) -> None:
    """L4: a peer removed, added, or given other networks by `wg set`; an update puts it right."""
    one, two = peer(1), peer(2)
    tunnel.apply(one, two)
    tunnel.wg("peer", one.public_key, "remove")
    same(tunnel.fetch(), (two,))
    tunnel.apply(one)
    tunnel.wg("peer", two.public_key, "allowed-ips", "10.200.2.0/24")
    same(tunnel.fetch(), canonical_peers((one, replace(two, networks=("10.200.2.0/24",)))))
    tunnel.apply(two)
    tunnel.wg("peer", two.public_key, "allowed-ips", "10.200.2.0/25")
    assert "no route to 10.200.2.0/25" in tunnel.trouble(), tunnel.trouble()
    tunnel.apply(two)
    tunnel.wg("peer", key(3))
    assert key(3) in {found.public_key for found in tunnel.fetch()}
    tunnel.apply(remove=(key(3),))
    same(tunnel.fetch(), canonical_peers((one, two)))


def what_a_hand_breaks_is_seen_and_mended(tunnel: Tunnel) -> None:
    """L4: link, address, route, MTU, port: a tunnel that cannot work does not count as read. No peer is touched by the repair."""
    one = peer(1)
    tunnel.apply(one)
    route = one.networks[1]
    for words, seen in (
        (("ip", "link", "set", tunnel.name, "down"), "is down"),
        (("ip", "address", "del", f"{ADDRESS}/32", "dev", tunnel.name), f"lacks the address {ADDRESS}"),
        (("ip", "route", "del", route), f"no route to {route}"),
        (("ip", "link", "set", tunnel.name, "mtu", "1400"), "its MTU is 1400"),
        (("wg", "set", tunnel.name, "listen-port", "30999"), "listens on port 30999"),
    ):
        command(*words)
        assert seen in tunnel.trouble(), (words, tunnel.trouble())
        tunnel.ensure_up()
        same(tunnel.fetch(), (one,))


def a_peer_that_roams_is_no_drift(tunnel: Tunnel) -> None:
    """Its endpoint is what the agent gave it, wherever it was heard from since; another one from the control plane is an update."""
    one, unknown = peer(1), peer(2, endpoint=None)
    tunnel.apply(one, unknown)
    tunnel.wg("peer", one.public_key, "endpoint", "127.0.0.1:5555")
    tunnel.wg("peer", unknown.public_key, "endpoint", "127.0.0.1:5556")
    same(tunnel.fetch(), canonical_peers((one, unknown)))
    moved = replace(one, endpoint="127.0.0.1:6666")
    tunnel.apply(moved)
    same(tunnel.fetch(), canonical_peers((moved, unknown)))


def a_silent_peer_gets_its_endpoint_again(tunnel: Tunnel) -> None:
    """L54: one that was last heard from elsewhere counts as drift until its endpoint is given again; one without any is left there."""
    one, unknown = peer(1), peer(2, endpoint=None)
    watching = tunnel.again(silence_s=0.0)
    watching.apply(one, unknown)
    for number in (1, 2):
        tunnel.wg("peer", key(number), "endpoint", f"127.0.0.1:555{number}")
    same(watching.fetch(), canonical_peers((replace(one, endpoint="127.0.0.1:5551"), unknown)))
    watching.apply(one)
    same(watching.fetch(), canonical_peers((one, unknown)))
    rows = {row[0]: row[ENDPOINT_COLUMN] for row in tunnel.dump()[1:]}
    same(rows, {key(1): one.endpoint, key(2): "127.0.0.1:5552"})


def an_update_that_fails_hides_no_endpoint(tunnel: Tunnel) -> None:
    """L4: the endpoint of a peer that could not be set is not remembered as given."""
    one = peer(1)
    tunnel.apply(one)
    moved = replace(one, endpoint="127.0.0.1:6666")
    bad = replace(peer(2), endpoint="[fe80::1%nowhere]:1")
    try:
        tunnel.apply(bad, moved)
    except (AdapterError, OSError):
        assert moved not in tunnel.fetch(), "an endpoint that was never given counts as given"
    else:
        raise AssertionError("a peer without a meaning was taken")


def a_network_moves_between_peers(tunnel: Tunnel) -> None:
    """In one update, in either direction, and from a peer that goes."""
    contested = "10.200.9.0/24"
    for giver, taker in ((1, 2), (2, 1)):
        before = canonical_peers((peer(giver, f"10.100.{giver}.0/24", contested), peer(taker, f"10.100.{taker}.0/24")))
        after = canonical_peers((peer(giver, f"10.100.{giver}.0/24"), peer(taker, f"10.100.{taker}.0/24", contested)))
        tunnel.apply(*before)
        same(tunnel.fetch(), before)
        tunnel.apply(*after)
        same(tunnel.fetch(), after)
    heir = peer(3, contested)
    tunnel.apply(heir, remove=(key(1),))
    same(tunnel.fetch(), canonical_peers((peer(2, "10.100.2.0/24"), heir)))


def a_foreign_interface_is_refused(tunnel: Tunnel) -> None:
    """L10: one with another key, and one of another kind: neither read nor changed."""
    other = tunnel.again(private_key=bytes(range(32)))
    tunnel.apply(peer(1))
    before = tunnel.dump()
    for work in (other.fetch, other.ensure_up, lambda: other.apply(peer(2))):
        with refused("it has another private key, so it is not the agent's"):
            work()
    same(tunnel.dump(), before)
    tunnel.stop()
    for kind in (("link", "add", tunnel.name, "type", "bridge"), ("tuntap", "add", tunnel.name, "mode", "tun")):
        command("ip", *kind)
        before_link = command("ip", "address", "show", "dev", tunnel.name)
        with refused("it is "):
            tunnel.apply(peer(2))
        assert tunnel.trouble()
        same(command("ip", "address", "show", "dev", tunnel.name), before_link)
        command("ip", "link", "delete", tunnel.name)


def nothing_is_left_behind(tunnel: Tunnel) -> None:
    """Stopping takes everything away, may be done twice, and is no end."""
    tunnel.apply(peer(1))
    tunnel.stop()
    tunnel.stop()
    assert "the interface is missing" in tunnel.trouble()
    tunnel.apply(peer(1))
    same(tunnel.fetch(), (peer(1),))


@contextmanager
def refused(words: str) -> Iterator[None]:
    """Until the end of the block, a refusal in these words."""
    try:
        yield
    except AdapterError as error:
        assert words in str(error), error
    else:
        raise AssertionError("it was not refused")


CHECKS: Final[tuple[Callable[[Tunnel], None], ...]] = (
    an_interface_is_made,
    peers_come_change_and_go_one_by_one,
    what_was_applied_is_what_is_read,
    many_peers_are_read_whole,
    what_a_hand_changes_is_seen,
    what_a_hand_breaks_is_seen_and_mended,
    a_peer_that_roams_is_no_drift,
    a_silent_peer_gets_its_endpoint_again,
    an_update_that_fails_hides_no_endpoint,
    a_network_moves_between_peers,
    a_foreign_interface_is_refused,
    nothing_is_left_behind,
)
