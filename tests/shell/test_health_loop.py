"""`shell.loops.health`: checks that are run, and checks of others that overrun."""

from collections.abc import Awaitable, Callable

import anyio

from core.containers import HealthCheck
from shell.loops import health
from shell.loops.health import Ward
from tests.builders import an_actual_container
from tests.shell import virtual_time
from tests.shell.stand_ins import Podman, failing, taking

ONE = an_actual_container(health="starting")
CHECK = HealthCheck("true", interval_s=10, timeout_s=5, retries=3, start_period_s=0)


def during(seconds: float, loop: Callable[[Ward], Awaitable[None]], engine: Podman) -> list[float]:
    """When somebody was told to look while the loop ran for so long."""
    stirred: list[float] = []
    checks = {} if ONE.deployment_id is None else {ONE.deployment_id: CHECK}
    engine.there[ONE.id] = ONE
    ward = Ward(lambda: (ONE,), lambda: checks, engine, lambda: stirred.append(anyio.current_time()))

    async def main() -> None:
        with anyio.move_on_after(seconds):
            await loop(ward)

    virtual_time.run(main)
    return stirred


def test_news_of_a_check_is_told() -> None:
    """L30, L51: a result that was not known, and a check that did not end well; each at its interval."""
    assert during(25, health.run, Podman()) == [0.0, 10.0, 20.0]
    assert during(15, health.run, Podman(scripts={"check_health": failing("check", "it overran")})) == [0.0, 10.0]


def test_no_second_check_beside_one() -> None:
    """L51: one that takes longer than its interval has its turn to itself."""
    assert during(40, health.run, Podman(scripts={"check_health": taking(15.25)})) == [15.25, 30.75]


def test_checks_of_others_are_left_alone_while_they_end() -> None:
    """L51: nobody is asked as long as Podman says that they end; and then once for each turn that one may have had."""
    quiet = Podman()
    quiet.checks_ended[ONE.id] = 1e9
    during(100, health.end_overruns, quiet)
    assert quiet.journal == []
    silent = Podman()
    during(45, health.end_overruns, silent)
    assert silent.journal == [("end_overrun_check", ONE.id, 5.0)] * 2
