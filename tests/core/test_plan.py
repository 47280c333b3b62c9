"""`core.plan`: the table of decisions. One healthy pair; each case spoils one thing and states the whole plan."""

from typing import Any

import pytest

from core import plan, render
from core.action import StopOrphan
from core.dns import Record
from core.state import ActualState, ExpectedState, NodeType
from tests import builders
from tests.builders import (
    CONTAINER,
    DEPLOYMENT,
    NAME,
    NGINX,
    Document,
    a_container_entry,
    a_key,
    a_peer_entry,
    a_record_entry,
    a_route_entry,
    actual_of,
    an_actual_document,
    an_actual_entry,
    an_expected_document,
    expected_of,
)

NEW = "docker.io/library/nginx:1.28"
OTHER = "0f3b" * 16


def planned(expected: Document, actual: Document, node_type: NodeType = NodeType.PROXY) -> list[dict[str, render.Json]]:
    """The whole plan as JSON."""
    return [render.action_json(one) for one in plan.plan(expected_of(expected), actual_of(actual), node_type)]


def stop(**changes: Any) -> dict[str, Any]:
    """A `stop_orphan` of the healthy container."""
    facts = {"kind": "stop_orphan", "deploymentId": DEPLOYMENT, "containerId": CONTAINER, "name": NAME}
    return {**facts, "reason": "its deployment is not expected here", **changes}


def start(state: str) -> dict[str, Any]:
    """A `start` of the healthy container."""
    facts = {"kind": "start", "deploymentId": DEPLOYMENT, "containerId": CONTAINER, "name": NAME}
    return {**facts, "reason": f"state {state}, expected running"}


def deploy(**changes: Any) -> dict[str, Any]:
    """A `deploy` of the healthy container."""
    facts = {"kind": "deploy", "deploymentId": DEPLOYMENT, "containerId": None, "name": NAME, "image": NGINX}
    return {**facts, "reason": "no container for this deployment", **changes}


def redeploy(reason: str, **changes: Any) -> dict[str, Any]:
    """A `redeploy` of the healthy container."""
    facts = {"kind": "redeploy", "deploymentId": DEPLOYMENT, "containerId": CONTAINER, "name": NAME, "image": NGINX}
    return {**facts, "reason": reason, **changes}


def spare(kept: str = CONTAINER, **changes: Any) -> dict[str, Any]:
    """A `stop_orphan` of a second container of the healthy deployment."""
    return stop(containerId=OTHER, reason=f"container {kept[:12]} of the same deployment is kept", **changes)


CONTAINER_TABLE: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]] = [
    ("nothing differs", [a_container_entry()], [an_actual_entry()], []),
    ("nothing wanted, nothing there", [], [], []),
    ("missing", [a_container_entry()], [], [deploy()]),
    ("not expected", [], [an_actual_entry()], [stop()]),
    (
        "without a deployment label",
        [],
        [an_actual_entry(labels=builders.labels(None))],
        [stop(deploymentId=None, reason="has no deployment id")],
    ),
    (
        "with an empty deployment label",
        [],
        [an_actual_entry(labels=builders.labels(""))],
        [stop(deploymentId=None, reason="has no deployment id")],
    ),
    ("not ours", [], [an_actual_entry(labels={"techulus": "x", "app": "y"})], []),
    ("not ours, with no label", [a_container_entry()], [an_actual_entry(labels={})], [deploy()]),
    (
        "any label of ours makes it ours",
        [],
        [an_actual_entry(labels={"techulus.": ""})],
        [stop(deploymentId=None, reason="has no deployment id")],
    ),
    ("created", [a_container_entry()], [an_actual_entry(state="created")], [start("created")]),
    ("exited", [a_container_entry()], [an_actual_entry(state="exited")], [start("exited")]),
    ("states are compared without case", [a_container_entry()], [an_actual_entry(state="Exited")], [start("exited")]),
    ("a short name is the same image", [a_container_entry(image="nginx:1.27")], [an_actual_entry()], []),
    (
        "another tag",
        [a_container_entry(image=NEW)],
        [an_actual_entry()],
        [redeploy(f"image {NGINX}, expected {NEW}", image=NEW)],
    ),
    (
        "another tag and exited: redeployed, not started",
        [a_container_entry(image=NEW)],
        [an_actual_entry(state="exited")],
        [redeploy(f"image {NGINX}, expected {NEW}", image=NEW)],
    ),
    (
        "an image that has lost its name",
        [a_container_entry()],
        [an_actual_entry(image="<none>:<none>")],
        [redeploy(f"image <none>:<none>, expected {NGINX}")],
    ),
    ("only the image of an entry makes a redeploy", [a_container_entry(env={}, ports=[])], [an_actual_entry()], []),
    (
        "the older spare goes",
        [a_container_entry()],
        [an_actual_entry(), an_actual_entry(id=OTHER, created=1)],
        [spare()],
    ),
    (
        "running is kept before newer",
        [a_container_entry()],
        [an_actual_entry(created=1), an_actual_entry(id=OTHER, state="exited")],
        [spare()],
    ),
    (
        "running with another image is kept before the right image that has stopped",
        [a_container_entry()],
        [an_actual_entry(image=NEW), an_actual_entry(id=OTHER, state="exited")],
        [spare(), redeploy(f"image {NEW}, expected {NGINX}")],
    ),
    (
        "of two that run the right image is kept",
        [a_container_entry()],
        [an_actual_entry(created=1), an_actual_entry(id=OTHER, image=NEW)],
        [spare()],
    ),
    (
        "of two that are the same the smallest id is kept",
        [a_container_entry()],
        [an_actual_entry(id=OTHER), an_actual_entry()],
        [spare()],
    ),
    (
        "two containers of a deployment that is not expected both go, by container id",
        [],
        [an_actual_entry(id=OTHER), an_actual_entry()],
        [stop(), stop(containerId=OTHER)],
    ),
]


@pytest.mark.parametrize(
    ("wanted", "there", "whole"), [row[1:] for row in CONTAINER_TABLE], ids=[r[0] for r in CONTAINER_TABLE]
)
def test_what_is_done_about_a_container(
    wanted: list[dict[str, Any]], there: list[dict[str, Any]], whole: list[dict[str, Any]]
) -> None:
    """The table of PLAN_FORMAT, row by row."""
    assert planned(an_expected_document(wanted), an_actual_document(there)) == whole


@pytest.mark.parametrize(
    "state",
    ["paused", "dead", "stopped", "stopping", "removing", "configured", "initialized", "unknown", "", "new word"],
)
def test_any_other_state_is_redeployed(state: str) -> None:
    """Neither running nor startable means redeploy, even for a word that is not known."""
    there = an_actual_document([an_actual_entry(state=state)])
    assert planned(an_expected_document(), there) == [redeploy(f"state {state}, expected running")]


def update(kind: str, added: list[str], removed: list[str], changed: list[str]) -> dict[str, Any]:
    """An update with its keys and its reason."""
    reason = f"{len(added)} to add, {len(removed)} to remove, {len(changed)} to change"
    return {"kind": kind, "added": added, "removed": removed, "changed": changed, "reason": reason}


WEB, APP, KEY = "web-api.internal", "app.example.org", a_key()

COMPONENT_TABLE: list[tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = [
    ("record missing", {}, {"records": []}, [update("update_dns", [WEB], [], [])]),
    ("record too many", {"records": []}, {}, [update("update_dns", [], [WEB], [])]),
    ("record differs", {}, {"records": [a_record_entry(ips=["10.200.3.2"])]}, [update("update_dns", [], [], [WEB])]),
    ("name without case or dot", {"records": [a_record_entry(name="WEB-API.Internal.")]}, {}, []),
    ("addresses are a set", {}, {"records": [a_record_entry(ips=["10.200.5.9", "10.200.3.2", "10.200.5.9"])]}, []),
    (
        "a name listed twice is the union",
        {"records": [a_record_entry(ips=["10.200.3.2"]), a_record_entry(ips=["10.200.5.9"])]},
        {},
        [],
    ),
    ("a name without address is no record", {"records": [a_record_entry(ips=[])]}, {"records": []}, []),
    ("nor on the server", {"records": []}, {"records": [a_record_entry(ips=[])]}, []),
    ("route missing", {}, {"routes": []}, [update("update_caddy", [APP], [], [])]),
    ("route too many", {"routes": []}, {}, [update("update_caddy", [], [APP], [])]),
    (
        "upstream differs",
        {},
        {"routes": [a_route_entry(upstreams=["10.200.3.2:81"])]},
        [update("update_caddy", [], [], [APP])],
    ),
    (
        "domain differs",
        {},
        {"routes": [a_route_entry(domain="b.example.org")]},
        [update("update_caddy", [], [], [APP])],
    ),
    ("service differs", {}, {"routes": [a_route_entry(serviceId="other")]}, [update("update_caddy", [], [], [APP])]),
    ("domain without case", {"routes": [a_route_entry(domain="APP.Example.ORG")]}, {}, []),
    ("upstreams are a set", {}, {"routes": [a_route_entry(upstreams=["10.200.5.9:80", "10.200.3.2:80"] * 2)]}, []),
    ("no upstream is no route", {"routes": [a_route_entry(upstreams=[])]}, {"routes": []}, []),
    ("peer missing", {}, {"peers": []}, [update("update_wireguard", [KEY], [], [])]),
    ("peer too many", {"peers": []}, {}, [update("update_wireguard", [], [KEY], [])]),
    ("endpoint differs", {}, {"peers": [a_peer_entry(endpoint=None)]}, [update("update_wireguard", [], [], [KEY])]),
    (
        "networks differ",
        {},
        {"peers": [a_peer_entry(allowedIps="10.100.1.0/24")]},
        [update("update_wireguard", [], [], [KEY])],
    ),
    ("host bits do not count", {}, {"peers": [a_peer_entry(allowedIps="10.200.1.9/24, 10.100.1.1/24")]}, []),
    (
        "null and empty endpoint are the same",
        {"peers": [a_peer_entry(endpoint="")]},
        {"peers": [a_peer_entry(endpoint=None)]},
        [],
    ),
    (
        "keys are sorted",
        {"records": [a_record_entry(name="b.internal"), a_record_entry(name="a.internal")]},
        {"records": [a_record_entry(name="d.internal"), a_record_entry(name="c.internal")]},
        [update("update_dns", ["a.internal", "b.internal"], ["c.internal", "d.internal"], [])],
    ),
]


@pytest.mark.parametrize(
    ("wanted", "there", "whole"), [row[1:] for row in COMPONENT_TABLE], ids=[r[0] for r in COMPONENT_TABLE]
)
def test_what_is_done_about_a_component(
    wanted: dict[str, Any], there: dict[str, Any], whole: list[dict[str, Any]]
) -> None:
    """What equal means for records, routes and peers (L5, L6)."""
    assert planned(an_expected_document(**wanted), an_actual_document(**there)) == whole


@pytest.mark.parametrize("name", ["dns", "caddy", "wireguard"])
@pytest.mark.parametrize("node_type", list(NodeType))
@pytest.mark.parametrize("wanted", [an_expected_document(), builders.nothing_expected()], ids=["wanted", "nothing"])
def test_a_component_that_could_not_be_read_is_updated(name: str, node_type: NodeType, wanted: Document) -> None:
    """A null component is planned with empty keys, whatever is expected; Caddy's on a proxy only (L3)."""
    actual = {**an_actual_document(), name: None}
    if wanted["containers"] == []:
        actual = {**builders.nothing_there(), name: None}
    one = {
        "kind": f"update_{name}",
        "added": [],
        "removed": [],
        "changed": [],
        "reason": "what is served could not be read",
    }
    expected_plan = [] if name == "caddy" and node_type is NodeType.WORKER else [one]
    assert planned(wanted, actual, node_type) == expected_plan


def test_a_worker_leaves_caddy_alone() -> None:
    """Routes that differ are nothing to a worker."""
    assert planned(an_expected_document(), an_actual_document(routes=[]), NodeType.WORKER) == []


def test_the_steps_come_in_the_order_of_the_table() -> None:
    """Orphans, start, deploy, redeploy, DNS, Caddy, WireGuard; within a kind by deployment (null first), then container."""
    wanted = [a_container_entry(deploymentId=d, name=d) for d in ("d1", "d2", "d3", "d4", "d5")]
    there = [
        an_actual_entry(id="9", labels=builders.labels("d1"), image=NEW),
        an_actual_entry(id="8", labels=builders.labels("d2"), state="exited"),
        an_actual_entry(id="7", labels=builders.labels("z")),
        an_actual_entry(id="6", labels=builders.labels("a")),
        an_actual_entry(id="50", labels=builders.labels(None)),
        an_actual_entry(id="5", labels=builders.labels(None)),
        an_actual_entry(id="4", labels=builders.labels("d5"), state="created"),
    ]
    found = planned(an_expected_document(wanted), an_actual_document(there, [], [], []))
    assert [(one["kind"], one.get("deploymentId"), one.get("containerId")) for one in found] == [
        ("stop_orphan", None, "5"),
        ("stop_orphan", None, "50"),
        ("stop_orphan", "a", "6"),
        ("stop_orphan", "z", "7"),
        ("start", "d2", "8"),
        ("start", "d5", "4"),
        ("deploy", "d3", None),
        ("deploy", "d4", None),
        ("redeploy", "d1", "9"),
        ("update_dns", None, None),
        ("update_caddy", None, None),
        ("update_wireguard", None, None),
    ]


def test_an_orphan_names_the_successors_whose_images_must_be_here_first() -> None:
    """L18: what replaces it, in the same service and not there yet."""
    wanted = [
        a_container_entry(deploymentId="new", name="new"),
        a_container_entry(deploymentId="here", name="here"),
        a_container_entry(deploymentId="other", name="other", serviceId="elsewhere"),
    ]
    there = [an_actual_entry(), an_actual_entry(id="h", labels=builders.labels("here"))]
    found = plan.next_action(
        expected_of(an_expected_document(wanted)), actual_of(an_actual_document(there)), NodeType.WORKER
    )
    assert isinstance(found, StopOrphan)
    assert (found.container_id, [one.deployment_id for one in found.successors]) == (CONTAINER, ["new"])


def test_containers_that_share_an_id() -> None:
    """No engine lists such a thing, and a file that a person has written may: the whole plan is made, nothing is done twice."""
    two = [an_actual_entry(id="c", labels=builders.labels(name), state="exited") for name in ("a", "b")]
    wanted = [a_container_entry(deploymentId=name, name=name) for name in ("a", "b")]
    made = plan.plan(expected_of(an_expected_document(wanted)), actual_of(an_actual_document(two)), NodeType.WORKER)
    assert [type(one).__name__ for one in made] == ["Start", "Start"]
    assert plan.plan(expected_of(an_expected_document([])), actual_of(an_actual_document(two)), NodeType.WORKER)


def test_ids_of_any_length_and_any_printable_character() -> None:
    """L8: nothing slices an id."""
    for deployment in ("x", "é☃ '\"", "d" * 5000, "-", "."):
        found = planned(an_expected_document([a_container_entry(deploymentId=deployment)]), an_actual_document([]))
        assert found == [deploy(deploymentId=deployment)]


def test_drift_of_what_is_served_is_told_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN's rule 8: with equal hashes nothing is compared; where they differ it is worked out what does."""
    served = (Record("a.internal", ("10.200.1.2",)),)
    monkeypatch.setattr(plan, "difference", None)  # nobody asks for it
    assert plan.outstanding(ExpectedState(dns=served), ActualState(dns=served), NodeType.WORKER) == ()
    with pytest.raises(TypeError):
        plan.outstanding(ExpectedState(dns=served), ActualState(), NodeType.WORKER)
