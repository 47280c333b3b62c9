"""A second opinion on a chosen action, before it runs.

Written apart from the planner, from the rules and not from its code, so that a fault in one is caught by the other. It asks only what
must never happen; whether the action is *useful* is the planner's affair. A breach is a fault of ours: the action is not run, it is said
loudly, and everything else goes on.
"""

from typing import TypeVar, assert_never

from core import image
from core.action import Action, Deploy, Redeploy, Start, StopOrphan, UpdateCaddy, UpdateDns, UpdateWireGuard
from core.containers import ContainerId, DeploymentId, ExpectedContainer
from core.state import UNREAD, ActualState, ExpectedState, NodeType

T = TypeVar("T")


def breach(action: Action, expected: ExpectedState, actual: ActualState, node_type: NodeType) -> str | None:
    """What invariant the action would break, in words; None when it is safe to run."""
    match action:
        case StopOrphan():
            return _stop_breach(action, expected, actual)
        case Start():
            return _start_breach(action, expected, actual)
        case Deploy(container=made):
            return _expected_breach(made, expected) or (
                "a container of this deployment exists already" if _ids_of(made.deployment_id, actual) else None
            )
        case Redeploy(container=made, container_id=old):
            return _expected_breach(made, expected) or (
                None if old in _ids_of(made.deployment_id, actual) else "it replaces a container of another deployment"
            )
        case UpdateDns(records=records):
            served = actual.dns_before if actual.dns is UNREAD else actual.dns
            held_records = {record for record in served if record.name in expected.held.dns}
            return _content_breach(set(records), {*expected.dns, *held_records}, "record")
        case UpdateCaddy(routes=routes):
            if node_type is not NodeType.PROXY:
                return "a worker has nothing to do with Caddy"
            there = actual.caddy_before if actual.caddy is UNREAD else actual.caddy
            held_routes = {route for route in there if route.id in expected.held.caddy}
            return _content_breach(set(routes), {*expected.caddy, *held_routes}, "route")
        case UpdateWireGuard():
            return _peers_breach(action, expected)
        case _:
            assert_never(action)


def _stop_breach(action: StopOrphan, expected: ExpectedState, actual: ActualState) -> str | None:
    target = next((one for one in actual.containers if one.id == action.container_id), None)
    if target is None:
        return "it stops a container that is not one of ours"
    if target.deployment_id in expected.held.containers:
        return "it stops a container whose deployment is held"
    wanted = {one.deployment_id for one in expected.containers}
    others = _ids_of(target.deployment_id, actual) - {target.id}
    if target.deployment_id in wanted and not others:
        return "it stops the only container of an expected deployment"
    running = {one.id for one in actual.containers if one.state == "running"}
    if target.deployment_id in wanted and target.id in running and not others & running:
        return "it stops the only running container of an expected deployment"
    there = {one.deployment_id for one in actual.containers}
    missing = {
        one.deployment_id
        for one in expected.containers
        if one.service_id == target.service_id and one.deployment_id not in there
    }
    if missing - {one.deployment_id for one in action.successors}:
        return "it stops a container before the image of its successor is here"
    return None


def _start_breach(action: Start, expected: ExpectedState, actual: ActualState) -> str | None:
    target = next((one for one in actual.containers if one.id == action.container_id), None)
    want = next((one for one in expected.containers if one.deployment_id == action.deployment_id), None)
    if target is None or target.deployment_id != action.deployment_id:
        return "it starts a container that is not one of ours for this deployment"
    if want is None:
        return "it starts a container of a deployment that is not expected"
    if target.image is None or not image.same(want.image, target.image):
        return "it starts a container from another image than the expected one"
    return None


def _peers_breach(action: UpdateWireGuard, expected: ExpectedState) -> str | None:
    wanted = {peer.public_key for peer in expected.wireguard}
    if set(action.remove) & (wanted | expected.held.wireguard):
        return "it removes a peer that is expected or held"
    return "it sets a peer that is not expected" if set(action.upsert) - set(expected.wireguard) else None


def _expected_breach(made: ExpectedContainer, expected: ExpectedState) -> str | None:
    if made.deployment_id in expected.held.containers:
        return "its deployment is held"
    if all(one.deployment_id != made.deployment_id for one in expected.containers):
        return "its deployment is not expected"
    return None if made in expected.containers else "it makes another container than the expected one"


def _ids_of(deployment_id: DeploymentId | None, actual: ActualState) -> set[ContainerId]:
    return {one.id for one in actual.containers if deployment_id is not None and one.deployment_id == deployment_id}


def _content_breach(writes: set[T], must: set[T], what: str) -> str | None:
    if writes - must:
        return f"it writes a {what} that is not expected"
    return f"it drops a {what} that is expected or held" if must - writes else None
