"""Health checks: on hosts without systemd they are run here, each at its own interval, none holding up another; where systemd's timers run
them, those that overrun are ended here, since Podman ends none.

The containers are those of the last look; nothing is listed here. What a check has found is reported at once when it is news.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio

from core import health
from core.containers import ActualContainer, ContainerId, DeploymentId, HealthCheck
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.log import logger
from shell.parts import Parts, Turned, no_turn

_TICK_S: Final = 0.5
_NOTHING_TO_CHECK_S: Final = 1.0  # a container that has a check is found so late at most
_LISTEN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Ward:
    """What this loop looks after: the containers last seen, the checks in force, the engine, and whom to tell of news."""

    containers: Callable[[], tuple[ActualContainer, ...]]
    checks: Callable[[], Mapping[DeploymentId, HealthCheck]]
    engine: ContainerEngine
    stir: Callable[[], None]
    parts: Parts = field(default_factory=Parts)


async def run(ward: Ward, turned: Turned = no_turn) -> None:
    """Run every check when it is due."""
    last_run_at: dict[ContainerId, float] = {}
    running: set[ContainerId] = set()

    async def check(one: ActualContainer, limit_s: float) -> None:
        try:
            found = await ward.engine.check_health(one.id, limit_s)
            if found != one.health:
                ward.stir()
        except AdapterError as error:
            ward.stir()  # one that overran its limit has failed, and is answered with an error
            logger().debug("health check not run", container=one.name, why=str(error))
        finally:
            running.discard(one.id)

    async with anyio.create_task_group() as tasks:
        while True:
            now = anyio.current_time()
            seen = {one.id: one for one in health.checked(ward.containers())}
            for container_id, limit_s in health.due(seen.values(), ward.checks(), last_run_at, now) if seen else ():
                if container_id not in running:
                    running.add(container_id)
                    last_run_at[container_id] = now
                    one = seen[container_id]
                    ward.parts.spawn(tasks, "health checks", partial(check, one, limit_s), one.name)
            for gone in last_run_at.keys() - seen.keys():
                del last_run_at[gone]
            turned()
            await anyio.sleep(_TICK_S if seen else _NOTHING_TO_CHECK_S)


async def end_overruns(ward: Ward, turned: Turned = no_turn) -> None:
    """End the checks that somebody else runs and that overrun their limit. Nobody is asked while checks are heard to end in time."""
    asked_at: dict[ContainerId, float] = {}
    while True:
        now = anyio.current_time()
        seen = {one.id: one for one in health.checked(ward.containers())}
        asked_at = {one: asked_at.get(one, now) for one in seen}
        heard_at = {one: max(at, ward.engine.check_ended_at(one)) for one, at in asked_at.items()}
        for container_id, limit_s in health.silent(seen.values(), ward.checks(), heard_at, now) if seen else ():
            asked_at[container_id] = now
            name = seen[container_id].name
            try:
                with ward.parts.contained("health checks", name):
                    await ward.engine.end_overrun_check(container_id, limit_s)
            except AdapterError as error:
                logger().debug("health check not ended", container=name, why=str(error))
        turned()
        await anyio.sleep(_LISTEN_S)
