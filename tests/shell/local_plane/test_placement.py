"""What an edited file of services does to the rows."""

from typing import Any

from tests.shell.local_plane.callers import Cluster

WEB: dict[str, Any] = {"image": "nginx:1", "ports": [{"container": 80, "domain": "app.test"}]}


def test_replicas_are_spread_over_all_servers_in_name_order(cluster: Cluster) -> None:
    """Without `servers`, the least loaded server takes the next replica."""
    for name in ("b", "a", "c"):
        cluster.server(name)
    cluster.want({"web": {**WEB, "replicas": 4}})
    assert cluster.statuses() == [("a", "pending"), ("b", "pending"), ("c", "pending"), ("a", "pending")]


def test_what_runs_stays_where_it_is_when_a_server_joins(cluster: Cluster) -> None:
    """Only new replicas go to a new server."""
    cluster.server("b")
    cluster.want({"web": {**WEB, "replicas": 2}})
    assert cluster.statuses() == [("b", "pending")] * 2
    cluster.server("a")
    assert cluster.statuses() == [("b", "pending")] * 2
    cluster.want({"web": {**WEB, "replicas": 3}})
    assert cluster.statuses()[-1] == ("a", "pending")


def test_a_service_waits_for_its_server(cluster: Cluster) -> None:
    """A server that is not registered takes nothing, and that is said."""
    cluster.server("a")
    cluster.want({"web": {**WEB, "servers": ["later"]}})
    assert cluster.statuses() == []
    assert cluster.problems() == ["service web: server later is not registered"]
    cluster.server("later")
    assert cluster.statuses() == [("later", "pending")]
    assert cluster.problems() == []


def test_an_offline_server_takes_no_new_deployments(cluster: Cluster) -> None:
    """Silent for more than 300 s: offline once somebody looks; online again with the next report."""
    a = cluster.server("a")
    cluster.now_ms += 301_000
    assert [row["status"] for row in cluster.rows("servers")] == ["offline"]
    cluster.want({"web": WEB})
    assert cluster.statuses() == []
    assert cluster.problems() == ["service web: no server is online"]
    a.report()
    assert cluster.statuses() == [("a", "pending")]


def test_an_image_is_read_live_under_the_same_deployment(cluster: Cluster) -> None:
    """Image, env, health check and volumes change without a new row."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    before = a.expected()[0]
    cluster.want({"web": {**WEB, "image": "nginx:2", "env": {"A": 8080}, "health_check": {"cmd": "true"}}})
    after = a.expected()[0]
    assert after["deploymentId"] == before["deploymentId"]
    assert after["image"] == "docker.io/library/nginx:2"
    assert list(after["env"]) == ["A"]
    assert after["healthCheck"]["interval"] == 10


def test_env_keeps_its_encrypted_form_until_it_changes(cluster: Cluster) -> None:
    """L5: a fresh nonce on every answer would look like a change."""
    a = cluster.server("a")
    cluster.want({"web": {**WEB, "env": {"A": "1", "B": "2"}}})
    first = a.expected()[0]["env"]
    cluster.restart()
    cluster.want({"web": {**WEB, "replicas": 1, "env": {"A": "1", "B": "3"}}})
    second = a.expected()[0]["env"]
    assert first["A"] == second["A"]
    assert first["B"] != second["B"]


def test_a_new_revision_replaces_all_rows_at_once(cluster: Cluster) -> None:
    """New ids, and the same addresses and host ports: lowest free after the old rows have gone (§4.6)."""
    a = cluster.server("a")
    cluster.want({"web": {**WEB, "replicas": 2}})
    a.report()
    before = a.expected()
    cluster.want({"web": {**WEB, "replicas": 2, "revision": 2}})
    after = a.expected()
    assert [one["ipAddress"] for one in after] == [one["ipAddress"] for one in before]
    assert [one["ports"] for one in after] == [one["ports"] for one in before]
    assert not {one["deploymentId"] for one in after} & {one["deploymentId"] for one in before}
    assert cluster.statuses() == [("a", "pending")] * 2


def test_fewer_replicas_stop_the_youngest(cluster: Cluster) -> None:
    """As a user's stop: out of the expected state, a `stop` item, and stopped once it is not reported any more."""
    a = cluster.server("a")
    cluster.want({"web": {**WEB, "replicas": 3}})
    a.report()
    cluster.want({"web": {**WEB, "replicas": 2}})
    assert [status for _, status in cluster.statuses()] == ["running", "running", "stopping"]
    assert len(a.expected()) == 2
    assert [item["type"] for item in a.get("work-queue")["items"]][-1] == "stop"
    a.report()
    assert [status for _, status in cluster.statuses()] == ["running", "running", "stopped"]
    cluster.want({"web": {**WEB, "replicas": 3}})
    assert a.expected()[-1]["ipAddress"] == "10.200.1.4", "the address of a replica that has gone is free again"


def test_a_removed_service_is_stopped_and_forgotten(cluster: Cluster) -> None:
    """A row with a container stops first; one without goes at once."""
    a = cluster.server("a")
    cluster.want({"web": WEB, "new": WEB | {"ports": []}})
    a.report()
    cluster.want({"web": WEB, "new": {"image": "x", "replicas": 2}})
    cluster.want({})
    assert cluster.statuses("new") == [("a", "stopping")]
    assert a.expected() == []
    a.report()
    assert [row["status"] for row in cluster.rows("deployments")] == ["stopped", "stopped"]
    assert cluster.asking.get("/api/v1/caddy/check?domain=app.test").status_code == 404


def test_a_stateful_service_stays_on_its_server_and_its_volumes_are_cleaned_up_last(cluster: Cluster) -> None:
    """L35: `cleanup_volumes` is queued when no container is left, since agents refuse it before."""
    a = cluster.server("a")
    cluster.server("b")
    entry = {"image": "db", "servers": ["a"], "volumes": [{"name": "data", "path": "/data"}]}
    cluster.want({"db": entry})
    a.report()
    cluster.want({"db": {**entry, "servers": ["b"]}})
    assert cluster.statuses("db") == [("a", "running")]
    assert cluster.problems() == ["service db: its volumes pin it to another server than `servers` says"]
    cluster.want({})
    assert "cleanup_volumes" not in [item["type"] for item in a.get("work-queue")["items"]]
    a.report()
    assert [item["type"] for item in a.get("work-queue")["items"]][-1] == "cleanup_volumes"


def test_a_failed_rollout_waits_for_an_edit(cluster: Cluster) -> None:
    """Rolled back rows are not tried again until the entry changes."""
    a = cluster.server("a")
    entry = {**WEB, "health_check": {"cmd": "false"}}
    cluster.want({"web": entry})
    a.report("starting")
    a.report("unhealthy")
    assert cluster.statuses() == [("a", "rolled_back")]
    a.report()
    assert a.expected() == []
    cluster.want({"web": {**entry, "image": "nginx:2"}})
    assert [one["image"] for one in a.expected()] == ["docker.io/library/nginx:2"]


def test_an_aborted_rollout_takes_all_pending_work_with_it_and_waits_for_an_edit(cluster: Cluster) -> None:
    """Every server's pending items vanish, as in the original."""
    a, b = cluster.server("a"), cluster.server("b")
    cluster.want({"web": WEB})
    (rollout,) = cluster.rows("rollouts")
    assert a.get("work-queue")["items"]
    cluster.click(f"rollouts/{rollout['id']}/abort")
    assert a.expected() == a.get("work-queue")["items"] == b.get("work-queue")["items"] == []
    assert cluster.problems() == ["service web: its rollout was aborted; change its entry to deploy it again"]
    assert cluster.asking.post(f"/lab/rollouts/{rollout['id']}/abort").status_code == 409
    cluster.want({"web": {**WEB, "revision": "again"}})
    assert cluster.statuses() == [("a", "pending")]


def test_a_stopped_deployment_is_not_replaced(cluster: Cluster) -> None:
    """It stays a replica, as in the dashboard."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    a.report()
    (row,) = cluster.rows("deployments")
    cluster.click(f"deployments/{row['id']}/stop")
    a.report()
    assert cluster.statuses() == [("a", "stopped")]
    assert cluster.asking.post(f"/lab/deployments/{row['id']}/restart").status_code == 409
    assert cluster.asking.post("/lab/deployments/nope/stop").status_code == 404


def test_a_full_server_takes_no_more(cluster: Cluster) -> None:
    """253 addresses are all that a subnet has."""
    cluster.server("a")
    cluster.want({"one": {"image": "x", "replicas": 200}, "two": {"image": "x", "replicas": 60}})
    assert len(cluster.rows("deployments")) == 253
    assert cluster.problems() == ["service one: no free address on a", "service two: no free address on a"]


def test_a_deleted_server_takes_its_rows_along(cluster: Cluster) -> None:
    """Its replicas go elsewhere, its agent is unknown."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    assert cluster.statuses() == [("a", "pending")]
    cluster.server("b")
    cluster.click("servers/a/delete")
    assert cluster.statuses() == [("b", "pending")]
    assert cluster.asking.request("GET", "/api/v1/agent/expected-state", a.headers()).status_code == 404
