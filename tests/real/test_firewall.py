"""Two servers whose firewalls are reloaded, or belong to an administrator who does not know of the containers."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

from tests.lab.agent import AGENT
from tests.lab.fleet import Fleet, Node
from tests.lab.process import LabError, run
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(private_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two workers with a container each, which reach each other."""
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=2, proxies=0) as running:
        image = running.registry.offer("web", "v1")
        running.want(
            {
                "one": {"image": image, "servers": ["worker-1"]},
                "two": {"image": image, "servers": ["worker-2"]},
            }
        )
        running.until_running(2)
        for name in ("worker-1", "worker-2"):
            node = running.node(name)
            wait_for(lambda node=node: _reaches_other(running, node), PATIENCE_S, f"the mesh; {node.last_words()}")  # type: ignore[misc]  # bound early
        yield running


@pytest.fixture
def worker(fleet: Fleet) -> Iterator[Node]:
    """The first server; without a firewall of anybody's afterwards."""
    node = fleet.node("worker-1")
    yield node
    for table in ("inet filter", "inet guard"):
        if table in node.run("nft", "list", "tables"):
            node.run("nft", "delete", "table", *table.split())
    node.run("iptables", "-P", "FORWARD", "ACCEPT")
    wait_for(lambda: node_status(node)["blocked"] == [], PATIENCE_S, "the firewall to be gone")


def test_a_flushed_firewall_is_whole_again(fleet: Fleet, worker: Node) -> None:
    """L54: `iptables -F; iptables -t nat -F` with a policy that drops, as a firewall's reload does: our rules and Podman's come back.

    Both by themselves (`tests/shell/test_firewall.py` has the times); the containers are the same ones as before.
    """
    before = worker.run("podman", "ps", "-q", "--no-trunc")
    worker.run("iptables", "-P", "FORWARD", "DROP")
    worker.run("iptables", "-F")
    worker.run("iptables", "-t", "nat", "-F")
    wait_for(lambda: _rules(worker) >= _WHOLE, PATIENCE_S, f"the rules; {worker.last_words()}")
    for node in (worker, fleet.node("worker-2")):
        wait_for(partial(_reaches_other, fleet, node), PATIENCE_S, f"the other server's container from {node.name}")
    _asks_outside(fleet, worker)
    assert worker.run("podman", "ps", "-q", "--no-trunc") == before
    for words in ('event="firewall rules removed"', 'event="Podman\'s firewall rules removed"'):
        assert words in worker.log.read_text()
    wait_for(lambda: node_status(worker)["missing"] == [], PATIENCE_S, "nothing to be missing")


def test_masquerading_alone_is_missed(fleet: Fleet, worker: Node) -> None:
    """L54: one chain of Podman's emptied, while all others are there."""
    node = fleet.node("worker-2")
    node.run("iptables", "-t", "nat", "-F", "POSTROUTING")
    wait_for(lambda: "masquerade" in _rules(node), PATIENCE_S, f"masquerading; {node.last_words()}")
    _asks_outside(fleet, node)


def test_an_administrator_who_masquerades_is_enough(fleet: Fleet, worker: Node) -> None:
    """L54: nothing is lost then, and no container is given its network anew for it."""
    before = worker.log.read_text().count("Podman's firewall rules removed")
    text = "*nat\n-F POSTROUTING\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n"
    worker.server.run(("iptables-restore", "--noflush"), text=text)  # in one step, between two looks
    worker.run("iptables", "-F", "TECHULUS-FORWARD")
    wait_for(lambda: "to the containers" in _rules(worker), PATIENCE_S, f"a look; {worker.last_words()}")
    wait_for(lambda: node_status(worker)["missing"] == [], PATIENCE_S, "the look to end")
    assert "masquerade" not in _rules(worker)
    assert worker.log.read_text().count("Podman's firewall rules removed") == before
    _asks_outside(fleet, worker)
    worker.run("iptables", "-t", "nat", "-F", "POSTROUTING")
    wait_for(lambda: "masquerade" in _rules(worker), PATIENCE_S, f"Podman's; {worker.last_words()}")


_PUBLISHED: Final = 30_080
_OPEN: Final = {"published port"}
_QUESTION: Final = b"\0\1\1\0\0\1\0\0\0\0\0\0\3two\10internal\0\0\1\0\1"  # RFC 1035: two.internal, type A, class IN


@pytest.fixture
def neighbour(fleet: Fleet, worker: Node) -> Iterator[str]:
    """This process, which is outside of the tunnel, has a route to the containers of the first server, and one of them has a port: a
    container of the operator's own.
    """
    image = fleet.registry.offer("web", "v1")
    port = ("--publish", f"{_PUBLISHED}:80")
    name = worker.run("podman", "run", "--detach", "--network", "techulus", *port, image).strip()
    routes = (f"10.200.{worker.subnet_id}.0/24", f"10.100.{worker.subnet_id}.1/32")
    for route in routes:
        run(("ip", "route", "add", route, "via", worker.server.address))
    yield name
    for route in routes:
        run(("ip", "route", "delete", route))
    worker.run("podman", "rm", "--force", name)


def test_a_neighbour_reaches_published_ports_only(fleet: Fleet, worker: Node, neighbour: str) -> None:
    """L64: not the containers, the resolver or the tunnel's address; the other server reaches them by the tunnel, also without an agent."""
    assert _reached_from_here(fleet, worker) == _OPEN
    worker.kill()
    try:
        assert _reached_from_here(fleet, worker) == _OPEN
        wait_for(partial(_reaches_other, fleet, fleet.node("worker-2")), PATIENCE_S, "the other direction")
        worker.run("iptables", "-t", "mangle", "-F", "TECHULUS-PREROUTING")
        without = _reached_from_here(fleet, worker)
        assert without >= {*_OPEN, "container", "resolver (udp)"}, "our rules alone keep it away"
        worker.run("nft", "flush", "ruleset")
    finally:
        worker.start()
    wait_for(lambda: _reached_from_here(fleet, worker) == set(), PATIENCE_S, f"our rules; {worker.last_words()}")
    worker.run("podman", "network", "reload", neighbour)
    wait_for(lambda: _reached_from_here(fleet, worker) == _OPEN, PATIENCE_S, f"Podman's; {worker.last_words()}")
    worker.run("iptables", "-t", "mangle", "-F")
    wait_for(lambda: _reached_from_here(fleet, worker) == _OPEN, PATIENCE_S, f"our rules; {worker.last_words()}")
    assert "a rule that keeps neighbours from the containers" in worker.log.read_text()
    wait_for(lambda: _reaches_other(fleet, fleet.node("worker-2")), PATIENCE_S, "the mesh")
    _asks_outside(fleet, worker)
    wait_for(partial(_resolves, worker), PATIENCE_S, "an answer to a question for a name")


def _reached_from_here(fleet: Fleet, node: Node) -> set[str]:
    """What of a server this process reaches. A second is enough: what is not dropped answers in milliseconds."""
    gateway = f"10.200.{node.subnet_id}.1"
    (row,) = (row for row in fleet.plane.lab("deployments") if row["service"] == "one")
    reached = {
        "container": _is_web(f"{row['ipAddress']}:80"),
        "published port": _is_web(f"{node.server.address}:{_PUBLISHED}"),
        "published port by the resolver's address": _is_web(f"{gateway}:{_PUBLISHED}"),
        "tunnel's address": _is_web(f"10.100.{node.subnet_id}.1:{_PUBLISHED}"),
        "resolver (udp)": _is_answered(gateway, socket.SOCK_DGRAM, _QUESTION),
        "resolver (tcp)": _is_answered(gateway, socket.SOCK_STREAM, bytes((0, len(_QUESTION))) + _QUESTION),
    }
    return {what for what, is_reached in reached.items() if is_reached}


def _is_web(authority: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{authority}/", timeout=1) as answer:
            return bool(answer.read().strip() == b"v1")
    except OSError:
        return False


def _is_answered(address: str, kind: socket.SocketKind, question: bytes) -> bool:
    with socket.socket(socket.AF_INET, kind) as asker:
        asker.settimeout(1)
        try:
            asker.connect((address, 53))
            asker.send(question)
            return bool(asker.recv(512))
        except OSError:
            return False


_FORWARD = "type filter hook forward priority 0"
_FIREWALLS = {
    "policy": f"table inet filter {{ chain forward {{ {_FORWARD}; policy drop; }}; }}",
    "policy with states": f"""
        table inet guard {{
            chain routed {{
                {_FORWARD}; policy drop
                ct state vmap {{ established : accept, related : accept, invalid : drop }}
                tcp dport {{ 22, 8443 }} log accept
            }}
        }}""",
    "reject in a chain of its own": f"""
        table inet filter {{
            chain zones {{
                iifname "eth0" goto public
                jump public
            }}
            chain public {{
                icmp type echo-request accept
            }}
            chain forward {{
                {_FORWARD}
                ct state {{ established, related }} accept
                ct status dnat accept
                iifname "lo" accept
                jump zones
                reject with icmpx type admin-prohibited
            }}
        }}""",
}


@pytest.mark.parametrize("text", _FIREWALLS.values(), ids=_FIREWALLS.keys())
def test_a_forward_chain_that_drops_is_named(fleet: Fleet, worker: Node, text: str) -> None:
    """L54: in status, log and doctor, with rules that let the containers' traffic pass when they are pasted."""
    load(worker, text)
    assert not _reaches_other(fleet, worker), "an accept in one chain should not overrule another"
    (found,) = named(worker)
    assert f"table {found['family']} {found['table']}" in text and f"chain {found['chain']} " in text
    assert {"the mesh to the containers", "the containers to the mesh"} <= set(found["drops"])
    assert all(command in worker.log.read_text() for command in found["add"])
    assert all(f"  {command}\n" in _inspect(worker, "status") for command in found["add"])
    (finding,) = doctor_findings(worker)
    assert finding["check"] == f"firewall {found['family']} {found['table']} {found['chain']}"
    assert finding["level"] == "warning" and all(command in finding["todo"] for command in found["add"])
    cure(worker, found)
    wait_for(lambda: _reaches_other(fleet, worker), PATIENCE_S, "the other server's container")
    wait_for(partial(_reaches_other, fleet, fleet.node("worker-2")), PATIENCE_S, "the other direction")
    _asks_outside(fleet, worker)


def test_an_input_chain_that_drops_is_named(fleet: Fleet, worker: Node) -> None:
    """L54: the port of the tunnel and the containers' questions for names; the example of a workstation that Debian's nftables has."""
    load(
        worker,
        """table inet filter {
            chain input {
                type filter hook input priority 0
                iif lo accept
                ct state established,related accept
                counter drop
            }
        }""",
    )
    (found,) = named(worker)
    assert found["chain"] == "input" and "tunnels from outside (51820/udp)" in found["drops"]
    before = _dropped(worker)
    _knock(fleet, worker)
    wait_for(lambda: _dropped(worker) > before, PATIENCE_S, "a packet for the tunnel to be dropped")
    assert not _resolves(worker)
    cure(worker, found)
    wait_for(partial(_resolves, worker), PATIENCE_S, "an answer to a question for a name")
    before = _dropped(worker)
    _knock(fleet, worker)
    assert _dropped(worker) == before
    wait_for(partial(_reaches_other, fleet, fleet.node("worker-2")), PATIENCE_S, "the other direction")


def test_a_policy_of_iptables_is_named(fleet: Fleet, worker: Node) -> None:
    """L54: in its own words. What our chain and Podman's accept is not asked for, since theirs is the same table."""
    worker.run("iptables", "-P", "INPUT", "DROP")
    try:
        (found,) = named(worker)
        assert found["drops"] == ["tunnels from outside (51820/udp)"]
        assert found["add"] == ["iptables -I INPUT -p udp --dport 51820 -j ACCEPT"]
        cure(worker, found)
    finally:
        worker.run("iptables", "-P", "INPUT", "ACCEPT")
    worker.run("iptables", "-D", "INPUT", "-p", "udp", "--dport", "51820", "-j", "ACCEPT")


def test_a_firewall_of_ours_is_not_named(worker: Node) -> None:
    """Nothing is in the way of a server without a firewall, and then doctor says which ports must be open."""
    assert doctor_findings(worker) == []
    found = {one["check"]: one for one in json.loads(worker.agent("doctor", "--output", "json"))["checks"]}
    assert found["open ports"]["found"].startswith("51820/udp must be open from outside")


def _dropped(node: Node) -> int:
    """How many packets the last rule of the loaded firewall has dropped."""
    listed = node.run("nft", "list", "chain", "inet", "filter", "input")
    return int(listed.partition("counter packets ")[2].split()[0])


def _knock(fleet: Fleet, node: Node) -> None:
    """A packet that belongs to no connection, for the tunnel's port."""
    fleet.node("worker-2").run("bash", "-c", f"echo >/dev/udp/{node.server.address}/51820")


def _resolves(node: Node) -> bool:
    """Whether a container gets an answer to a question for a name."""
    container = node.run("podman", "ps", "-q").split()[0]
    try:
        return "10.200." in node.run("podman", "exec", container, "timeout", "3", "nslookup", "two.internal")
    except LabError:
        return False


def load(node: Node, text: str) -> None:
    """Give a server these rules."""
    node.server.run(("nft", "-f", "-"), text=text)


def named(node: Node) -> list[dict[str, Any]]:
    """What the agent says is in the way, as soon as it does."""
    wait_for(lambda: node_status(node)["blocked"], PATIENCE_S, f"it to be named; {node.last_words()}")
    found: list[dict[str, Any]] = node_status(node)["blocked"]
    return found


def cure(node: Node, found: dict[str, Any]) -> None:
    """Paste what was proposed into a shell; nothing is in the way any more."""
    for command in found["add"]:
        node.run("sh", "-c", command)
    wait_for(lambda: node_status(node)["blocked"] == [], PATIENCE_S, "nothing to be in the way any more")


def node_status(node: Node) -> dict[str, Any]:
    """What `agent status` says of the firewall."""
    document = json.loads(_inspect(node, "status", "--output", "json"))
    found: dict[str, Any] = document["firewall"]
    return found


def doctor_findings(node: Node) -> list[dict[str, Any]]:
    """Those of `agent doctor` that are about firewalls and not well."""
    found = json.loads(node.agent("doctor", "--output", "json"))["checks"]
    return [one for one in found if one["check"].startswith("firewall") and one["level"] != "ok"]


_WHOLE = {"masquerade", "let out", "to the containers", "from the containers", "names"}


def _rules(node: Node) -> set[str]:
    """Which of the rules that a server needs are there, by a word for each."""
    saved = node.run("iptables-save")
    network = f"10.200.{node.subnet_id}.0/24"
    wanted = {
        "masquerade": f"-A POSTROUTING -s {network} -j NETAVARK-",
        "let out": f"-A NETAVARK_FORWARD -s {network} -j ACCEPT",
        "to the containers": f"-A TECHULUS-FORWARD -s 10.200.0.0/16 -d {network} -i wg0 -j ACCEPT",
        "from the containers": f"-A TECHULUS-FORWARD -s {network} -d 10.200.0.0/16 -o wg0 -j ACCEPT",
        "names": "-A INPUT -j TECHULUS-INPUT",
    }
    return {word for word, rule in wanted.items() if rule in saved}


def _reaches_other(fleet: Fleet, node: Node) -> bool:
    """Whether this server's container is answered by the other's, by its address."""
    other = "two" if node.name == "worker-1" else "one"
    rows = [row for row in fleet.plane.lab("deployments") if row["service"] == other]
    return _fetched(node, f"http://{rows[0]['ipAddress']}/") == "v1"


def _asks_outside(fleet: Fleet, node: Node) -> None:
    """A container reaches what is beyond the server, which knows the way back to the server only."""
    wait_for(
        lambda: "{}" in _fetched(node, f"http://{fleet.registry.address}/v2/"), PATIENCE_S, "an answer from outside"
    )


def _fetched(node: Node, url: str) -> str:
    container = node.run("podman", "ps", "-q").split()[0]
    try:
        return node.run("podman", "exec", container, "timeout", "2", "wget", "-qO-", url).strip()
    except LabError as error:
        return str(error)


def _inspect(node: Node, *words: str) -> str:
    return node.run(str(AGENT), *words, "--data-dir", str(node.data_dir))
