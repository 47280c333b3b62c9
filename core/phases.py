"""The states and phases that the machine is in, as values; `core.machine` goes from one to the next."""

import math
from dataclasses import dataclass
from typing import TypeAlias

from core.action import Action
from core.containers import DeploymentId
from core.memory import DEADLINE_S, Ending, Memory
from core.state import ExpectedState


@dataclass(frozen=True, slots=True)
class Waiting:
    """Until the next poll; before that a look, for the reasons that `next_look` has."""

    poll_at: float
    look_at: float | None = None


@dataclass(frozen=True, slots=True)
class Fetching:
    """The expected state has been asked for; `removed` are the deployments that work items had taken away before."""

    removed: frozenset[DeploymentId] = frozenset()


@dataclass(frozen=True, slots=True)
class Looking:
    """The server is being looked at, to compare it with `expected`; None: only to report.

    `removed` are the deployments that this state no longer has, since work items had taken them away before it was asked for.
    """

    expected: ExpectedState | None
    fresh: bool = False
    removed: frozenset[DeploymentId] = frozenset()


@dataclass(frozen=True, slots=True)
class Idle:
    """No change is being made."""

    memory: Memory
    phase: Waiting | Fetching | Looking


@dataclass(frozen=True, slots=True)
class LookingAgain:
    """After a change, before the next."""


@dataclass(frozen=True, slots=True)
class Changing:
    """One action is being performed."""

    action: Action


@dataclass(frozen=True, slots=True)
class AwaitingImages:
    """Nothing can be done until an image has come, at the longest `until`."""

    until: float


@dataclass(frozen=True, slots=True)
class Closing:
    """The last look and the last report of this round; `looked` tells which of the two is awaited.

    `look_at`: when to look next should no poll come first, as in `Waiting`; at once when a change failed and others remain.
    """

    ending: Ending
    looked: bool = False
    look_at: float | None = None


@dataclass(frozen=True, slots=True)
class Processing:
    """Working on a snapshot since `began_at`.

    `asked_at` is when this round first asked for images, `image_at` when one of them last came.
    """

    memory: Memory
    snapshot: ExpectedState
    began_at: float
    phase: LookingAgain | Changing | AwaitingImages | Closing
    asked_at: float = -math.inf
    image_at: float = -math.inf


State: TypeAlias = Idle | Processing


def wake_at(state: State) -> float | None:
    """When a Tick is due if nothing else happens before; None when an answer is awaited that comes by itself."""
    match state:
        case Idle(phase=Waiting(poll_at=poll_at, look_at=look_at)):
            return poll_at if look_at is None else min(poll_at, look_at)
        case Processing(phase=Changing(), began_at=began_at):
            return began_at + DEADLINE_S
        case Processing(phase=AwaitingImages(until=until)):
            return until
        case _:
            return None
