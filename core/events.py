"""What the state machine hears (events) and what it asks for (effects). Both are closed unions of small frozen values."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from core.action import Action
from core.containers import DeploymentId
from core.fetching import ImageRequest
from core.pause import Pause
from core.state import ActualState, ExpectedState
from core.status import Entry


@dataclass(frozen=True, slots=True)
class Applied:
    """The action did what it should."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The action failed; why, on one line."""

    why: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """The action was not begun, since something came between its choice and its turn; it is no failure of the action's."""

    why: str


Outcome: TypeAlias = Applied | Failed | Withheld


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Woken:
    """Something says that the expected state has changed, or that a look is worth while.

    `removed` are deployments that a work item has just taken off this server: an older snapshot must not bring them back.
    """

    removed: frozenset[DeploymentId] = frozenset()


@dataclass(frozen=True, slots=True)
class ContainersChanged:
    """A container of ours has ended or is gone, since the last look began: the server is to be looked at soon."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The agent is to end: finish the change in hand, report, and no more."""


@dataclass(frozen=True, slots=True)
class PauseSeen:
    """Somebody has paused the agent, or the pause has ended (None)."""

    pause: Pause | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The expected state has come."""

    expected: ExpectedState


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The expected state could not be had, or was refused whole."""

    why: str


@dataclass(frozen=True, slots=True)
class Looked:
    """The actual state has been gathered."""

    actual: ActualState


@dataclass(frozen=True, slots=True)
class LookFailed:
    """The containers could not be listed. `beside` is what else was seen, with no containers in it; None when that is not known either."""

    why: str
    beside: ActualState | None = None


@dataclass(frozen=True, slots=True)
class ActionDone:
    """The action that was to be performed has ended."""

    action: Action
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ImageFetched:
    """A request for an image has been answered; `failure` is None when the image is here."""

    request: ImageRequest
    failure: str | None


@dataclass(frozen=True, slots=True)
class Reported:
    """The last report of a round has been delivered, or could not be."""


Event: TypeAlias = (
    Tick
    | Woken
    | ContainersChanged
    | StopAsked
    | PauseSeen
    | Fetched
    | FetchFailed
    | Looked
    | LookFailed
    | ActionDone
    | ImageFetched
    | Reported
)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the control plane for the expected state; answer with Fetched or FetchFailed."""


@dataclass(frozen=True, slots=True)
class Look:
    """Gather the actual state; answer with Looked or LookFailed."""


@dataclass(frozen=True, slots=True)
class Perform:
    """Carry out one action; answer with ActionDone. `expected` is the snapshot it was chosen from."""

    action: Action
    expected: ExpectedState


@dataclass(frozen=True, slots=True)
class FetchImages:
    """Have these images here, in this order, several at a time; answer each with ImageFetched."""

    requests: tuple[ImageRequest, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Send a status report; a later one replaces an earlier one that has not gone out. Answer with Reported when `final`."""

    entries: tuple[Entry, ...]
    final: bool = False


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep the expected state that was fetched last on disk: it is in force now."""


@dataclass(frozen=True, slots=True)
class Note:
    """Say something to the person who runs this server."""

    level: Literal["debug", "info", "warning", "error"]
    event: str
    facts: tuple[tuple[str, str | int | float], ...] = ()
    deployment_id: DeploymentId | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more will be done; the loop may end."""


Effect: TypeAlias = Fetch | Look | Perform | FetchImages | Report | Remember | Note | Finish
