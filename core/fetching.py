"""Which images the outstanding changes need, which of them are here, and which are on their way.

A deployment is one image for ever, so images are fetched for a deployment and not for a name: its first start asks the registry what its
reference stands for, and everything later uses that. A change that needs an image is not begun before the image is here. An image whose
container failed to start twice is verified before the next attempt, since a power cut can damage what Podman still calls complete.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from core import retry
from core.action import Action, Deploy, Redeploy, Start, StopOrphan
from core.containers import DeploymentId
from core.image import Image
from core.retry import Retries, RetryKey
from core.state import ExpectedState

DOUBTED_AFTER: Final = 2  # failed starts of one deployment until its image is verified


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """The image of one deployment is needed; `verify`: whatever is here of it has to be read and compared with what was fetched."""

    deployment_id: DeploymentId
    image: Image
    verify: bool = False

    @property
    def key(self) -> RetryKey:
        """Under which failed attempts to fetch it are remembered."""
        return (retry.FETCH_IMAGE, self.deployment_id, str(self.image))


@dataclass(frozen=True, slots=True)
class Images:
    """What is known of the images that changes wait for.

    `on_the_way` have been asked for and not answered; `here` were answered with success and not used since; `verified` are deployments
    whose image was found undamaged since their last start that lasted.
    """

    on_the_way: Mapping[DeploymentId, ImageRequest] = field(default_factory=dict)
    here: Mapping[DeploymentId, Image] = field(default_factory=dict)
    verified: frozenset[DeploymentId] = frozenset()

    def needs(
        self, action: Action, expected: ExpectedState, doubted: frozenset[DeploymentId]
    ) -> tuple[ImageRequest, ...]:
        """What is to be here before this change may begin, and is not; `doubted` are the deployments whose images may be damaged."""
        return tuple(
            one for one in self._needs(action, expected, doubted) if self.here.get(one.deployment_id) != one.image
        )

    def are_on_the_way(self, needed: Iterable[ImageRequest]) -> bool:
        """Whether one of these has been asked for and not answered."""
        return any(one.deployment_id in self.on_the_way for one in needed)

    def asked(self, requests: Iterable[ImageRequest]) -> "Images":
        """After these have been asked for."""
        return Images({**self.on_the_way, **{one.deployment_id: one for one in requests}}, self.here, self.verified)

    def answered(self, request: ImageRequest, *, is_here: bool) -> "Images":
        """After one has been answered."""
        rest = {key: one for key, one in self.on_the_way.items() if key != request.deployment_id}
        if not is_here:
            return Images(rest, self.here, self.verified)
        verified = self.verified | {request.deployment_id} if request.verify else self.verified
        return Images(rest, {**self.here, request.deployment_id: request.image}, verified)

    def after(self, action: Action) -> "Images":
        """After an attempt at a change that starts a container: the next attempt asks again."""
        key = deployment_of(action)
        if key is None or key not in self.here:
            return self
        return Images(self.on_the_way, {one: image for one, image in self.here.items() if one != key}, self.verified)

    def among(self, needed: Iterable[DeploymentId], retries: Retries) -> "Images":
        """Without those that no outstanding change needs any more."""
        if not (self.on_the_way or self.here or self.verified):
            return self
        wanted = frozenset(needed)
        return Images(
            {key: one for key, one in self.on_the_way.items() if key in wanted},
            {key: one for key, one in self.here.items() if key in wanted},
            self.verified & doubted(retries),
        )

    def _needs(
        self, action: Action, expected: ExpectedState, doubted: frozenset[DeploymentId]
    ) -> Iterator[ImageRequest]:
        def verify(key: DeploymentId) -> bool:
            return key in doubted and key not in self.verified

        match action:
            case StopOrphan(successors=successors):
                for one in successors:
                    yield ImageRequest(one.deployment_id, one.image, verify(one.deployment_id))
            case Deploy(container=made) | Redeploy(container=made):
                yield ImageRequest(made.deployment_id, made.image, verify(made.deployment_id))
            case Start(deployment_id=key) if verify(key):
                yield ImageRequest(key, expected.images[key], True)
            case _:
                pass


def deployment_of(action: Action) -> DeploymentId | None:
    """The deployment whose container the change starts; None when it starts none."""
    match action:
        case Deploy(container=made) | Redeploy(container=made):
            return made.deployment_id
        case Start(deployment_id=key):
            return key
        case _:
            return None


def needed_by(drift: Iterable[Action]) -> Iterator[DeploymentId]:
    """The deployments whose images the outstanding changes may need."""
    for action in drift:
        if isinstance(action, StopOrphan):
            yield from (one.deployment_id for one in action.successors)
        elif (key := deployment_of(action)) is not None:
            yield key


def doubted(retries: Retries) -> frozenset[DeploymentId]:
    """The deployments whose containers have failed to start again and again, perhaps since their image is damaged."""
    return frozenset(key for key, count in retry.starts(retries).items() if count >= DOUBTED_AFTER)
