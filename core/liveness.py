"""What Podman does not see by itself: a container whose process is gone while it says `running`, and a stop that does not end.

Both are shown as states that Podman has no word for, neither startable nor running, so that the planner replaces the container. A stop
under way (`stopping`) is waited for: whoever began it, a person or this agent, has given the process time to write its data away.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import structs

from core.containers import ActualContainer, ContainerId
from core.podman import is_half_removed

GONE: Final = "process_gone"
OVERDUE: Final = "stop_overdue"
STOPPING: Final = "stopping"
REMOVING: Final = "removing"

# What a person told `podman stop` stands nowhere but in that command, which ends the process itself when the time is up. While such a
# command runs it is waited for; the bound is for one that hangs. It is longer than what data bases ask for (two minutes at most).
COMMAND_LIMIT_S: Final = 600.0
# With nobody left who would end it (Podman's service was killed in the middle), the stop began before it was seen. This is what
# orchestrators give by default, and thrice Podman's own.
LEFT_LIMIT_S: Final = 30.0
_NOBODY: Final[Mapping[ContainerId, float]] = MappingProxyType({})


class Stops(msgspec.Struct, frozen=True):
    """The stops that are under way: when each was first seen, and for those that this agent began, when the process is to be ended."""

    seen_at: Mapping[ContainerId, float] = _NOBODY
    own_until: Mapping[ContainerId, float] = _NOBODY

    def begun(self, container_id: ContainerId, until: float) -> "Stops":
        """This agent has begun a stop, which is over at `until`."""
        return structs.replace(self, own_until={**self.own_until, container_id: until})

    def after_listing(self, containers: Iterable[ActualContainer], now: float) -> "Stops":
        """With what a listing says; what is not stopping any more is forgotten.

        A stop of the agent's own may not show yet; once its time is over it never will, since its request has failed. A later stop by
        somebody else must not count as that one.
        """
        stopping = [one.id for one in containers if one.state == STOPPING]
        if not stopping and not self.seen_at and not self.own_until:
            return self
        there = {one.id for one in containers}
        return Stops(
            {one: self.seen_at.get(one, now) for one in stopping},
            {one: until for one, until in self.own_until.items() if one in stopping or (one in there and until > now)},
        )

    def left_s(self, container_id: ContainerId, now: float, own_limit_s: float, commanded: bool) -> float:
        """Seconds for which a stop is still waited for; not above zero when it is overdue.

        `own_limit_s` is the container's own stop time-out; `commanded` says that a person's command which stops containers runs.
        """
        until = self.own_until.get(container_id)
        if until is not None:
            return until - now
        limit_s = COMMAND_LIMIT_S if commanded else min(max(own_limit_s, LEFT_LIMIT_S), COMMAND_LIMIT_S)
        return self.seen_at.get(container_id, now) + limit_s - now


def marked(
    containers: tuple[ActualContainer, ...], gone: frozenset[ContainerId], overdue: frozenset[ContainerId]
) -> tuple[ActualContainer, ...]:
    """The same containers, with these states for those whose process is gone, whose stop is overdue, or whose removal has begun."""
    if not gone and not overdue and not any(is_half_removed(one.name) for one in containers):
        return containers
    return tuple(_marked(one, gone, overdue) for one in containers)


def _marked(one: ActualContainer, gone: frozenset[ContainerId], overdue: frozenset[ContainerId]) -> ActualContainer:
    if is_half_removed(one.name):
        return structs.replace(one, state=REMOVING)
    if one.id in gone:
        return structs.replace(one, state=GONE)
    return structs.replace(one, state=OVERDUE) if one.id in overdue else one
