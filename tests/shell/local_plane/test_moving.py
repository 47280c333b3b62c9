"""A replica that is moved to another server is replaced without a gap."""

from typing import Any

from tests.shell.local_plane.callers import Caller, Cluster

WEB: dict[str, Any] = {"image": "nginx:1", "servers": ["a"], "ports": [{"container": 80, "domain": "app.test"}]}
OLD, NEW = "10.200.1.2", "10.200.2.2"


def moved(cluster: Cluster) -> tuple[Caller, Caller, Caller]:
    """A replica that runs on a and shall run on b; a proxy beside them."""
    a, b, proxy = cluster.server("a"), cluster.server("b"), cluster.server("p", isProxy=True)
    cluster.want({"web": WEB})
    a.report()
    cluster.want({"web": {**WEB, "servers": ["b"]}})
    return a, b, proxy


def routed(caller: Caller) -> list[str]:
    """The addresses that a proxy sends requests to, after it has worked off what it fetched before."""
    caller.get("expected-state")
    state = caller.get("expected-state")
    assert [record["ips"] for record in state["dns"]["records"]] == [
        [upstream.removesuffix(":80") for upstream in route["upstreams"]] for route in state["caddy"]["routes"]
    ]
    return [address for record in state["dns"]["records"] for address in record["ips"]]


def test_the_new_one_is_healthy_before_the_old_one_goes(cluster: Cluster) -> None:
    """Both are listed, then both are served, then only the new one while the old one still runs, and then the old one goes."""
    a, b, proxy = moved(cluster)
    assert len(a.expected()) == len(b.expected()) == 1
    assert routed(proxy) == [OLD]
    b.report()
    assert routed(proxy) == [OLD, NEW]
    for caller in (a, b):
        routed_fetch(caller)
    assert routed(proxy) == [NEW]
    assert len(a.expected()) == 1, "it still answers what is under way"
    for caller in (a, b):
        routed_fetch(caller)
    assert a.expected() == []
    assert len(b.expected()) == 1
    assert cluster.statuses() == [("a", "stopping"), ("b", "running")]


def routed_fetch(caller: Caller) -> None:
    """A server fetches and works off."""
    for _ in range(2):
        caller.get("expected-state")


def test_the_old_one_stays_while_a_server_has_not_seen_the_new_one(cluster: Cluster) -> None:
    """However often the others ask."""
    a, b, proxy = moved(cluster)
    b.report()
    for _ in range(10):
        routed_fetch(a)
        routed_fetch(b)
    assert len(a.expected()) == 1
    assert routed(proxy) == [OLD, NEW]


def test_a_server_that_is_silent_is_not_waited_for(cluster: Cluster) -> None:
    """Agents report every 30 s; after 60 s without a word nothing is held up for it."""
    a, b, _ = moved(cluster)
    b.report()
    for _ in range(3):
        cluster.now_ms += 40_000
        for caller in (a, b):
            routed_fetch(caller)
            caller.report()
    for caller in (a, b):
        routed_fetch(caller)
    assert a.expected() == []


def test_a_move_survives_a_restart_of_the_control_plane(cluster: Cluster) -> None:
    """How far it has come is on disk; who has seen what is asked again."""
    a, b, proxy = moved(cluster)
    b.report()
    cluster.restart()
    assert len(a.expected()) == 1
    for _ in range(3):
        for caller in (a, b, proxy):
            routed_fetch(caller)
    assert a.expected() == []


def test_a_move_that_fails_leaves_the_old_one_alone(cluster: Cluster) -> None:
    """The successor is rolled back; what ran goes on."""
    a, b = cluster.server("a"), cluster.server("b")
    entry = {**WEB, "health_check": {"cmd": "check"}}
    cluster.want({"web": entry})
    a.report("starting")
    a.report("healthy")
    cluster.want({"web": {**entry, "servers": ["b"]}})
    b.report("starting")
    b.report("unhealthy")
    for _ in range(4):
        routed_fetch(a)
        routed_fetch(b)
    assert cluster.statuses() == [("a", "running"), ("b", "rolled_back")]
    assert len(a.expected()) == 1


def test_a_successor_that_is_lost_halfway_brings_the_old_one_back(cluster: Cluster) -> None:
    """Draining is taken back while the successor does not serve."""
    a, b, proxy = moved(cluster)
    b.report()
    for caller in (a, b, proxy):
        routed_fetch(caller)
    assert [row["moving"] for row in cluster.rows("deployments")] == ["draining", None]
    b.post("status", {"containers": []})
    assert [row["moving"] for row in cluster.rows("deployments")] == ["waiting", None]
    assert routed(proxy) == [OLD, NEW], "a lost one is still routed to, as in the original, but not alone"


def test_the_old_one_stays_when_there_is_nowhere_to_go(cluster: Cluster) -> None:
    """A server that is not registered yet is no reason to stop what runs."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    a.report()
    cluster.want({"web": {**WEB, "servers": ["later"]}})
    a.report()
    assert cluster.statuses() == [("a", "running")]


def test_a_move_that_is_taken_back_stops_the_successor(cluster: Cluster) -> None:
    """Editing `servers` back before the successor serves: it goes, the old one stays."""
    a, b, _ = moved(cluster)
    (before,) = a.expected()
    assert len(b.expected()) == 1
    cluster.want({"web": WEB})
    assert a.expected() == [before]
    assert b.expected() == []
    assert cluster.statuses() == [("a", "running")]
