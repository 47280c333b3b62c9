"""The image of each deployment, on disk: kept before its first container is made, gone with the deployment."""

from pathlib import Path
from typing import Final

import anyio.lowlevel
import msgspec

from core import deployment_images
from core.containers import ActualContainer, DeploymentId
from core.deployment_images import KeptImage
from core.image import Image
from core.state import ExpectedState
from shell.failure import AdapterError
from shell.parts import Parts
from shell.state_file import StateFile, json_format

NAME: Final = "deployment-images.json"
VERSION: Final = 1


class _File(msgspec.Struct, frozen=True):
    version: int
    images: dict[DeploymentId, KeptImage]


_FORMAT: Final = json_format(
    _File,
    "images of deployments",
    lost="the image of a deployment without a container is asked for again",
    unwritten="a deployment that is lost before then may come back with a newer image",
    version=VERSION,
)


class DeploymentImages:
    """What is kept. `file.run` writes what `look` has changed."""

    def __init__(self, data_dir: Path, parts: Parts | None = None) -> None:
        self._parts = Parts() if parts is None else parts
        self.file = StateFile(data_dir / NAME, _FORMAT)
        found = self.file.load()
        self._looked_at: tuple[ExpectedState, frozenset[DeploymentId | None]] | None = None
        self.known: dict[DeploymentId, KeptImage] = (
            {} if found is None else found.images
        )  # another one with each change
        self._new: dict[DeploymentId, KeptImage] = {}

    def of(self, deployment_id: DeploymentId, wanted: Image) -> KeptImage | None:
        """The image of a deployment; None before its first start."""
        return deployment_images.kept_for(self.known, deployment_id, wanted)

    def id_of(self, deployment_id: DeploymentId, wanted: Image) -> str:
        """The id of a deployment's image. Raises AdapterError before its first fetch."""
        found = self.of(deployment_id, wanted)
        if found is None:
            raise AdapterError(
                "images", f"use image {wanted}", "it has not been fetched for this deployment", "fetched first"
            )
        return found.id

    async def keep(self, deployment_id: DeploymentId, one: KeptImage) -> None:
        """Returns once it is on the disk. Raises AdapterError: a deployment whose image is not kept must not begin."""
        self._new[deployment_id] = one
        await anyio.lowlevel.checkpoint()
        if self._new:  # one copy for all that are kept together: hundreds may wait for one image
            self.known, self._new = {**self.known, **self._new}, {}
        try:
            with self._parts.contained("state files", NAME, (OSError,)):
                await self.file.save(_File(VERSION, self.known))
        except OSError as error:
            self.known = {key: kept for key, kept in self.known.items() if kept is not one}
            self.file.put(_File(VERSION, self.known))
            what = f"keep the image of deployment {deployment_id} in {self.file.path}"
            raise AdapterError("agent", what, error.strerror or str(error), "tried again") from error

    def look(self, expected: ExpectedState, there: tuple[ActualContainer, ...]) -> None:
        """After a look at the server that listed all containers. Costs next to nothing while the same deployments are wanted and seen."""
        seen = frozenset(one.deployment_id for one in there)
        if self._looked_at is not None and expected is self._looked_at[0] and seen == self._looked_at[1]:
            return
        self._looked_at = expected, seen
        after = deployment_images.after_look(self.known, expected, there)
        if after != self.known:
            self.known = after
            self.file.put(_File(VERSION, after))
