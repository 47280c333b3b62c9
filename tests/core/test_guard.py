"""`core.guard`: each case takes an action that the planner chose and spoils one thing; the guard must see it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from core import guard, plan
from core.action import (
    Action,
    Deploy,
    NoContainer,
    Redeploy,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
)
from core.action import kind as kind_of
from core.containers import ContainerId, DeploymentId
from core.state import UNREAD, ActualState, ExpectedState, NodeType
from tests import builders
from tests.builders import (
    CONTAINER,
    a_container_entry,
    a_key,
    a_peer_entry,
    a_record_entry,
    a_route_entry,
    actual_of,
    an_actual_document,
    an_actual_entry,
    an_expected_container,
    an_expected_document,
    an_image,
    expected_of,
)

BAD_RECORD = a_record_entry(name="held.internal", ips=["x"])
BAD_ROUTE = a_route_entry(id="held", domain="")
BAD_PEER = a_peer_entry(publicKey=a_key(9), endpoint="x")
HELD_PEER = a_peer_entry(publicKey=a_key(9))

EXPECTED = expected_of(
    an_expected_document(
        [
            a_container_entry(),
            a_container_entry(deploymentId="stopped", name="stopped"),
            a_container_entry(deploymentId="missing", name="missing"),
            a_container_entry(deploymentId="held", name="held", image=""),
            a_container_entry(deploymentId="twice", name="twice"),
        ],
        [a_record_entry(), BAD_RECORD],
        [a_route_entry(), BAD_ROUTE],
        [a_peer_entry(), BAD_PEER],
    )
)
ACTUAL = actual_of(
    an_actual_document(
        [
            an_actual_entry(image="nginx:1"),
            an_actual_entry(id="stopped", labels=builders.labels("stopped"), state="exited"),
            an_actual_entry(id="orphan", labels=builders.labels("gone")),
            an_actual_entry(id="held", labels=builders.labels("held")),
            an_actual_entry(id="kept", labels=builders.labels("twice")),
            an_actual_entry(id="spare", labels=builders.labels("twice"), state="exited"),
        ],
        [a_record_entry(name="held.internal"), a_record_entry(name="old.internal")],
        [a_route_entry(id="held"), a_route_entry(id="old")],
        [HELD_PEER, a_peer_entry(publicKey=a_key(8))],
    )
)
PLAN = {kind_of(one): one for one in reversed(plan.plan(EXPECTED, ACTUAL, NodeType.PROXY))}


def chosen(kind: str) -> Any:
    """The first action of a kind that the planner chose."""
    return PLAN[kind]


def breach(action: Action, expected: ExpectedState = EXPECTED, actual: ActualState = ACTUAL) -> str | None:
    """What the guard says on a proxy."""
    return guard.breach(action, expected, actual, NodeType.PROXY)


def test_what_the_planner_chose_is_taken() -> None:
    """All seven kinds."""
    assert len(PLAN) == 7
    assert [breach(one) for one in PLAN.values()] == [None] * 7


def test_what_is_held_may_be_served_again_by_a_component_that_is_brought_up() -> None:
    """L7, L16: the planner takes it from what was served last, and so must the guard: else a held entry keeps the component down."""
    served = actual_of(
        an_actual_document([], [a_record_entry(name="held.internal")], [a_route_entry(id="held")], [HELD_PEER])
    )
    assert served.dns is not UNREAD and served.caddy is not UNREAD
    down = ActualState(dns=UNREAD, caddy=UNREAD, dns_before=served.dns, caddy_before=served.caddy)
    actions = [
        one for one in plan.outstanding(EXPECTED, down, NodeType.PROXY) if isinstance(one, UpdateDns | UpdateCaddy)
    ]
    assert len(actions) == 2
    assert [breach(one, actual=down) for one in actions] == [None, None]


SPOILED: list[tuple[str, Callable[[], Action], str]] = [
    (
        "foreign stop",
        lambda: structs.replace(chosen("stop_orphan"), container_id=ContainerId("foreign")),
        "not one of ours",
    ),
    ("held stop", lambda: structs.replace(chosen("stop_orphan"), container_id=ContainerId("held")), "held"),
    (
        "stop of the only one",
        lambda: structs.replace(chosen("stop_orphan"), container_id=ContainerId(CONTAINER)),
        "the only container",
    ),
    (
        "stop of the one that runs",
        lambda: structs.replace(chosen("stop_orphan"), container_id=ContainerId("kept")),
        "the only running",
    ),
    ("stop without successors", lambda: structs.replace(chosen("stop_orphan"), successors=()), "successor"),
    ("foreign start", lambda: structs.replace(chosen("start"), container_id=ContainerId("foreign")), "not one of ours"),
    (
        "start of another's",
        lambda: structs.replace(chosen("start"), container_id=ContainerId(CONTAINER)),
        "not one of ours for this",
    ),
    (
        "start of what is held",
        lambda: structs.replace(chosen("start"), container_id=ContainerId("held"), deployment_id=DeploymentId("held")),
        "not expected",
    ),
    ("deploy of what is there", lambda: Deploy(EXPECTED.containers[-1], NoContainer()), "exists already"),
    (
        "deploy of what is held",
        lambda: Deploy(an_expected_container(deployment_id=DeploymentId("held")), NoContainer()),
        "held",
    ),
    (
        "deploy of what is not expected",
        lambda: Deploy(an_expected_container(deployment_id=DeploymentId("gone")), NoContainer()),
        "not expected",
    ),
    (
        "deploy of another image",
        lambda: structs.replace(
            chosen("deploy"), container=structs.replace(chosen("deploy").container, image=an_image("evil"))
        ),
        "another container",
    ),
    (
        "redeploy over another's",
        lambda: structs.replace(chosen("redeploy"), container_id=ContainerId("orphan")),
        "another deployment",
    ),
    (
        "redeploy over a foreign one",
        lambda: structs.replace(chosen("redeploy"), container_id=ContainerId("x")),
        "another deployment",
    ),
    (
        "redeploy of another spec",
        lambda: structs.replace(
            chosen("redeploy"), container=structs.replace(chosen("redeploy").container, env=(("A", "1"),))
        ),
        "another container",
    ),
    (
        "records without the held one",
        lambda: structs.replace(chosen("update_dns"), records=EXPECTED.dns),
        "drops a record",
    ),
    ("no records", lambda: structs.replace(chosen("update_dns"), records=()), "drops a record"),
    ("a record that nobody wants", lambda: structs.replace(chosen("update_dns"), records=ACTUAL.dns), "not expected"),
    (
        "routes without the held one",
        lambda: structs.replace(chosen("update_caddy"), routes=EXPECTED.caddy),
        "drops a route",
    ),
    ("a route that nobody wants", lambda: structs.replace(chosen("update_caddy"), routes=ACTUAL.caddy), "not expected"),
    (
        "a held peer removed",
        lambda: structs.replace(chosen("update_wireguard"), remove=(a_key(9),)),
        "expected or held",
    ),
    (
        "an expected peer removed",
        lambda: structs.replace(chosen("update_wireguard"), remove=(a_key(),)),
        "expected or held",
    ),
    (
        "a peer that nobody wants",
        lambda: structs.replace(chosen("update_wireguard"), upsert=ACTUAL.wireguard),
        "not expected",
    ),
    (
        "another endpoint than expected",
        lambda: structs.replace(chosen("update_wireguard"), upsert=(replace(EXPECTED.wireguard[0], endpoint=None),)),
        "not expected",
    ),
]


@pytest.mark.parametrize(("spoil", "why"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_what_would_break_an_invariant_is_refused(spoil: Callable[[], Action], why: str) -> None:
    """A planner's bug must not reach a server."""
    found = breach(spoil())
    assert found is not None
    assert why in found


def test_a_start_of_what_was_pinned_is_no_breach() -> None:
    """A container made from tag and digest is what the tag alone asks for: once it has ended, it is started again."""
    pinned = an_image(f"{builders.NGINX}@sha256:{'a' * 64}")
    changed = replace(
        ACTUAL, containers=tuple(structs.replace(one, image=pinned) for one in ACTUAL.containers if one.id == "stopped")
    )
    start = next(one for one in plan.outstanding(EXPECTED, changed, NodeType.PROXY) if isinstance(one, Start))
    assert breach(start, actual=changed) is None


def test_a_start_from_another_image_is_refused() -> None:
    """The image of the container that would be started must be the expected one."""
    changed = replace(
        ACTUAL, containers=tuple(structs.replace(one, image=an_image("old")) for one in ACTUAL.containers)
    )
    assert "another image" in (breach(chosen("start"), actual=changed) or "")
    nameless = replace(ACTUAL, containers=tuple(structs.replace(one, image=None) for one in ACTUAL.containers))
    assert "another image" in (breach(chosen("start"), actual=nameless) or "")


def test_a_worker_has_nothing_to_do_with_caddy() -> None:
    """Whatever the routes are."""
    assert guard.breach(chosen("update_caddy"), EXPECTED, ACTUAL, NodeType.WORKER) is not None


@pytest.mark.parametrize("kind", ["stop_orphan", "start", "redeploy"])
def test_on_a_server_that_looks_different_now_nothing_is_touched(kind: str) -> None:
    """An action that names a container is refused when that container is gone."""
    assert breach(chosen(kind), actual=ActualState()) is not None


def test_the_kinds_of_the_cases_are_all_kinds() -> None:
    """No action is left without a spoiled case."""
    kinds = {type(spoil()) for _, spoil, _ in SPOILED}
    assert kinds == {StopOrphan, Start, Deploy, Redeploy, UpdateDns, UpdateCaddy, UpdateWireGuard}
