"""What this server's firewalls do to the traffic of the containers: whether our rules and Podman's are there, and whether another
firewall drops what must pass.

Decides from a ruleset that was read. An administrator's firewall is named with the rule to add, and never changed.
"""

import re
import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from core import nftables
from core.address import CONTAINER_NETWORK, MESH_NETWORK
from core.nftables import FORWARD, INPUT, POSTROUTING, PREROUTING, Chain, Place, Rule, Ruleset, attributes, text
from core.packet_filter import NETWORK, TRANSPORT, Packet, dropped, translated
from core.render import Json

FORWARD_CHAIN: Final = "TECHULUS-FORWARD"
INPUT_CHAIN: Final = "TECHULUS-INPUT"
PREROUTING_CHAIN: Final = "TECHULUS-PREROUTING"
OWN_CHAINS: Final = {
    FORWARD_CHAIN: ("filter", "FORWARD"),
    INPUT_CHAIN: ("filter", "INPUT"),
    PREROUTING_CHAIN: ("mangle", "PREROUTING"),
}
"""Our chains in iptables' tables: the table of each, and the chain that leads there."""
_IPTABLES: Final = ("ip", "filter")  # the table that the command iptables writes to
_TCP, _UDP = 6, 17
_NEW, _ESTABLISHED = 8, 2  # as nftables counts the states of a connection
_JUMPS: Final = (b"lookup\0", b"\xff\xff\xff\xfd", b"\xff\xff\xff\xfc")  # a map, and the verdicts jump and goto
_ANY_PORT: Final = 28_657  # stands for the ports of containers: one that no list of well-known ports lets pass
_OUTSIDE: Final = "203.0.113.1"  # stands for any address of the world (RFC 5737)
_MESH_NETWORKS: Final = (MESH_NETWORK, CONTAINER_NETWORK)
_PLAIN: Final = re.compile(r"(?!icmpv6$)[a-z]+[0-9]+")  # of all names that nft takes without quotes, the usual ones
_ELSEWHERE: Final = "10.200.0.0"  # stands for a container of another server; no server has the number 0


@dataclass(frozen=True, slots=True)
class Server:
    """What the rules are about: the tunnel's link (None when it is not managed), the containers' bridge and the link to the outside (None
    when not known), and which services listen here. `indexes` are the kernel's numbers of links, by name; `unmanaged_tunnel` is the link
    by which the mesh comes in where somebody else manages it.
    """

    subnet_id: int
    interface: str | None
    bridge: str | None
    outside: str | None
    wireguard_port: int
    is_proxy: bool
    names: bool
    indexes: Mapping[str, int] = field(default_factory=dict)
    unmanaged_tunnel: str | None = None

    @property
    def network(self) -> str:
        """The containers' network."""
        return f"10.200.{self.subnet_id}.0/24"

    @property
    def gateway(self) -> str:
        """This server's address in it, where names are answered."""
        return f"10.200.{self.subnet_id}.1"

    @property
    def mesh_address(self) -> str:
        """This server's address in the tunnel."""
        return f"10.100.{self.subnet_id}.1"


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic that must pass: in words, a packet of it, and the rule that accepts it in the words of nft, iptables and firewall-cmd (there,
    what is to be done one after the other).

    `kept_by` is who sets that rule in iptables' tables: "agent", "podman", or nobody.
    """

    what: str
    hook: int
    packet: Packet
    nft: str
    iptables: str
    firewalld: tuple[str, ...]
    kept_by: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A base chain that drops traffic which must pass: by its policy or by a rule, what, and the commands that let it pass."""

    family: str
    table: str
    chain: str
    by: str
    drops: tuple[str, ...]
    commands: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.chain} ({self.by}) drops {', '.join(self.drops)}"

    def json(self) -> dict[str, Json]:
        """As `agent status` tells it."""
        return {
            "family": self.family,
            "table": self.table,
            "chain": self.chain,
            "by": self.by,
            "drops": list(self.drops),
            "add": list(self.commands),
        }


def blocked(ruleset: Ruleset, server: Server) -> tuple[Blocked, ...]:
    """Every base chain that surely drops some of the traffic that must pass. Raises ValueError for a ruleset that is not understood.

    Where the agent's or Podman's rules are missing as a whole, that is what is wrong, and not the chain that they should stand in.
    """
    lets_through = any(any(_own_rules(ruleset, chain)) for chain in (FORWARD_CHAIN, INPUT_CHAIN))
    present = {"agent": lets_through, "podman": _lets_through(ruleset, server)}
    found: dict[tuple[Chain, Place | None], list[Flow]] = {}
    for flow in flows(server):
        for one in dropped(ruleset, flow.hook, flow.packet):
            if one.chain.place[:2] != _IPTABLES or present.get(flow.kept_by, True):
                found.setdefault((one.chain, one.by), []).append(flow)
    return tuple(_blocked(chain, by, stopped) for (chain, by), stopped in found.items())


def _blocked(chain: Chain, by: Place | None, stopped: list[Flow]) -> Blocked:
    rule = "a rule" if by in (None, chain.place) else f"a rule of its chain {by[2]}"
    commands = dict.fromkeys(command for flow in stopped for command in _commands(chain.place, flow))
    return Blocked(
        *chain.place, "policy drop" if by is None else rule, tuple(flow.what for flow in stopped), tuple(commands)
    )


def _commands(place: Place, flow: Flow) -> tuple[str, ...]:
    """The commands that let a flow pass a chain. In front of all other rules: a chain ends at the first that accepts or drops."""
    family, table, chain = place
    if table == "firewalld":
        return tuple(f"firewall-cmd --permanent {words} && firewall-cmd --reload" for words in flow.firewalld)
    if place[:2] == _IPTABLES and chain.isupper():
        return (f"iptables -I {shlex.quote(chain)} {flow.iptables} -j ACCEPT",)
    return (f"nft insert rule {family} {shlex.quote(table)} {shlex.quote(chain)} {flow.nft} accept",)


def flows(server: Server) -> Iterator[Flow]:
    """What must pass this server."""
    network, bridge, outside = server.network, server.bridge, server.outside
    own = f"10.200.{server.subnet_id}.2"
    leave = (
        f"{_nft_link(bridge)}ip saddr {network}",
        f"{_iptables_link(bridge)}-s {network}",
        _policy("forward", f"source address={network}"),
    )
    if server.interface is not None:
        mesh = (f"destination address={network} source address={far}" for far in _MESH_NETWORKS)
        enter = (
            f"{_nft_link(server.interface)}ip daddr {network}",
            f"{_iptables_link(server.interface)}-d {network}",
            _policy("forward", *mesh),
        )
        packet = _packet(server, (server.interface, bridge), _ELSEWHERE, own, _TCP, _ANY_PORT)
        yield Flow("the mesh to the containers", FORWARD, packet, *enter, kept_by="agent")
        packet = _packet(server, (bridge, server.interface), own, _ELSEWHERE, _TCP, _ANY_PORT)
        yield Flow("the containers to the mesh", FORWARD, packet, *leave, kept_by="agent")
        yield from _ports(server, "tunnels from outside", _UDP, (server.wireguard_port,))
    packet = _packet(server, (bridge, outside), own, None, _TCP)
    yield Flow("the containers to the outside", FORWARD, packet, *leave, kept_by="podman")
    answer = _packet(server, (outside, bridge), None, own, _TCP, state=_ESTABLISHED)
    states = "ESTABLISHED,RELATED"
    back = f"ip daddr {network} ct state {states.lower()}", f"-d {network} -m conntrack --ctstate {states}"
    # firewalld accepts what is established before everything else.
    yield Flow("answers to the containers", FORWARD, answer, *back, leave[2], kept_by="podman")
    if server.names:
        yield from _names(server)
    if server.is_proxy:
        yield from _ports(server, "HTTP and HTTPS from outside", _TCP, (80, 443))
        yield from _ports(server, "HTTP/3 from outside", _UDP, (443,))


def _nft_link(name: str | None) -> str:
    """The match for an incoming link; nothing for one that is not known. Names that nft could take for something else are quoted for it."""
    if name is None:
        return ""
    word = name if _PLAIN.fullmatch(name) else f'"{name}"'
    return f"iifname {shlex.quote(word)} "


def _iptables_link(name: str | None) -> str:
    return "" if name is None else f"-i {shlex.quote(name)} "


def _policy(kind: str, *rules: str) -> tuple[str, ...]:
    """What makes a policy of firewalld's that accepts these packets and no others, from whichever zone their links are in.

    A zone could let no traffic in by its address and its link alone, and a link is in one zone, which is its owner's choice.
    """
    name, target = f"techulus-{kind}", "HOST" if kind == "input" else "ANY"
    return (
        f"--new-policy={name}",
        f"--policy={name} --add-ingress-zone=ANY",
        f"--policy={name} --add-egress-zone={target}",
        *(f"--policy={name} --add-rich-rule='rule family=ipv4 {rule} accept'" for rule in rules),
    )


def _names(server: Server) -> Iterator[Flow]:
    ends = f"{server.network}", f"{server.gateway}"
    for protocol, word in ((_UDP, "udp"), (_TCP, "tcp")):
        packet = _packet(server, (server.bridge, None), f"10.200.{server.subnet_id}.2", ends[1], protocol, 53)
        yield Flow(
            f"questions for names from the containers ({word})",
            INPUT,
            packet,
            f"ip saddr {ends[0]} ip daddr {ends[1]} {word} dport 53",
            f"-s {ends[0]} -d {ends[1]} -p {word} --dport 53",
            _policy(
                "input",
                f"source address={ends[0]} destination address={ends[1]} port port=53 protocol={word}",
            ),
            kept_by="agent",
        )


def _ports(server: Server, what: str, protocol: int, ports: tuple[int, ...]) -> Iterator[Flow]:
    word = "udp" if protocol == _UDP else "tcp"
    for port in ports:
        packet = _packet(server, (server.outside, None), None, None, protocol, port)
        match = f"{word} dport {port}", f"-p {word} --dport {port}", (f"--add-port={port}/{word}",)
        yield Flow(f"{what} ({port}/{word})", INPUT, packet, *match)


def _packet(
    server: Server,
    links: tuple[str | None, str | None],
    source: str | None,
    target: str | None,
    protocol: int,
    port: int | None = None,
    state: int = _NEW,
) -> Packet:
    """A packet between two links; what is None is not known, and so is all that is not said here."""
    meta = {"protocol": b"\x08\x00", "nfproto": b"\x02", "l4proto": bytes((protocol,))}
    for side, name in zip(("iif", "oif"), links, strict=True):
        if name is not None:
            meta[f"{side}name"] = name.encode().ljust(16, b"\0")
        if name is not None and name in server.indexes:
            meta[side] = struct.pack("=I", server.indexes[name])
    headers = {(NETWORK, 9): protocol}
    for offset, address in ((12, source), (16, target)):
        if address is not None:
            headers |= {(NETWORK, offset + at): byte for at, byte in enumerate(IPv4Address(address).packed)}
    if port is not None:
        headers |= {(TRANSPORT, 2 + at): byte for at, byte in enumerate(struct.pack(">H", port))}
    ct = {"state": struct.pack("=I", state)}
    if state == _NEW:
        ct |= {"direction": b"\0", "status": bytes(4)}  # nothing is translated yet
    return Packet(meta, ct, headers)


def own_rules(ruleset: Ruleset) -> tuple[bytes, ...]:
    """What there is of our chains and of the jumps that lead into them, in a form that differs when any of it was changed."""
    return tuple(found for chain in OWN_CHAINS for found in _own_rules(ruleset, chain))


def _own_rules(ruleset: Ruleset, chain: str) -> Iterator[bytes]:
    table, parent = OWN_CHAINS[chain]
    jumps = [rule for rule in ruleset.rules.get(("ip", table, parent), ()) if chain in targets(ruleset, rule)]
    rules = (*jumps[:1], *ruleset.rules.get(("ip", table, chain), ()))
    return (chain.encode() + b" " + rule.content() for rule in rules)


def lost(ruleset: Ruleset, server: Server, *, publishes: bool) -> tuple[str, ...]:
    """What is missing of Podman's rules while containers run, in words; `publishes` says whether one has ports of this server.

    Their network gets another source where it leaves this server, by Podman or by whoever else does that, is let through where Podman has
    a chain for that or iptables drops the rest, and ports lead to Podman's chains. Rules count where packets can reach them. Raises
    ValueError.
    """
    leaving = _packet(
        server, (server.bridge, server.outside), f"10.200.{server.subnet_id}.2", _OUTSIDE, _TCP, _ANY_PORT
    )
    found = []
    if not translated(ruleset, POSTROUTING, leaving):
        found.append(f"masquerading of {server.network}")
    has_chain = any(_is_podmans(chain.place) and "FORWARD" in chain.place[2] for chain in ruleset.chains)
    if not _lets_through(ruleset, server) and (has_chain or _drops_podmans(ruleset, server)):
        found.append(f"forwarding of {server.network}")
    if publishes and not any(_is_podmans(rule.place) for rule in _reachable(ruleset, PREROUTING, "nat")):
        found.append("ports of this server")
    return tuple(found)


def _drops_podmans(ruleset: Ruleset, server: Server) -> bool:
    """Whether iptables' table drops what Podman's rules would let through."""
    needed = (flow for flow in flows(server) if flow.kept_by == "podman")
    return any(one.chain.place[:2] == _IPTABLES for flow in needed for one in dropped(ruleset, flow.hook, flow.packet))


def _lets_through(ruleset: Ruleset, server: Server) -> bool:
    """Whether packets can reach a rule of Podman's for the containers' network."""
    prefix = IPv4Address(server.gateway).packed[:3]
    return any(prefix in rule.raw for rule in _reachable(ruleset, FORWARD, "filter") if _is_podmans(rule.place))


def _is_podmans(place: Place) -> bool:
    return "NETAVARK" in place[1].upper() or "NETAVARK" in place[2].upper()


def _reachable(ruleset: Ruleset, hook: int, kind: str) -> Iterator[Rule]:
    """The rules that a hook's packets may come to."""
    waiting = [chain.place for chain in ruleset.based(hook, kind)]
    seen = set(waiting)
    while waiting:
        for rule in ruleset.rules.get(waiting.pop(), ()):
            yield rule
            further = {(*rule.place[:2], target) for target in targets(ruleset, rule)} - seen
            seen |= further
            waiting += sorted(further)


def targets(ruleset: Ruleset, rule: Rule) -> frozenset[str]:
    """The chains that a rule may jump to, by a verdict of its own or by a map's. Raises ValueError."""
    if not any(part in rule.raw for part in _JUMPS):  # most rules: nothing to take apart
        return frozenset()
    verdicts: list[bytes] = []
    for step in rule.expressions():
        if step.name == "immediate":
            verdicts += [value for kind, value in attributes(step.attributes.get(2, b"")) if kind == 2]
        elif step.name == "lookup":
            found = ruleset.sets.get((*rule.place[:2], text(step.attributes.get(1, b""))))
            verdicts += _verdicts(() if found is None else found.elements or ())
    return frozenset(text(dict(attributes(one)).get(2, b"")) for one in verdicts) - {""}


def _verdicts(elements: Iterable[nftables.Element]) -> Iterator[bytes]:
    return (one.verdict for one in elements if one.verdict is not None)
