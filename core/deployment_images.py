"""Which image each deployment of this server is, from its first start on.

A reference can come to mean another image; a deployment never does. What its reference stood for when it was first started is kept, and
every later start, repair or re-creation uses exactly that image, also when the tag has moved or no registry answers.
"""

from collections.abc import Iterable, Mapping

import msgspec

from core import containers
from core.containers import ActualContainer, DeploymentId
from core.image import Image
from core.state import ExpectedState


class StoredImage(msgspec.Struct, frozen=True):
    """An image in the engine's store: its id, and the digest (`sha256:…`) by which a registry has it, if it came from one."""

    id: str
    digest: str | None = None


class KeptImage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The image of one deployment: what was asked for (the complete reference), its id, and its digest as far as it is known.

    `is_unasked`: it was here under that name, and no registry was asked whether the name still means it.
    """

    reference: str
    id: str
    digest: str | None = None
    is_unasked: bool = False


Kept = Mapping[DeploymentId, KeptImage]


def kept_for(kept: Kept, deployment_id: DeploymentId, wanted: Image) -> KeptImage | None:
    """The image of a deployment; None before its first start, and when its service's image has been changed since."""
    found = kept.get(deployment_id)
    return found if found is not None and found.reference == str(wanted) else None


def after_look(kept: Kept, expected: ExpectedState, there: Iterable[ActualContainer]) -> dict[DeploymentId, KeptImage]:
    """What is to be kept after a look at the server: without deployments that are gone, with those whose image is seen and not known.

    That is the case after an upgrade from an agent that kept nothing, and after the file was lost.
    """
    seen = {one.deployment_id: one for one in there if one.deployment_id is not None}
    wanted = {one.deployment_id: one for one in expected.containers}
    stays = wanted.keys() | seen.keys() | expected.held.containers
    after = {key: one for key, one in kept.items() if key in stays}
    for key, want in wanted.items():
        one = seen.get(key)
        is_known = kept_for(after, key, want.image) is not None
        if one is not None and one.image_id and not is_known and containers.image_matches(want, one):
            after[key] = KeptImage(str(want.image), one.image_id, want.image.digest)
    return after
