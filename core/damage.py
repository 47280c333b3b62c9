"""When a container counts as damaged: Podman lists it, and cannot look into it, so that it can never be started.

A power cut can do that to files of Podman's own. What counts as damaged is made anew, which loses what the container wrote outside its
volumes; so one refusal is not enough, and one that runs never counts, whatever Podman says of it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import structs

from core.containers import ActualContainer, ContainerId

STATE: Final = "damaged"  # Podman has no word for it; neither startable nor running, so the planner replaces it
_RUNNING: Final = "running"


class Damage(msgspec.Struct, frozen=True):
    """The containers that could not be looked into once when they were to be started, and those that could not twice running."""

    suspected: frozenset[ContainerId] = frozenset()
    certain: frozenset[ContainerId] = frozenset()

    def refused(self, container_id: ContainerId, state: str) -> "Damage":
        """After an attempt to start it at which Podman could not look into it."""
        if state == _RUNNING:
            return self
        if container_id in self.suspected:
            return Damage(self.suspected, self.certain | {container_id})
        return Damage(self.suspected | {container_id}, self.certain)

    def cleared(self, container_id: ContainerId) -> "Damage":
        """After it could be looked into: what was suspected before does not count any more."""
        if container_id not in self.suspected:
            return self
        return Damage(self.suspected - {container_id}, self.certain - {container_id})

    def among(self, there: Iterable[ContainerId]) -> "Damage":
        """Without those that are gone."""
        if not self.suspected:
            return self
        ids = frozenset(there)
        return Damage(self.suspected & ids, self.certain & ids)

    def shown(self, containers: tuple[ActualContainer, ...]) -> tuple[ActualContainer, ...]:
        """The same containers, with this state for those that are certainly damaged."""
        if not self.certain:
            return containers
        return tuple(self._shown(one) for one in containers)

    def _shown(self, one: ActualContainer) -> ActualContainer:
        return structs.replace(one, state=STATE) if one.id in self.certain and one.state != _RUNNING else one
