"""`core.retry`: what failed waits by itself, and never makes anything else wait (L11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from core import plan, retry
from core.action import (
    Action,
    CouldNotBeRead,
    Deploy,
    NoContainer,
    NotExpected,
    NotRunning,
    Redeploy,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
)
from core.containers import ContainerId, DeploymentId
from core.retry import Retries, RetryKey
from tests.builders import NAME, actual_of, an_expected_container, an_image, expected_of
from tests.strategies import Case, cases

DEP, CON = DeploymentId("dep"), ContainerId("con")
KEY: RetryKey = ("deploy", "dep", "target")
OTHER: RetryKey = ("deploy", "other", "target")


def deploy(**changes: object) -> Action:
    """A deploy of the healthy container, changed."""
    return Deploy(an_expected_container(**changes), NoContainer())


@given(st.integers(1, 50))
def test_pauses_double_up_to_five_minutes(count: int) -> None:
    """10 s, doubling, 5 min at most; jitter only ever makes them shorter, by a tenth at most."""
    full = min(300.0, 10.0 * 2 ** (count - 1))
    assert 0.9 * full <= retry.delay(KEY, count) <= full
    assert retry.delay(KEY, count) == retry.delay(KEY, count)


def test_a_key_waits_exactly_until_its_time() -> None:
    """Put aside until then, not a moment longer."""
    retries = retry.after_attempt({}, KEY, 100.0, "why")
    due = retries[KEY].not_before
    assert retry.is_waiting(retries, KEY, 100.0)
    assert retry.is_waiting(retries, KEY, due - 0.001)
    assert not retry.is_waiting(retries, KEY, due)
    assert retries[KEY].failure == "why"


def test_success_counts_too() -> None:
    """L14: what is applied and falls over again is tried with growing pauses as well."""
    retries = retry.after_attempt(retry.after_attempt({}, KEY, 0.0, None), KEY, 20.0, None)
    assert (retries[KEY].count, retries[KEY].failure) == (2, None)
    assert retry.is_waiting(retries, KEY, 37.0)


def test_ten_quiet_minutes_clear_the_record() -> None:
    """The count starts afresh, and the memory is let go."""
    retries = retry.after_attempt({}, KEY, 0.0, "x")
    assert retry.forget_old(retries, 599.9) == retries
    assert retry.forget_old(retries, 600.0) == {}
    assert retry.after_attempt(retries, KEY, 599.9, "x")[KEY].count == 2
    assert retry.after_attempt(retries, KEY, 600.0, "x")[KEY].count == 1


def test_an_update_that_succeeded_is_soon_done_again() -> None:
    """Traffic waits for names, routes and peers: somebody who reloads Caddy every minute meets no growing pauses; a failure does."""
    key: RetryKey = ("update_caddy", "caddy", "target", "read")
    retries: Retries = {}
    for minute in range(10):
        now = 60.0 * minute
        retries = retry.forget_old(retries, now)
        assert not retry.is_waiting(retries, key, now)
        retries = retry.after_attempt(retries, key, now, None)
    for second in range(0, 29, 2):
        retries = retry.after_attempt(retries, key, 1000.0 + second, None)
    assert not retry.is_waiting(retry.forget_old(retries, 1058.0), key, 1058.0)
    retries = retry.after_attempt(retry.after_attempt({}, key, 0.0, "x"), key, 60.0, "x")
    assert retries[key].count == 2


def test_an_update_that_was_seen_in_force_waits_no_longer() -> None:
    """L14: it was progress, so its being undone is no repetition; what failed, had no effect or concerns a container waits on."""
    routes: RetryKey = ("update_caddy", "caddy", "target", "read")
    names: RetryKey = ("update_dns", "dns", "target", "read")
    retries: Retries = {}
    for second in range(3):
        retries = retry.after_attempt(retries, routes, float(second), None)
    assert retry.seen_in_force(retries, [UpdateCaddy((), CouldNotBeRead())]) == retries
    seen = retry.seen_in_force(retries, [UpdateDns((), CouldNotBeRead())])
    assert retry.is_waiting(retries, routes, 20.0)
    assert retry.is_waiting(seen, routes, 6.9)
    assert not retry.is_waiting(seen, routes, 7.0)
    assert retry.after_attempt(seen, routes, 7.0, None)[routes].count == 1
    assert retry.seen_in_force(seen, []) is seen
    for key, failure in ((routes, "x"), (names, "x"), (KEY, None), (KEY, "x")):
        retries = retry.after_attempt(retry.after_attempt({}, key, 0.0, failure), key, 1.0, failure)
        assert retry.seen_in_force(retries, []) is retries


@given(st.lists(st.tuples(st.sampled_from([KEY, OTHER]), st.floats(0, 50), st.booleans()), max_size=12))
def test_one_key_never_touches_another(attempts: list[tuple[RetryKey, float, bool]]) -> None:
    """What is remembered of a key is the same as if nothing else had ever been tried."""
    both: Retries = {}
    alone: Retries = {}
    now = 0.0
    for key, pause, failed in attempts:
        now += pause
        both = retry.after_attempt(both, key, now, "x" if failed else None)
        if key == KEY:
            alone = retry.after_attempt(alone, key, now, "x" if failed else None)
    assert both.get(KEY) == alone.get(KEY)


@given(cases())
def test_actions_of_one_plan_have_different_keys(case: Case) -> None:
    """So that one that fails can put no other aside."""
    actions = plan.plan(expected_of(case.expected), actual_of(case.actual), case.node_type)
    assert len({retry.key(one) for one in actions}) == len(actions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (deploy(), deploy(image=an_image("nginx:2"))),
        (deploy(), deploy(env=(("A", "1"),))),
        (deploy(), deploy(address=None)),
        (deploy(), deploy(ports=())),
        (deploy(), deploy(name="other")),
        (deploy(), deploy(deployment_id=DEP)),
        (deploy(), Redeploy(an_expected_container(), CON, NotRunning("dead"))),
        (Start(DEP, CON, "n", NotRunning("exited")), Start(DEP, ContainerId("new"), "n", NotRunning("exited"))),
        (StopOrphan(DEP, CON, "n", NotExpected()), StopOrphan(DEP, ContainerId("new"), "n", NotExpected())),
    ],
)
def test_wanting_something_else_starts_afresh(one: Action, other: Action) -> None:
    """Another target is another change."""
    assert retry.key(one) != retry.key(other)


def test_a_stop_that_waits_for_another_successor_starts_afresh() -> None:
    """A bad image of one release must not hold up the stop that the next, good one needs."""
    stop = StopOrphan(DEP, CON, "n", NotExpected(), (an_expected_container(image=an_image("bad")),))
    assert retry.key(stop) != retry.key(structs.replace(stop, successors=(an_expected_container(),)))
    assert retry.key(stop) != retry.key(structs.replace(stop, successors=()))


def test_the_same_change_found_again_is_the_same() -> None:
    """Its reason may have changed: what was exited is dead now."""
    one = Redeploy(an_expected_container(), CON, NotRunning("exited"))
    assert retry.key(one) == retry.key(structs.replace(one, reason=NotRunning("dead")))
    assert retry.key(one)[:2] == ("redeploy", an_expected_container().deployment_id)
    assert one.container.name == NAME


def test_attempts_of_a_deployment_are_those_to_make_it_run() -> None:
    """An id that happens to be another thing's name does not count (L8)."""
    retries = retry.after_attempt({}, ("deploy", "dns", "x"), 0.0, "x")
    for now in range(3):
        retries = retry.after_attempt(retries, ("update_dns", "dns", "y"), float(now), "x")
        retries = retry.after_attempt(retries, ("stop_orphan", "dns", "y"), float(now), "x")
    assert retry.attempts(retries)[DeploymentId("dns")] == 1
    assert DeploymentId("never") not in retry.attempts(retries)
