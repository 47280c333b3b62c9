"""What to do next, and the whole of what is to be done: the one place that decides whether there is drift.

The theory: `outstanding` lists every change that the difference between expected and actual state asks for, in the order in which changes
are made. Drift *is* this list not being empty. `next_action` is its first entry; `plan` is what one gets by doing the next action,
looking again, and so on until nothing is left. Since no action creates or hides the need for another (each touches one key of one kind),
that fold walks exactly through the list, which a property test holds.

Classification is a table: each container and each component falls into the first bucket whose condition holds.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias, assert_never

import msgspec
from msgspec import structs

from core import caddy, containers, dns, wireguard
from core.action import (
    Action,
    CouldNotBeRead,
    Deploy,
    Differs,
    ImageDiffers,
    NoContainer,
    NoDeploymentId,
    NotExpected,
    NotRunning,
    Redeploy,
    Spare,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
)
from core.containers import ActualContainer, ContainerId, DeploymentId, ExpectedContainer
from core.digest import difference
from core.state import COMPONENTS, UNREAD, ActualState, Component, ExpectedState, NodeType, not_held

STARTABLE: Final = frozenset({"created", "exited"})
_NO_CONTAINER: Final = NoContainer()


class _Situation(msgspec.Struct, frozen=True):
    """What the steps look at: both states without held keys, matched by deployment; `whole` still has what is held.

    `missing` are the expected containers that have none, `unwanted` the containers that should not be here, both in order; `odd` are
    the expected ones whose container does not run or has another image. All three are empty on a server that is as expected, so that
    the steps cost nothing there.
    """

    expected: ExpectedState
    actual: ActualState
    whole: ActualState
    kept: Mapping[DeploymentId, ActualContainer]
    missing: tuple[ExpectedContainer, ...]
    unwanted: tuple[ActualContainer, ...]
    odd: tuple[tuple[ExpectedContainer, ActualContainer], ...]


def next_action(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> Action | None:
    """The one change to make now, or None when the server is as expected. The same for every order of the input's lists."""
    return next(_steps(expected, actual, node_type), None)


def outstanding(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> tuple[Action, ...]:
    """Every change that is asked for, in the order in which changes are made. Empty exactly when there is no drift."""
    return tuple(_steps(expected, actual, node_type))


def beside_containers(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> tuple[Action, ...]:
    """The changes of DNS, routes and peers alone, for a server whose containers cannot be listed; `actual` has none, and nobody looks."""
    without = replace(expected, containers=())
    return tuple(_steps(without, replace(actual, containers=()), node_type))


def awaits_a_refused_one(action: Action, expected: ExpectedState, actual: ActualState) -> bool:
    """Whether a container would be stopped whose service is to have another that cannot be made, since its entry makes no sense.

    A redeploy always has a new deployment's id: a typing error in its environment must not take down what runs.
    """
    if not expected.refused or not isinstance(action, StopOrphan) or not isinstance(action.reason, NotExpected):
        return False
    if action.successors:  # they replace it, and must not run beside it
        return False
    there = {one.deployment_id for one in actual.containers}
    missing = {service for deployment, service in expected.refused if deployment not in there}
    may_be_any = None in missing
    return any(one.id == action.container_id and (may_be_any or one.service_id in missing) for one in actual.containers)


def orphans(expected: ExpectedState, actual: ActualState) -> tuple[ActualContainer, ...]:
    """The containers that should not be here, in the order in which they are stopped."""
    return _situation(expected, actual).unwanted


def plan(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> tuple[Action, ...]:
    """Every action until nothing is left, by folding the predicted effect of each over the actual state.

    The predicted effects are folded in one pass and what they leave is looked at again, so a plan that would not end shows up here.
    """
    actions: tuple[Action, ...] = ()
    bound = len(expected.containers) + len(actual.containers) + len(COMPONENTS)
    while step := outstanding(expected, actual, node_type):
        actions += step
        if len(actions) > bound:
            raise AssertionError(f"the plan does not end: {step[0]}")
        actual = predict(actual, step)
    return actions


def predict(actual: ActualState, actions: tuple[Action, ...]) -> ActualState:
    """The actual state after these actions have succeeded."""
    there = {(one.id, one.deployment_id): one for one in actual.containers}
    for action in actions:
        match action:
            case Deploy(container=made):
                new = _predicted(made)
                there[new.id, new.deployment_id] = new
            case StopOrphan(container_id=gone, deployment_id=whose):
                there.pop((gone, whose), None)
            case Start(container_id=started, deployment_id=whose):
                there[started, whose] = structs.replace(there[started, whose], state="running")
            case Redeploy(container=made, container_id=gone):
                there.pop((gone, made.deployment_id), None)
                new = _predicted(made)
                there[new.id, new.deployment_id] = new
            case UpdateDns(records=records):
                actual = replace(actual, dns=records)
            case UpdateCaddy(routes=routes):
                actual = replace(actual, caddy=routes)
            case UpdateWireGuard():
                actual = replace(actual, wireguard=_predicted_peers(actual, action))
            case _:
                assert_never(action)
    return replace(actual, containers=tuple(there.values()))


def _steps(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> Iterator[Action]:
    situation = _situation(expected, actual)
    for step in STEPS[node_type]:
        yield from step(situation)


def _situation(expected: ExpectedState, actual: ActualState) -> _Situation:
    seen = not_held(actual, expected.held)
    if _is_each_in_its_place(expected, seen):
        return _Situation(expected, seen, actual, kept={}, missing=(), unwanted=(), odd=())
    kept, are_odd = _kept(expected.containers, seen.containers)
    every = expected.containers
    return _Situation(
        expected=expected,
        actual=seen,
        whole=actual,
        kept=kept,
        missing=() if len(kept) == len(every) else tuple(want for want in every if want.deployment_id not in kept),
        unwanted=() if len(kept) == len(seen.containers) else _unwanted(kept, seen.containers),
        odd=tuple((want, kept[want.deployment_id]) for want in every if want.deployment_id in are_odd)
        if are_odd
        else (),
    )


def _is_each_in_its_place(expected: ExpectedState, actual: ActualState) -> bool:
    """Whether every expected container is there once, runs and was made from the same reference, and nothing else is there.

    It is so nearly always, and can be told at a fraction of the cost of matching one by one; the answer no says nothing yet.
    """
    return len(actual.running) == len(actual.containers) and actual.running == expected.images


def _kept(
    expected: tuple[ExpectedContainer, ...], there: tuple[ActualContainer, ...]
) -> tuple[dict[DeploymentId, ActualContainer], set[DeploymentId]]:
    """The container to keep of each expected deployment that has any; and those of which one does not run or has another image."""
    wanted = {one.deployment_id: one for one in expected}
    kept: dict[DeploymentId, ActualContainer] = {}
    odd: set[DeploymentId] = set()
    for one in there:
        key = one.deployment_id
        want = wanted.get(key) if key is not None else None
        if key is None or want is None:
            continue
        if one.state != "running" or (one.image is not want.image and not containers.image_matches(want, one)):
            odd.add(key)
        best = kept.setdefault(key, one)
        if best is not one and containers.rank(want, one) < containers.rank(want, best):
            kept[key] = one
    return kept, odd


def _stop_orphans(now: _Situation) -> Iterator[Action]:
    missing: dict[str, list[ExpectedContainer]] = {}
    if now.unwanted:
        for want in now.missing:
            missing.setdefault(want.service_id, []).append(want)
    successors = {service: tuple(found) for service, found in missing.items()}
    for one in now.unwanted:
        yield StopOrphan(
            one.deployment_id,
            one.id,
            one.name,
            _orphan_reason(now, one),
            successors.get(one.service_id, ()),
        )


def _unwanted(
    kept: Mapping[DeploymentId, ActualContainer], there: tuple[ActualContainer, ...]
) -> tuple[ActualContainer, ...]:
    ids = {deployment: one.id for deployment, one in kept.items()}
    unwanted = [one for one in there if one.deployment_id is None or ids.get(one.deployment_id) != one.id]
    return tuple(sorted(unwanted, key=_orphan_order))


def _orphan_order(one: ActualContainer) -> tuple[bool, str, str]:
    return (one.deployment_id is not None, one.deployment_id or "", one.id)


def _orphan_reason(now: _Situation, one: ActualContainer) -> NoDeploymentId | NotExpected | Spare:
    if one.deployment_id is None:
        return NoDeploymentId()
    kept = now.kept.get(one.deployment_id)
    return NotExpected() if kept is None else Spare(kept.id)


def _start_stopped(now: _Situation) -> Iterator[Action]:
    for want, one in now.odd:
        if one.state in STARTABLE and containers.image_matches(want, one):
            yield Start(want.deployment_id, one.id, one.name, NotRunning(one.state))


def _deploy_missing(now: _Situation) -> Iterator[Action]:
    for want in now.missing:
        yield Deploy(want, _NO_CONTAINER)


def _redeploy_wrong(now: _Situation) -> Iterator[Action]:
    for want, one in now.odd:
        if not containers.image_matches(want, one):
            was = str(one.image) if one.image is not None else one.image_text
            yield Redeploy(want, one.id, ImageDiffers(was, str(want.image)))
        elif one.state != "running" and one.state not in STARTABLE:
            yield Redeploy(want, one.id, NotRunning(one.state))


def _update_dns(now: _Situation) -> Iterator[Action]:
    reason = _drift(now, "dns", _record_name)
    if reason is not None:
        held = now.whole.dns_before if now.whole.dns is UNREAD else now.whole.dns
        kept = [record for record in held if record.name in now.expected.held.dns]
        yield UpdateDns(dns.union([*now.expected.dns, *kept]) if kept else now.expected.dns, reason)


def _update_caddy(now: _Situation) -> Iterator[Action]:
    reason = _drift(now, "caddy", caddy.route_id)
    if reason is not None:
        held = now.whole.caddy_before if now.whole.caddy is UNREAD else now.whole.caddy
        kept = [route for route in held if route.id in now.expected.held.caddy]
        yield UpdateCaddy(caddy.canonical_routes([*now.expected.caddy, *kept]) if kept else now.expected.caddy, reason)


def _update_wireguard(now: _Situation) -> Iterator[Action]:
    wanted = now.expected.wireguard
    reason = _drift(now, "wireguard", wireguard.public_key)
    if isinstance(reason, CouldNotBeRead):
        yield UpdateWireGuard(wanted, (), reason)
    elif reason is not None:
        touched = {*reason.difference.added, *reason.difference.changed}
        upsert = tuple(peer for peer in wanted if peer.public_key in touched)
        yield UpdateWireGuard(upsert, reason.difference.removed, reason)


def _drift(now: _Situation, component: Component, key: Callable[[Any], str]) -> Differs | CouldNotBeRead | None:
    """Told by the hashes of both sides; only where they differ is it worked out what does."""
    there = now.actual.digests[component]
    if there is None:
        return CouldNotBeRead()
    if now.expected.digests[component] == there:
        return None
    return Differs(difference(getattr(now.expected, component), getattr(now.actual, component), key))


def _record_name(record: dns.Record) -> str:
    return record.name


def _predicted(made: ExpectedContainer) -> ActualContainer:
    return ActualContainer(
        ContainerId(f"new-{made.deployment_id}"),
        made.name,
        made.image,
        str(made.image),
        "running",
        0,
        "none",
        made.deployment_id,
        made.service_id,
        made.service_name,
    )


def _predicted_peers(actual: ActualState, update: UpdateWireGuard) -> tuple[wireguard.Peer, ...]:
    touched = {*update.remove, *(peer.public_key for peer in update.upsert)}
    before = () if actual.wireguard is UNREAD else actual.wireguard
    return wireguard.canonical_peers([*(p for p in before if p.public_key not in touched), *update.upsert])


_Step: TypeAlias = Callable[[_Situation], Iterator[Action]]

# The mission's order. Orphans go first because their addresses and volumes may be wanted; DNS and routes come after the containers
# that they point at; peers last. A worker has no step that concerns Caddy.
STEPS: Final[Mapping[NodeType, tuple[_Step, ...]]] = {
    NodeType.WORKER: (_stop_orphans, _start_stopped, _deploy_missing, _redeploy_wrong, _update_dns, _update_wireguard),
    NodeType.PROXY: (
        _stop_orphans,
        _start_stopped,
        _deploy_missing,
        _redeploy_wrong,
        _update_dns,
        _update_caddy,
        _update_wireguard,
    ),
}
