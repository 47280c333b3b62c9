"""What to do next, and the whole of what is to be done: the one place that decides whether there is drift.

The theory: `outstanding` lists every change that the difference between expected and actual state asks for, in the order in which changes
are made. Drift *is* this list not being empty. `next_action` is its first entry; `plan` is what one gets by doing the next action,
looking again, and so on until nothing is left. Since no action creates or hides the need for another (each touches one key of one kind),
that fold walks exactly through the list, which a property test holds.

Classification is a table: each container and each component falls into the first bucket whose condition holds.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar, assert_never

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
from core.state import COMPONENTS, UNREAD, ActualState, ExpectedState, NodeType, not_held

T = TypeVar("T", bound=Hashable)

STARTABLE: Final = frozenset({"created", "exited"})


@dataclass(frozen=True, slots=True)
class _Situation:
    """What the steps look at: both states without held keys, matched by deployment; `whole` still has what is held."""

    expected: ExpectedState
    actual: ActualState
    whole: ActualState
    kept: Mapping[DeploymentId, ActualContainer]


def next_action(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> Action | None:
    """The one change to make now, or None when the server is as expected. The same for every order of the input's lists."""
    return next(_steps(expected, actual, node_type), None)


def outstanding(expected: ExpectedState, actual: ActualState, node_type: NodeType) -> tuple[Action, ...]:
    """Every change that is asked for, in the order in which changes are made. Empty exactly when there is no drift."""
    return tuple(_steps(expected, actual, node_type))


def orphans(expected: ExpectedState, actual: ActualState) -> tuple[ActualContainer, ...]:
    """The containers that should not be here, in the order in which they are stopped."""
    return _orphans(_situation(expected, actual))


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
    there = {one.id: one for one in actual.containers}
    for action in actions:
        match action:
            case StopOrphan(container_id=gone):
                there.pop(gone, None)
            case Start(container_id=started):
                there[started] = structs.replace(there[started], state="running")
            case Deploy(container=made):
                there[ContainerId(f"new-{made.deployment_id}")] = _predicted(made)
            case Redeploy(container=made, container_id=gone):
                there.pop(gone, None)
                there[ContainerId(f"new-{made.deployment_id}")] = _predicted(made)
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
    wanted = {one.deployment_id: one for one in expected.containers}
    kept: dict[DeploymentId, ActualContainer] = {}
    for one in seen.containers:
        want = wanted.get(one.deployment_id) if one.deployment_id is not None else None
        if want is None:
            continue
        best = kept.get(want.deployment_id)
        if best is None or containers.rank(want, one) < containers.rank(want, best):
            kept[want.deployment_id] = one
    return _Situation(expected, seen, actual, kept)


def _stop_orphans(now: _Situation) -> Iterator[Action]:
    unwanted = _orphans(now)
    missing: dict[str, list[ExpectedContainer]] = {}
    if unwanted:
        for want in now.expected.containers:
            if want.deployment_id not in now.kept:
                missing.setdefault(want.service_id, []).append(want)
    for one in unwanted:
        yield StopOrphan(
            one.deployment_id,
            one.id,
            one.name,
            _orphan_reason(now, one),
            tuple(missing.get(one.service_id, ())),
        )


def _orphans(now: _Situation) -> tuple[ActualContainer, ...]:
    return tuple(sorted((one for one in now.actual.containers if _kept_id(now, one) != one.id), key=_orphan_order))


def _kept_id(now: _Situation, one: ActualContainer) -> ContainerId | None:
    kept = now.kept.get(one.deployment_id) if one.deployment_id is not None else None
    return kept.id if kept is not None else None


def _orphan_order(one: ActualContainer) -> tuple[bool, str, str]:
    return (one.deployment_id is not None, one.deployment_id or "", one.id)


def _orphan_reason(now: _Situation, one: ActualContainer) -> NoDeploymentId | NotExpected | Spare:
    if one.deployment_id is None:
        return NoDeploymentId()
    kept = now.kept.get(one.deployment_id)
    return NotExpected() if kept is None else Spare(kept.id)


def _start_stopped(now: _Situation) -> Iterator[Action]:
    for want in now.expected.containers:
        one = now.kept.get(want.deployment_id)
        if one is not None and one.state in STARTABLE and containers.image_matches(want, one):
            yield Start(want.deployment_id, one.id, one.name, NotRunning(one.state))


def _deploy_missing(now: _Situation) -> Iterator[Action]:
    for want in now.expected.containers:
        if want.deployment_id not in now.kept:
            yield Deploy(want, NoContainer())


def _redeploy_wrong(now: _Situation) -> Iterator[Action]:
    for want in now.expected.containers:
        one = now.kept.get(want.deployment_id)
        if one is None:
            continue
        if not containers.image_matches(want, one):
            was = str(one.image) if one.image is not None else one.image_text
            yield Redeploy(want, one.id, ImageDiffers(was, str(want.image)))
        elif one.state != "running" and one.state not in STARTABLE:
            yield Redeploy(want, one.id, NotRunning(one.state))


def _update_dns(now: _Situation) -> Iterator[Action]:
    reason = _drift(now.expected.dns, None if now.actual.dns is UNREAD else now.actual.dns, _record_name)
    if reason is not None:
        held = now.whole.dns_before if now.whole.dns is UNREAD else now.whole.dns
        kept = [record for record in held if record.name in now.expected.held.dns]
        yield UpdateDns(dns.union([*now.expected.dns, *kept]), reason)


def _update_caddy(now: _Situation) -> Iterator[Action]:
    reason = _drift(now.expected.caddy, None if now.actual.caddy is UNREAD else now.actual.caddy, caddy.route_id)
    if reason is not None:
        held = now.whole.caddy_before if now.whole.caddy is UNREAD else now.whole.caddy
        kept = [route for route in held if route.id in now.expected.held.caddy]
        yield UpdateCaddy(caddy.canonical_routes([*now.expected.caddy, *kept]), reason)


def _update_wireguard(now: _Situation) -> Iterator[Action]:
    wanted = now.expected.wireguard
    actual = None if now.actual.wireguard is UNREAD else now.actual.wireguard
    reason = _drift(wanted, actual, wireguard.public_key)
    if isinstance(reason, CouldNotBeRead):
        yield UpdateWireGuard(wanted, (), reason)
    elif reason is not None:
        touched = {*reason.difference.added, *reason.difference.changed}
        upsert = tuple(peer for peer in wanted if peer.public_key in touched)
        yield UpdateWireGuard(upsert, reason.difference.removed, reason)


def _drift(
    expected: tuple[T, ...], actual: tuple[T, ...] | None, key: Callable[[T], str]
) -> Differs | CouldNotBeRead | None:
    if actual is None:
        return CouldNotBeRead()
    if expected == actual:  # both are in canonical order, so equal digests and equal values are the same thing
        return None
    return Differs(difference(expected, actual, key))


def _record_name(record: dns.Record) -> str:
    return record.name


def _predicted(made: ExpectedContainer) -> ActualContainer:
    return ActualContainer(
        id=ContainerId(f"new-{made.deployment_id}"),
        name=made.name,
        image=made.image,
        image_text=str(made.image),
        state="running",
        created=0,
        health="none",
        deployment_id=made.deployment_id,
        service_id=made.service_id,
        service_name=made.service_name,
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
