"""`core.render`: the dry run's answer, exactly as PLAN_FORMAT says."""

import json
from typing import Any

import pytest

from core import plan, render
from core.state import NodeType, hashes
from tests.builders import (
    CONTAINER,
    DEPLOYMENT,
    NAME,
    NGINX,
    Document,
    a_container_entry,
    actual_of,
    an_actual_document,
    an_actual_entry,
    an_expected_document,
    expected_of,
    nothing_expected,
)

NEW = "docker.io/library/nginx:1.28"


def answer(expected: Document, actual: Document, node_type: NodeType, *, whole: bool = True) -> dict[str, Any]:
    """The answer of the dry run, read back from its JSON."""
    wanted, there = expected_of(expected), actual_of(actual)
    following = plan.next_action(wanted, there, node_type)
    actions = plan.plan(wanted, there, node_type) if whole else None
    found: dict[str, Any] = json.loads(
        json.dumps(render.answer(node_type, wanted, following, actions, hashes(wanted, there)))
    )
    return found


def test_the_answer_of_a_converged_server() -> None:
    """`next` is null, the plan empty, both hashes the same."""
    found = answer(an_expected_document(), an_actual_document(), NodeType.PROXY)
    assert list(found) == ["nodeType", "converged", "next", "plan", "rejected", "hashes"]
    assert [found[key] for key in list(found)[:5]] == ["proxy", True, None, [], []]
    for name in ("dns", "caddy", "wireguard"):
        assert found["hashes"][name]["expected"] == found["hashes"][name]["actual"]
        assert len(bytes.fromhex(found["hashes"][name]["expected"])) == 32


def test_the_plan_is_there_only_when_it_was_asked_for() -> None:
    """`plan` with `--all`; its first entry is `next`."""
    document = an_expected_document([a_container_entry(image=NEW)])
    assert "plan" not in answer(document, an_actual_document(), NodeType.WORKER, whole=False)
    found = answer(document, an_actual_document(), NodeType.WORKER)
    assert (
        found["next"]
        == found["plan"][0]
        == {
            "kind": "redeploy",
            "deploymentId": DEPLOYMENT,
            "containerId": CONTAINER,
            "name": NAME,
            "image": NEW,
            "reason": f"image {NGINX}, expected {NEW}",
        }
    )
    assert (found["nodeType"], found["converged"]) == ("worker", False)


def test_the_name_is_the_existing_containers_or_the_expected_one() -> None:
    """The existing one's for `stop_orphan` and `start`, the expected one for `deploy` and `redeploy`."""
    there = an_actual_document([an_actual_entry(name="old-name", state="exited")])
    assert answer(an_expected_document(), there, NodeType.WORKER)["next"]["name"] == "old-name"
    assert answer(nothing_expected(), there, NodeType.WORKER)["next"]["name"] == "old-name"
    dead = an_actual_document([an_actual_entry(name="old-name", state="dead")])
    assert answer(an_expected_document(), dead, NodeType.WORKER)["next"]["name"] == NAME


def test_rejected_entries_are_listed() -> None:
    """With path, key and reason, and nothing is done about them."""
    found = answer(an_expected_document([a_container_entry(image="")]), an_actual_document(), NodeType.WORKER)
    assert found["rejected"] == [
        {"path": "containers[0].image", "key": DEPLOYMENT, "reason": "'' is not an image reference"}
    ]
    assert found["converged"] is True


def test_the_hash_of_what_could_not_be_read_is_null() -> None:
    """And its update is planned."""
    found = answer(an_expected_document(), {**an_actual_document(), "dns": None}, NodeType.WORKER)
    assert found["hashes"]["dns"]["actual"] is None
    assert found["next"]["kind"] == "update_dns"


@pytest.mark.parametrize(
    ("expected", "actual", "row"),
    [
        (an_expected_document(), an_actual_document([]), ("deploy", NAME, "no container for this deployment")),
        (
            an_expected_document(),
            an_actual_document(records=[{"name": "x.internal", "ips": ["1.1.1.1"]}]),
            ("update_dns", "+web-api.internal -x.internal", "1 to add, 1 to remove, 0 to change"),
        ),
        (
            an_expected_document(),
            an_actual_document(records=[{"name": "web-api.internal", "ips": ["1.1.1.1"]}]),
            ("update_dns", "~web-api.internal", "0 to add, 0 to remove, 1 to change"),
        ),
    ],
)
def test_a_row_for_a_person(expected: Document, actual: Document, row: tuple[str, str, str]) -> None:
    """Kind, subject, reason."""
    found = plan.next_action(expected_of(expected), actual_of(actual), NodeType.WORKER)
    assert found is not None
    assert render.line(found) == row


def test_a_reason_is_one_line() -> None:
    """Also when a component's own words are not."""
    actual = an_actual_document([an_actual_entry(image="x\ny", state="running")])
    found = plan.next_action(expected_of(an_expected_document()), actual_of(actual), NodeType.WORKER)
    assert found is not None
    assert "\n" not in render.reason_line(found) and "x\\ny" in render.reason_line(found)
