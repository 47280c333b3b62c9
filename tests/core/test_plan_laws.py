"""Laws of `core.plan` and `core.guard`, on servers in every situation at once. The answer comes from the case, not from the planner."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import guard, plan, state
from core.action import Action, UpdateCaddy, UpdateDns, UpdateWireGuard, difference_of, kind
from core.plan import next_action, outstanding, predict
from core.render import action_json
from core.state import ActualState, ExpectedState, NodeType
from tests import strategies
from tests.builders import actual_of, expected_of
from tests.strategies import Case, cases

KINDS = ("stop_orphan", "start", "deploy", "redeploy", "update_dns", "update_caddy", "update_wireguard")


def parsed(case: Case) -> tuple[ExpectedState, ActualState, NodeType]:
    """The three things that a plan is made from."""
    return expected_of(case.expected), actual_of(case.actual), case.node_type


def fact(action: Action) -> tuple[Any, ...]:
    """An action as the case's answer has it."""
    if isinstance(action, UpdateDns | UpdateCaddy | UpdateWireGuard):
        found = difference_of(action)
        return (kind(action), found.added, found.removed, found.changed)
    facts = action_json(action)
    return (kind(action), facts["deploymentId"], facts["containerId"])


@given(cases())
def test_the_plan_is_what_the_case_asks_for(case: Case) -> None:
    """Every case's own answer, in the order of steps: nothing more, nothing less, nothing in another order."""
    assert tuple(map(fact, plan.plan(*parsed(case)))) == case.answer


@given(st.data(), cases())
def test_order_and_repetition_of_the_input_mean_nothing(data: st.DataObject, case: Case) -> None:
    """ "Same input, same Action, whatever the order in which containers, records, routes, peers or addresses were listed"."""
    expected, actual, node_type = parsed(case)
    again = expected_of(data.draw(strategies.shuffled(case.expected)))
    there = actual_of(data.draw(strategies.shuffled(case.actual)))
    assert plan.plan(again, there, node_type) == plan.plan(expected, actual, node_type)
    assert state.hashes(again, there) == state.hashes(expected, actual)
    assert again.held == expected.held
    assert {(one.key, one.reason) for one in again.rejected} == {(one.key, one.reason) for one in expected.rejected}


@given(cases())
def test_the_plan_is_the_fold_of_next_actions(case: Case) -> None:
    """Each action is done, the server is looked at again, and so on: the same plan, one action at a time, and it ends."""
    expected, actual, node_type = parsed(case)
    whole = plan.plan(expected, actual, node_type)
    folded: list[Action] = []
    while (one := next_action(expected, actual, node_type)) is not None:
        folded.append(one)
        assert len(folded) <= len(whole)
        actual = predict(actual, (one,))
    assert tuple(folded) == whole


@given(cases())
def test_every_action_makes_progress(case: Case) -> None:
    """After an action what is left is exactly what was left before, without it."""
    expected, actual, node_type = parsed(case)
    left = outstanding(expected, actual, node_type)
    for one in left:
        actual = predict(actual, (one,))
        assert outstanding(expected, actual, node_type) == left[1:]
        left = left[1:]


@given(cases())
def test_after_the_plan_nothing_is_left(case: Case) -> None:
    """L5: hash(expected) == hash(what is there afterwards), and planning again yields nothing."""
    expected, actual, node_type = parsed(case)
    after = predict(actual, plan.plan(expected, actual, node_type))
    assert plan.plan(expected, after, node_type) == ()
    for name, found in state.hashes(expected, after).items():
        assert found.expected == found.actual or (name == "caddy" and node_type is NodeType.WORKER)


@given(cases())
def test_there_is_drift_exactly_when_there_is_an_action(case: Case) -> None:
    """L6: drift means that the plan is not empty; for the components, that the hashes differ or one could not be read."""
    expected, actual, node_type = parsed(case)
    one = next_action(expected, actual, node_type)
    assert (one is None) == (outstanding(expected, actual, node_type) == ()) == (case.answer == ())
    kinds = {kind(action) for action in plan.plan(expected, actual, node_type)}
    for name, found in state.hashes(expected, actual).items():
        if name != "caddy" or node_type is NodeType.PROXY:
            assert (found.expected != found.actual) == (f"update_{name}" in kinds)


@given(cases())
def test_kinds_come_in_the_order_of_the_mission(case: Case) -> None:
    """Orphans, start, deploy, redeploy, DNS, Caddy, WireGuard; at most one update of each; a worker has no Caddy action."""
    kinds = [kind(one) for one in plan.plan(*parsed(case))]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert all(kinds.count(one) <= 1 for one in KINDS[4:])
    assert case.node_type is NodeType.PROXY or "update_caddy" not in kinds


@given(cases())
def test_what_is_foreign_or_held_is_never_touched(case: Case) -> None:
    """No action names a container without a label of ours, nor anything whose key is held (L7)."""
    for one in plan.plan(*parsed(case)):
        facts = fact(one)
        named = {facts[1], facts[2]} if len(facts) == 3 else set(facts[1]) | set(facts[2]) | set(facts[3])
        assert not named & (case.foreign | case.held)


@given(cases())
def test_what_is_held_is_still_served_afterwards(case: Case) -> None:
    """L7: whatever exists for a held key stays as it is, in the very values that are written."""
    expected, actual, node_type = parsed(case)
    after = predict(actual, plan.plan(expected, actual, node_type))
    pairs: list[tuple[Any, Any, frozenset[str], str]] = [
        (actual.dns, after.dns, expected.held.dns, "name"),
        (actual.caddy, after.caddy, expected.held.caddy, "id"),
        (actual.wireguard, after.wireguard, expected.held.wireguard, "public_key"),
        (actual.containers, after.containers, expected.held.containers, "deployment_id"),
    ]
    for before, now, held, key in pairs:
        if before is not state.UNREAD:
            assert {one for one in before if getattr(one, key) in held} == {
                one for one in now if getattr(one, key) in held
            }


@given(cases())
def test_the_guard_takes_every_action_of_the_planner(case: Case) -> None:
    """The second opinion agrees, at every step of the way."""
    expected, actual, node_type = parsed(case)
    for one in plan.plan(expected, actual, node_type):
        assert guard.breach(one, expected, actual, node_type) is None
        actual = predict(actual, (one,))


@given(cases(), cases())
def test_the_guard_refuses_what_belongs_to_another_server(case: Case, other: Case) -> None:
    """An action chosen for another server is taken only when it is harmless here: it names what is expected, or an orphan."""
    expected, actual, node_type = parsed(case)
    ours = {one.id for one in actual.containers}
    wanted = {one.deployment_id for one in expected.containers}
    for one in plan.plan(*parsed(other)):
        if guard.breach(one, expected, actual, node_type) is None and len(fact(one)) == 3:
            _, deployment, container = fact(one)
            assert container is None or container in ours
            assert kind(one) == "stop_orphan" or deployment in wanted


@given(st.data(), cases())
def test_the_core_is_total(data: st.DataObject, case: Case) -> None:
    """Any text anywhere in a document gives a plan and its answer, never an exception (L7, L8)."""
    expected = expected_of(data.draw(strategies.spoiled(data.draw(strategies.spoiled(case.expected)))))
    actual = actual_of(data.draw(strategies.spoiled(data.draw(strategies.spoiled(case.actual)))))
    for subnet in (None, 3):
        assert expected_of(case.expected, subnet) is not None
    whole = plan.plan(expected, actual, case.node_type)
    assert (whole[0] if whole else None) == next_action(expected, actual, case.node_type)


@pytest.mark.parametrize("subnet", [None, 1, 255])
@given(case=cases())
def test_the_same_document_is_the_same_state(subnet: int | None, case: Case) -> None:
    """Parsing is a function: states can be compared from poll to poll."""
    assert expected_of(case.expected, subnet) == expected_of(case.expected, subnet)
