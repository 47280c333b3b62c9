"""`core.health`: which checks are due."""

from msgspec.structs import replace

from core.containers import ContainerId, HealthCheck
from core.health import DEFAULT_TIMEOUT_S, checks_of, due, silent
from core.state import ExpectedState
from tests.builders import an_actual_container, an_expected_container

CHECKED = an_actual_container(state="running", health="starting")
CHECK = HealthCheck("true", 7, 3, 3, 0)


def test_a_check_is_due_at_its_own_interval() -> None:
    """At once when it has never run, then every interval; with its own time-out."""
    checks = {CHECKED.deployment_id: CHECK} if CHECKED.deployment_id else {}
    assert due([CHECKED], checks, {}, 100.0) == ((CHECKED.id, 3.0),)
    assert due([CHECKED], checks, {CHECKED.id: 94.0}, 100.0) == ()
    assert due([CHECKED], checks, {CHECKED.id: 93.0}, 100.0) == ((CHECKED.id, 3.0),)


def test_what_is_not_expected_is_checked_by_default() -> None:
    """A container that is about to go keeps its health until it does."""
    assert due([CHECKED], {}, {CHECKED.id: 91.0}, 100.0) == ()
    assert due([CHECKED], {}, {CHECKED.id: 90.0}, 100.0) == ((CHECKED.id, DEFAULT_TIMEOUT_S),)


def test_only_what_runs_and_has_a_check() -> None:
    """Nothing else can be checked."""
    assert due([replace(CHECKED, state="exited"), replace(CHECKED, health="none")], {}, {}, 100.0) == ()


def test_the_order_is_by_id() -> None:
    """However the containers were listed."""
    other = replace(CHECKED, id=ContainerId("0"))
    assert due([CHECKED, other], {}, {}, 1.0) == due([other, CHECKED], {}, {}, 1.0)


def test_checks_of_an_expected_state() -> None:
    """Those that have one."""
    one, other = an_expected_container(health_check=CHECK), an_expected_container(health_check=None)
    assert checks_of(ExpectedState(containers=(one,))) == {one.deployment_id: CHECK}
    assert checks_of(ExpectedState(containers=(other,))) == {}
    assert checks_of(None) == {}


def test_a_check_that_is_not_heard_to_end() -> None:
    """L51: an interval, its limit and some seconds after the last; one that was never heard of is waited for."""
    checks = {CHECKED.deployment_id: CHECK} if CHECKED.deployment_id else {}
    assert silent([CHECKED], checks, {CHECKED.id: 100.0}, 112.9) == ()
    assert silent([CHECKED], checks, {CHECKED.id: 100.0}, 113.0) == ((CHECKED.id, 3.0),)
    assert silent([CHECKED], checks, {}, 1000.0) == ()
    assert silent([replace(CHECKED, state="exited")], checks, {CHECKED.id: 0.0}, 1000.0) == ()
