"""The endpoints for people and tests: for this machine only, and what they list."""

import pytest
from starlette.routing import Route

from shell.local_plane.app import create_app
from shell.local_plane.lab_http import refusal
from tests.shell.local_plane.asking import Asking
from tests.shell.local_plane.callers import Cluster

HERE = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "localhost"])
def test_this_machine_is_answered(client: str, host: str) -> None:
    """By any loopback address."""
    assert refusal(client, {"host": host}) is None


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("192.0.2.1", HERE),
        ("::ffff:192.0.2.1", HERE),
        (None, HERE),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "192.0.2.1"}),
        ("127.0.0.1", {**HERE, "origin": "https://evil.test"}),
        ("127.0.0.1", {"host": "evil.test:8000"}),
        ("127.0.0.1", {}),
    ],
)
def test_nobody_else_is(client: str | None, headers: dict[str, str]) -> None:
    """Another machine, a reverse proxy on this one, a page in a browser, a name that somebody else controls."""
    found = refusal(client, headers)
    assert found is not None
    assert found.status == 403


def test_every_lab_endpoint_asks_who_calls(cluster: Cluster) -> None:
    """The protocol's endpoints answer everybody, these do not."""
    app = create_app(cluster.folder)
    far = Asking(app, client="192.0.2.1")
    lab = [route for route in app.routes if isinstance(route, Route) and route.path.startswith("/lab")]
    assert len(lab) > 10
    for route in lab:
        (method,) = (route.methods or set()) - {"HEAD"}
        assert far.request(method, route.path).status_code == 403, route
    assert far.get("/api/v1/agent/expected-state").status_code == 400


def test_reports_are_kept_and_listed(cluster: Cluster) -> None:
    """Newest last, by server and kind; no token in them."""
    a, b = cluster.server("a"), cluster.server("b")
    a.report(resources={"cpuCores": 4})
    b.report()
    a.post("work-queue", {"id": "x", "status": "failed", "error": "why"})
    reports = cluster.asking.get("/lab/reports").json()["reports"]
    assert [(one["kind"], one["server"]) for one in reports if one["kind"] != "register"] == [
        ("status", "a"),
        ("status", "b"),
        ("work", "a"),
    ]
    assert all(one["body"]["token"] == "…" for one in reports if one["kind"] == "register")
    mine = cluster.asking.get("/lab/reports?server=a&kind=status").json()["reports"]
    assert [one["body"]["resources"] for one in mine] == [{"cpuCores": 4}]
    assert len(cluster.asking.get("/lab/reports?limit=1").json()["reports"]) == 1
    assert cluster.asking.get("/lab/reports?limit=0").json()["reports"] == []
    assert cluster.asking.get("/lab/reports?limit=x").status_code == 400
    assert cluster.asking.get(f"/lab/reports?limit={'9' * 5000}").status_code == 400
    assert cluster.rows("servers")[0]["cpuCores"] == 4


def test_work_can_be_queued(cluster: Cluster) -> None:
    """Of any type; a payload that is text stays as it is."""
    a = cluster.server("a")
    cluster.click("work", {"server": "a", "type": "force_cleanup", "payload": {"serviceId": "s", "containerIds": []}})
    cluster.click("work", {"server": a.id, "type": "odd", "payload": "not json"})
    assert [item["payload"] for item in a.get("work-queue")["items"]] == [
        '{"serviceId":"s","containerIds":[]}',
        "not json",
    ]
    assert cluster.asking.post("/lab/work", {"server": "nobody", "type": "stop"}).status_code == 404
    assert cluster.asking.post("/lab/work", {"server": "a"}).status_code == 400
    assert cluster.asking.request("POST", "/lab/work", content=b"[]").status_code == 400


def test_a_service_is_redeployed_by_a_click(cluster: Cluster) -> None:
    """As a new revision would."""
    a = cluster.server("a")
    cluster.want({"web": {"image": "x"}})
    (before,) = a.expected()
    cluster.click("services/web/redeploy")
    (after,) = a.expected()
    assert before["deploymentId"] != after["deploymentId"]
    assert before["ipAddress"] == after["ipAddress"]
    assert cluster.asking.post("/lab/services/nope/redeploy").status_code == 404
