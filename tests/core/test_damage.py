"""`core.damage`: what is replaced since it can never be started."""

import pytest

from core.containers import ContainerId
from core.damage import STATE, Damage
from tests.builders import CONTAINER, an_actual_container

ID = ContainerId(CONTAINER)


def shown(damage: Damage, state: str) -> str:
    """What its state is taken for."""
    (one,) = damage.shown((an_actual_container(state=state),))
    return one.state


@pytest.mark.parametrize("state", ["created", "exited"])
def test_the_second_refusal_running_counts(state: str) -> None:
    """One alone is no proof: replacing loses what was written outside the volumes."""
    once = Damage().refused(ID, state)
    assert shown(once, state) == state
    assert shown(once.refused(ID, state), state) == STATE


def test_one_that_runs_never_counts() -> None:
    """Whatever Podman says of it, and whenever it has come to run."""
    assert Damage().refused(ID, "running").refused(ID, "running") == Damage()
    assert shown(Damage().refused(ID, "exited").refused(ID, "exited"), "running") == "running"


def test_a_look_that_works_clears_it() -> None:
    """Two refusals with a good look between them are not two running."""
    once = Damage().refused(ID, "exited").cleared(ID)
    assert once == Damage()
    assert shown(once.refused(ID, "exited"), "exited") == "exited"


def test_others_and_those_that_are_gone() -> None:
    """Each by itself; nothing is kept of what is not there."""
    twice = Damage().refused(ID, "exited").refused(ID, "exited").refused(ContainerId("other"), "exited")
    assert twice.among([ContainerId("other")]) == Damage(frozenset({ContainerId("other")}))
    assert twice.among([ID]).certain == {ID}
