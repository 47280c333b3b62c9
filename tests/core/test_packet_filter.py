"""What rulesets of servers do with the traffic that must pass, on captures of the kernel's own answers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import firewall, nftables
from core.nftables import Ruleset
from core.packet_filter import Packet, dropped
from tests.captures_nftables import NAMES, a_server, case, drops


@pytest.mark.parametrize("name", NAMES)
def test_what_is_dropped(name: str) -> None:
    """L54: `what` in the case's file says why; nothing else is dropped for certain."""
    found = case(name)
    assert drops(found.ruleset, a_server(found.indexes)) == found.drops


@pytest.mark.parametrize("name", [name for name in NAMES if case(name).lost is not None or name.startswith("ours")])
def test_what_podman_has_lost(name: str) -> None:
    """L54: while containers run; and nothing where its rules are all there, by iptables or by nftables of its own."""
    found = case(name)
    lost = firewall.lost(found.ruleset, a_server(found.indexes), publishes=False)
    assert list(lost) == (found.lost or [])


def test_ports_that_lead_nowhere_are_lost() -> None:
    """Only where a container has ports of this server."""
    found = case("ours")
    server = a_server(found.indexes)
    place = ("ip", "nat", "PREROUTING")
    emptied = replace(found.ruleset, rules={**found.ruleset.rules, place: ()})
    assert firewall.lost(found.ruleset, server, publishes=True) == ()
    assert firewall.lost(emptied, server, publishes=True) == ("ports of this server",)
    assert firewall.lost(emptied, server, publishes=False) == ()


def test_a_chain_that_nothing_leads_to_does_not_count() -> None:
    """L54: a flush leaves Podman's chains where they are, empty or full; only what packets reach masquerades them."""
    found = case("masquerading_removed")
    assert ("ip", "nat", "NETAVARK-F35FCCBD736FB") in found.ruleset.rules
    assert firewall.lost(found.ruleset, a_server(found.indexes), publishes=False) == ("masquerading of 10.200.7.0/24",)


def test_our_own_rules_are_seen_whole() -> None:
    """Counters do not count; a rule that is gone, the jump included, makes a difference; without any there is nothing."""
    found = case("ours").ruleset
    own = firewall.own_rules(found)
    assert len(own) == 8
    assert firewall.own_rules(case("ours_behind").ruleset) == own, "an accept has counted packets, or moved"
    for place, rules in found.rules.items():
        for at, rule in enumerate(rules):
            left = replace(found, rules={**found.rules, place: rules[:at] + rules[at + 1 :]})
            is_ours = "TECHULUS" in place[2] or "TECHULUS-FORWARD" in firewall.targets(found, rule)
            is_ours |= "TECHULUS-INPUT" in firewall.targets(found, rule)
            assert (firewall.own_rules(left) == own) is not is_ours, place
    assert firewall.own_rules(case("debian").ruleset) == ()


def test_what_is_not_managed_need_not_pass() -> None:
    """A worker has no web, a server without a tunnel no mesh, one without names no questions for them."""
    found = case("policy")
    bare = a_server(found.indexes, interface=None, is_proxy=False, names=False)
    assert drops(found.ruleset, bare) == {
        "inet filter forward (policy drop)": ["the containers to the outside", "answers to the containers"]
    }


def test_what_is_not_known_of_this_server_is_no_certain_drop() -> None:
    """Without a container there is no bridge, and a rule for any bridge may be meant for it."""
    found = case("containers_pass")
    server = a_server({}, bridge=None, outside=None)
    assert drops(found.ruleset, server) == {"inet filter forward (policy drop)": ["the mesh to the containers"]}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("policy", "nft insert rule inet filter forward iifname wg0 ip daddr 10.200.7.0/24 accept"),
        ("policy", "nft insert rule inet filter forward iifname podman1 ip saddr 10.200.7.0/24 accept"),
        ("ours", "iptables -I INPUT -p udp --dport 51820 -j ACCEPT"),
        ("firewalld", "firewall-cmd --permanent --add-port=51820/udp && firewall-cmd --reload"),
        (
            "firewalld",
            "firewall-cmd --permanent --policy=techulus-forward --add-ingress-zone=ANY && firewall-cmd --reload",
        ),
    ],
)
def test_the_rule_to_add_is_in_the_words_of_its_tool(name: str, command: str) -> None:
    """One that can be pasted; each command once."""
    found = case(name)
    commands = [one.commands for one in firewall.blocked(found.ruleset, a_server(found.indexes))]
    assert any(command in each for each in commands)
    assert all(len(set(each)) == len(each) for each in commands)


def test_names_of_others_are_quoted() -> None:
    """A command is pasted into a shell."""
    found = case("policy").ruleset
    chains = tuple(replace(one, place=("inet", "a;b", "$(c)")) for one in found.chains)
    renamed = Ruleset(chains, {}, {})
    (first, *_) = firewall.blocked(renamed, a_server({}))
    assert first.commands[0].startswith("nft insert rule inet 'a;b' '$(c)' ")


@pytest.mark.parametrize(
    ("name", "word"), [("7wg", "'\"7wg\"'"), ("wg@x", "'\"wg@x\"'"), ("mark", "'\"mark\"'"), ("wg0", "wg0")]
)
def test_names_that_nft_takes_for_something_else_are_quoted_for_it(name: str, word: str) -> None:
    """It reads a number, or a word of its own, where the quotes of the shell are all that there is."""
    found = case("policy")
    server = a_server({}, interface=name, bridge=name)
    (first, *_) = firewall.blocked(found.ruleset, server)
    assert f"nft insert rule inet filter forward iifname {word} ip daddr 10.200.7.0/24 accept" in first.commands
    assert f"nft insert rule inet filter forward iifname {word} ip saddr 10.200.7.0/24 accept" in first.commands


def test_firewalld_is_not_asked_to_open_a_zone() -> None:
    """Nor to move a link into one: it may be in a zone of its owner's."""
    found = case("firewalld")
    commands = [word for one in firewall.blocked(found.ruleset, a_server(found.indexes)) for word in one.commands]
    assert not any("--zone" in one or "interface" in one for one in commands)
    for kind, rule in (
        ("forward", "destination address=10.200.7.0/24 source address=10.200.0.0/16"),
        ("forward", "source address=10.200.7.0/24"),
        ("input", "source address=10.200.7.0/24 destination address=10.200.7.1 port port=53 protocol=udp"),
    ):
        line = f"firewall-cmd --permanent --policy=techulus-{kind} --add-rich-rule='rule family=ipv4 {rule} accept'"
        assert f"{line} && firewall-cmd --reload" in commands
    made = [one for one in commands if "--new-policy" in one]
    assert len(made) == len(set(made)) == 2


def test_a_rule_of_gigabytes_is_refused_at_once() -> None:
    """The length of what is read of a packet is four bytes of the rule's; nothing is worked off by it."""
    length, refused = b"\x08\x00\x04\x00", 0
    for name in NAMES:
        found = case(name).ruleset
        for place, rules in found.rules.items():
            for rule in rules:
                head, here, tail = rule.raw.partition(b"payload\0")
                before, there, after = tail.partition(length)
                raw = head + here + before + there + b"\x7f\xff\xff\xff" + after[4:]
                if here and there:
                    broken = replace(found, rules={**found.rules, place: (replace(rule, raw=raw),)})
                    try:
                        firewall.blocked(broken, a_server({}))
                    except ValueError as error:
                        refused += "registers for 80" in str(error)
    assert refused


@given(st.sampled_from(NAMES), st.data())
def test_no_bytes_of_a_rule_do_harm(name: str, data: st.DataObject) -> None:
    """A rule of a kernel to come is not understood, which is said: ValueError, and nothing else."""
    found = case(name).ruleset
    if not found.rules:
        return
    place = data.draw(st.sampled_from(sorted(found.rules)))
    rule = data.draw(st.sampled_from(found.rules[place]))
    at = data.draw(st.integers(0, max(0, len(rule.raw) - 1)))
    raw = rule.raw[:at] + data.draw(st.binary(max_size=8)) + rule.raw[at:]
    broken = replace(found, rules={**found.rules, place: (replace(rule, raw=raw), *found.rules[place])})
    server = a_server({})
    for judge in (
        lambda: firewall.blocked(broken, server),
        lambda: firewall.lost(broken, server, publishes=True),
        lambda: firewall.own_rules(broken),
    ):
        try:
            judge()
        except ValueError:
            continue


def test_a_ring_of_jumps_ends() -> None:
    """The kernel refuses one; a ruleset that was read while it changed may have one."""
    found = case("reject").ruleset
    ring = {place: tuple(rule for rule in rules for _ in range(9)) for place, rules in found.rules.items()}
    jumps = next(rule for rule in found.rules["inet", "filter", "zones"])
    ring["inet", "filter", "public"] = (replace(jumps, place=("inet", "filter", "public")),) * 40
    assert isinstance(dropped(replace(found, rules=ring), nftables.FORWARD, Packet()), tuple)
