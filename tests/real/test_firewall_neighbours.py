"""What a neighbour of a server reaches of its containers: our rules in the kernel, between machines of the lab.

neighbour – server – container, a peer behind the tunnel's link, and a container of the operator's own on another bridge.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.machine import Machine, cable
from tests.lab.process import LabError
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

_WEB, _NAMES = 8080, 53
_RULES = """
import asyncio, sys
from shell.adapters.firewall import Firewall, FirewallSettings
firewall = Firewall(FirewallSettings(7, sys.argv[2] or None, 51_820, is_proxy=False, names=True, unmanaged_tunnel=sys.argv[3] or None))
print(asyncio.run(getattr(firewall, sys.argv[1])()))
"""
# As Podman's network driver sets them: by iptables, and its newer versions by nftables.
_PODMANS_IPTABLES = """\
*filter
:NETAVARK_FORWARD - [0:0]
-I FORWARD -j NETAVARK_FORWARD
-A NETAVARK_FORWARD -d 10.200.7.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A NETAVARK_FORWARD -s 10.200.7.0/24 -j ACCEPT
COMMIT
*nat
:NETAVARK-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT
-A NETAVARK-HOSTPORT-DNAT -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.200.7.2:8080
-A POSTROUTING -s 10.200.7.0/24 ! -d 10.200.0.0/16 -j MASQUERADE
COMMIT
"""
_PODMANS_NFTABLES = """\
table inet netavark {
 chain FORWARD { type filter hook forward priority filter; policy accept
  ip daddr 10.200.7.0/24 ct state established,related accept
  ip saddr 10.200.7.0/24 accept
 }
 chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept
  ip saddr 10.200.7.0/24 ip daddr != 10.200.0.0/16 masquerade
 }
 chain PREROUTING { type nat hook prerouting priority dstnat; policy accept
  fib daddr type local jump NETAVARK-HOSTPORT-DNAT
 }
 chain NETAVARK-HOSTPORT-DNAT { tcp dport 30080 dnat ip to 10.200.7.2:8080; }
}
"""


@dataclass
class Lab:
    """The server 7 and who is around it; `path` is where the server finds iptables."""

    server: Machine
    neighbour: Machine
    peer: Machine
    container: Machine
    other: Machine
    path: str = os.environ["PATH"]
    tunnel: str = "wg0"
    unmanaged: str = ""

    def set_rules(self) -> None:
        """As the agent does it."""
        self._call("apply")
        assert "fault=None" in self._call("fetch")

    def withdraw(self) -> None:
        """As if there had been no agent."""
        self._call("withdraw")

    def fault(self) -> str:
        """What the agent finds."""
        return self._call("fetch")

    def iptables(self, *words: str, text: str = "") -> str:
        """Of this server's kind."""
        return self.server.run("iptables", *words, env={**os.environ, "PATH": self.path}, text=text)

    def load_podmans(self, kind: str) -> None:
        """Podman's rules by one of its drivers."""
        if kind == "nftables":
            self.server.run("nft", "-f", "-", text=_PODMANS_NFTABLES)
        else:
            env = {**os.environ, "PATH": self.path}
            self.server.run("iptables-restore", "--noflush", env=env, text=_PODMANS_IPTABLES)

    def reached(self) -> set[str]:
        """What of the server the neighbour reaches without having been asked in."""
        asked = {
            "container": ("10.200.7.2", _WEB),
            "resolver": ("10.200.7.1", _NAMES),
            "tunnel": ("10.100.7.1", _NAMES),
            "other container": ("10.89.0.2", _WEB),
            "server": ("192.0.2.1", _NAMES),
        }
        probes = [(what, kind) for what in asked for kind in ("tcp", "udp")]
        with ThreadPoolExecutor(len(probes)) as threads:
            answers = threads.map(lambda probe: self.neighbour.ask(probe[1], *asked[probe[0]]), probes)
        return {f"{what}/{kind}" for (what, kind), answer in zip(probes, answers, strict=True) if answer}

    def _call(self, what: str) -> str:
        argv = (sys.executable, "-c", _RULES, what, self.tunnel, self.unmanaged)
        return self.server.run(*argv, env={**os.environ, "PATH": self.path})


_FOREIGN = {f"{what}/{kind}" for what in ("other container", "server") for kind in ("tcp", "udp")}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Everybody has a route to everything by the server, which forwards."""
    with ExitStack() as stack:
        names = ("server", "neighbour", "peer", "container", "other")
        server, neighbour, peer, container, other = (stack.enter_context(Machine(name, tmp_path)) for name in names)
        cable(server, "eth0", neighbour, "eth0")
        cable(server, "wg0", peer, "wg0")
        cable(server, "veth0", container, "eth0")
        cable(server, "veth1", other, "eth0")
        for bridge, end in (("podman1", "veth0"), ("podman2", "veth1")):
            server.run("ip", "link", "add", bridge, "type", "bridge")
            server.run("ip", "link", "set", bridge, "up")
            server.run("ip", "link", "set", end, "master", bridge)
        addresses = (
            (server, "eth0", "192.0.2.1/24"),
            (server, "wg0", "10.100.7.1/24"),
            (server, "podman1", "10.200.7.1/24"),
            (server, "podman2", "10.89.0.1/24"),
            (neighbour, "eth0", "192.0.2.2/24"),
            (neighbour, "lo", "10.200.7.77/32"),
            (neighbour, "lo", "10.100.9.77/32"),
            (peer, "wg0", "10.100.9.1/24"),
            (peer, "wg0", "10.200.9.2/32"),
            (container, "eth0", "10.200.7.2/24"),
            (other, "eth0", "10.89.0.2/24"),
        )
        for machine, link, address in addresses:
            machine.run("ip", "address", "add", address, "dev", link)
        for machine, gateway in ((neighbour, "192.0.2.1"), (container, "10.200.7.1"), (other, "10.89.0.1")):
            machine.run("ip", "route", "add", "default", "via", gateway)
        peer.run("ip", "route", "add", "default", "via", "10.100.7.1", "dev", "wg0", "onlink", "src", "10.200.9.2")
        for network in ("10.200.9.0/24", "10.100.9.0/24"):
            server.run("ip", "route", "add", network, "dev", "wg0")
        for name in ("ip_forward", "conf.all.rp_filter", "conf.eth0.rp_filter"):
            server.run("sh", "-c", f"echo {int(name == 'ip_forward')} >/proc/sys/net/ipv4/{name.replace('.', '/')}")
        for machine, port in ((server, _NAMES), (container, _WEB), (other, _WEB), (neighbour, _WEB), (peer, _WEB)):
            machine.answer(port)
        yield Lab(server, neighbour, peer, container, other)


@pytest.fixture(params=["iptables", "legacy", "nftables"])
def backed(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Lab:
    """With Podman's rules by iptables, by the iptables of before nftables (both of them ours, too), and by nftables."""
    if request.param == "legacy":
        for name in ("iptables", "iptables-restore"):
            (tmp_path / name).symlink_to("/usr/sbin/xtables-legacy-multi")
        lab.path = f"{tmp_path}:{lab.path}"
    lab.load_podmans(request.param)
    return lab


def test_a_neighbour_reaches_what_is_published_and_nothing_else(backed: Lab) -> None:
    """L64: neither a container nor the resolver nor the tunnel's address; before our rules, all of them."""
    guarded = {f"{what}/{kind}" for what in ("container", "resolver", "tunnel") for kind in ("tcp", "udp")}
    assert backed.reached() == guarded | _FOREIGN
    backed.set_rules()
    assert backed.reached() == _FOREIGN
    assert backed.neighbour.ask("tcp", "192.0.2.1", 30_080) == "container"
    backed.withdraw()
    assert backed.reached() == guarded | _FOREIGN


def test_whoever_may_goes_on_reaching(backed: Lab) -> None:
    """L64: through the tunnel, from the server itself and by published ports; and what containers begin is answered."""
    backed.set_rules()
    for kind in ("tcp", "udp"):
        assert backed.peer.ask(kind, "10.200.7.2", _WEB) == "container"
        assert backed.peer.ask(kind, "10.200.7.1", _NAMES) == backed.peer.ask(kind, "10.100.7.1", _NAMES) == "server"
        assert backed.server.ask(kind, "10.200.7.2", _WEB) == "container"
        for address in ("10.200.7.1", "10.100.7.1"):
            assert backed.server.ask(kind, address, _NAMES, "192.0.2.1") == "server"
            assert backed.container.ask(kind, address, _NAMES) == "server"
        assert backed.container.ask(kind, "10.200.9.2", _WEB) == "peer"
        assert backed.container.ask(kind, "192.0.2.2", _WEB) == "neighbour"
    assert backed.other.ask("tcp", "192.0.2.1", 30_080) == "container"


def test_answers_come_back_without_masquerading(lab: Lab) -> None:
    """What a container began passes where the neighbours know the way to it, and nobody gives its packets the server's address."""
    lab.set_rules()
    for kind in ("tcp", "udp"):
        assert lab.container.ask(kind, "192.0.2.2", _WEB) == "neighbour"


def test_another_network_of_podman_is_another_link(lab: Lab) -> None:
    """L64: a container of the operator's own reaches ours by published ports only; its own network is no affair of ours."""
    assert lab.other.ask("tcp", "10.200.7.2", _WEB) == "container"
    lab.set_rules()
    for kind in ("tcp", "udp"):
        assert lab.other.ask(kind, "10.200.7.2", _WEB) == lab.other.ask(kind, "10.200.7.1", _NAMES) == ""
        assert lab.other.ask(kind, "10.89.0.1", _NAMES) == "server"
        assert lab.server.ask(kind, "10.89.0.2", _WEB) == "other"


@pytest.mark.parametrize("source", ["10.200.7.77", "10.100.9.77"])
def test_a_forged_address_opens_nothing(lab: Lab, source: str) -> None:
    """L64: what calls itself a container or a peer is dropped on any other link; to a container, and into the mesh by our own accept."""
    lab.server.run("iptables", "-P", "FORWARD", "DROP")
    lab.set_rules()
    for _ in range(3):
        lab.neighbour.send("10.200.7.2", _WEB, "forged", source)
        lab.neighbour.send("10.200.7.1", _NAMES, "forged", source)
        if source.startswith("10.200."):  # our rules accept what comes from a container
            lab.neighbour.send("10.200.9.2", _WEB, "forged", source)
    assert lab.peer.ask("udp", "10.200.7.2", _WEB) == "container"
    assert lab.peer.ask("udp", "10.200.7.1", _NAMES) == "server"
    assert lab.container.ask("udp", "10.200.9.2", _WEB) == "peer"
    assert (lab.container.heard(_WEB), lab.server.heard(_NAMES), lab.peer.heard(_WEB)) == (["ask"], ["ask"], ["ask"])


def test_an_accept_of_somebody_elses_does_not_overrule(lab: Lab) -> None:
    """L64: others put theirs in front, in the usual chains."""
    lab.set_rules()
    for chain in ("INPUT", "FORWARD"):
        lab.iptables("-I", chain, "-i", "eth0", "-j", "ACCEPT")
    assert lab.reached() == _FOREIGN


@pytest.mark.parametrize("before", ["-F", "-D PREROUTING ! -i lo -j TECHULUS-PREROUTING"], ids=["boot", "flush"])
def test_an_owners_accept_stays_in_front(lab: Lab, before: str) -> None:
    """What docs/operating.md has an operator add for a link of their own counts, whoever comes first."""
    lab.set_rules()
    accept = ("PREROUTING", "-i", "eth0", "-d", "10.200.7.0/24", "-j", "ACCEPT")
    lab.iptables("-t", "mangle", "-I", *accept)
    let_in = _FOREIGN | {f"{what}/{kind}" for what in ("container", "resolver") for kind in ("tcp", "udp")}
    assert lab.reached() == let_in
    lab.iptables("-t", "mangle", *before.split())
    if before == "-F":  # theirs are there before the agent's
        lab.iptables("-t", "mangle", "-A", *accept)
    lab.set_rules()
    assert lab.reached() == let_in


def test_ports_that_an_administrator_leads_to_a_container(lab: Lab) -> None:
    """L64: they are published, too; also by a chain whose priority is earlier than usual."""
    lab.set_rules()
    text = (
        "table ip own { chain p { type nat hook prerouting priority -160; tcp dport 4000 dnat to 10.200.7.2:8080; }; }"
    )
    lab.server.run("nft", "-f", "-", text=text)
    assert lab.neighbour.ask("tcp", "192.0.2.1", 4000) == "container"


@pytest.mark.parametrize("flush", ["iptables -t mangle -F", "nft flush ruleset"])
def test_rules_that_are_flushed_are_missed(lab: Lab, flush: str) -> None:
    """L64: as all others of ours; set again, they hold."""
    lab.set_rules()
    lab.server.run("sh", "-c", flush)
    assert "a firewall manager has removed a rule that" in lab.fault()
    lab.set_rules()
    assert lab.reached() == _FOREIGN


@pytest.mark.parametrize("chain", ["mangle TECHULUS-PREROUTING", "filter TECHULUS-FORWARD", "filter TECHULUS-INPUT"])
def test_what_others_put_into_a_chain_of_ours_goes(lab: Lab, chain: str) -> None:
    """L64: a rule of an earlier agent's, or somebody's that undoes ours."""
    lab.set_rules()
    table, name = chain.split()
    before = lab.iptables("-t", table, "-S", name)
    for words in (("-j", "RETURN"), ("-i", "wg1", "-d", "10.200.6.0/24", "-j", "DROP")):
        lab.iptables("-t", table, "-I", name, *words)
    assert f"somebody has added a rule to the agent's chain {name}" in lab.fault()
    lab.set_rules()
    assert lab.iptables("-t", table, "-S", name) == before


def test_a_tunnel_that_somebody_else_manages(lab: Lab) -> None:
    """L64: it comes in by the link that the agent was told; from all others nothing does."""
    lab.tunnel, lab.unmanaged = "", "wg0"
    lab.set_rules()
    assert lab.peer.ask("tcp", "10.200.7.2", _WEB) == "container"
    assert lab.reached() == _FOREIGN | {"tunnel/tcp", "tunnel/udp"}


def test_a_tunnel_of_another_name_than_was_told(lab: Lab) -> None:
    """What comes through it is not dropped as a neighbour's; the guard comes with the link that was told."""
    lab.tunnel, lab.unmanaged = "", "mesh0"
    lab.set_rules()
    assert lab.peer.ask("tcp", "10.200.7.2", _WEB) == "container"
    for change in (("set", "wg0", "down"), ("set", "wg0", "name", "mesh0"), ("set", "mesh0", "up")):
        lab.server.run("ip", "link", *change)
    assert "keeps neighbours" in lab.fault()
    lab.set_rules()
    assert lab.reached() <= _FOREIGN | {"tunnel/tcp", "tunnel/udp"}


def test_a_kernel_without_a_match(lab: Lab, tmp_path: Path) -> None:
    """L64: what can be set holds; what cannot is said, and tried again."""
    wrapper = tmp_path / "iptables"
    wrapper.write_text(
        '#!/bin/sh\ncase "$*" in *rpfilter*) echo no such match; exit 2 ;; esac\nexec /usr/sbin/iptables "$@"\n'
    )
    wrapper.chmod(0o755)
    lab.path = f"{tmp_path}:{lab.path}"
    for _ in range(2):
        with pytest.raises(LabError, match="no such match"):
            lab.set_rules()
    before = lab.iptables("-t", "mangle", "-S")
    for change in ("", "-I TECHULUS-PREROUTING -j RETURN"):
        if change:
            lab.iptables("-t", "mangle", *change.split())
        with pytest.raises(LabError, match="no such match"):
            lab.set_rules()
        assert lab.iptables("-t", "mangle", "-S") == before, "neither more rules nor others"
    assert lab.reached() == _FOREIGN
    for kind in ("tcp", "udp"):
        assert lab.peer.ask(kind, "10.200.7.2", _WEB) == "container"
        assert lab.container.ask(kind, "10.200.7.1", _NAMES) == "server"


def test_a_bridge_that_comes_later(lab: Lab) -> None:
    """Podman makes it with the first container, by a name of its own: no rule waits for that."""
    lab.server.run("ip", "link", "delete", "podman1")
    lab.set_rules()
    lab.server.run("ip", "link", "add", "cni7", "type", "bridge")
    lab.server.run("ip", "link", "set", "cni7", "up")
    lab.server.run("ip", "address", "add", "10.200.7.1/24", "dev", "cni7")
    lab.server.run("ip", "link", "set", "veth0", "master", "cni7")
    wait_for(lambda: lab.container.ask("udp", "10.200.7.1", _NAMES) == "server", 10, "the bridge to forward")
    assert lab.reached() == _FOREIGN
