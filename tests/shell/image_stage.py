"""A stage for `shell.image_fetching`: an engine, what is kept on disk, and the answers."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from core.containers import DeploymentId
from core.deployment_images import KeptImage
from core.fetching import ImageRequest
from core.image import Image
from shell.deployment_images import DeploymentImages
from shell.image_fetching import FetchSettings, ImageFetching
from shell.turns import Turns
from tests.shell import virtual_time
from tests.shell.stand_ins import Podman

SHA = "sha256:" + "d" * 64
ALWAYS = FetchSettings()


class Stage:
    """An engine, what is kept on disk, and the answers in the order in which they came."""

    def __init__(self, folder: Path, settings: FetchSettings) -> None:
        self.podman = Podman()
        self.images = self.podman.images
        self.kept = DeploymentImages(folder)
        self.settings = settings
        self.turns = Turns()
        self.answers: list[tuple[str, str | None, float]] = []
        self.ledger: list[str] = []
        self.fetching: ImageFetching

    async def heard(self, request: ImageRequest, failure: str | None) -> None:
        """Write it down."""
        self.answers.append((request.deployment_id, failure, anyio.current_time()))

    def ask(self, *wanted: tuple[str, Image], verify: bool = False) -> None:
        """Ask for the images of these deployments together."""
        self.fetching.begin(tuple(ImageRequest(DeploymentId(key), image, verify) for key, image in wanted))

    def keep(self, key: str, image: Image, image_id: str, digest: str | None = SHA) -> None:
        """Have an image kept for a deployment."""
        self.kept.known[DeploymentId(key)] = KeptImage(str(image), image_id, digest)

    @property
    def pulled(self) -> list[str]:
        """What registries were asked for."""
        return [entry[1] for entry in self.podman.journal if entry[0] == "pull"]

    @property
    def failures(self) -> dict[str, str | None]:
        """The last answer for each deployment."""
        return {key: failure for key, failure, _ in self.answers}


Scene = Callable[[Stage], Awaitable[None]]


def play(folder: Path, scene: Scene, settings: FetchSettings = ALWAYS) -> Stage:
    """Run a scene on virtual time; what has not ended by its end is cancelled."""
    stage = Stage(folder, settings)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            stage.fetching = ImageFetching(
                stage.podman,
                stage.kept,
                tasks,
                stage.heard,
                stage.turns,
                settings,
                lambda one, _: stage.ledger.append(str(one)),
            )
            await scene(stage)
            tasks.cancel_scope.cancel()

    virtual_time.run(main)
    return stage
