"""Build caches: BuildKit's own, and for each service the store of its images that Podman's builder has to itself."""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio.to_thread

from shell.adapters import build_tools
from shell.building.pipeline import Workshop
from shell.building.workplace import remove_folder
from shell.children import Child, answer
from shell.failure import AdapterError
from shell.log import logger

_LIMIT_S: Final = 300.0
_KEPT_S: Final = 7 * 86_400.0


async def prune(workshop: Workshop, thoroughly: bool) -> None:
    """Drop what nothing has used for a week; everything when `thoroughly`. A store that is in use stays."""
    if not await anyio.to_thread.run_sync(workshop.top.is_dir):
        return
    await _prune_buildkit(workshop, thoroughly)
    for store in await anyio.to_thread.run_sync(_idle, workshop, 0.0 if thoroughly else _KEPT_S):
        workshop.stores.add(store)  # no build takes it from here on
        try:
            await anyio.to_thread.run_sync(remove_folder, store)
        finally:
            workshop.stores.discard(store)
        logger().info("build cache pruned", what="the images of a service's builds")


async def _prune_buildkit(workshop: Workshop, thoroughly: bool) -> None:
    if workshop.settings.builder == "podman" or shutil.which("buildctl") is None:
        return
    age = () if thoroughly else (f"--keep-duration={_KEPT_S / 3600:.0f}h",)
    argv = ("buildctl", f"--addr={build_tools.buildkit_address()}", "prune", *age)
    try:
        status, said = await answer(Child(argv, workshop.top, {}, _LIMIT_S))
    except AdapterError as error:
        status, said = -1, str(error)
    if status == 0:
        logger().info("build cache pruned", what="BuildKit's cache")
    else:
        logger().warning(
            "build cache not pruned", what="BuildKit's cache", why=said[-300:], then="tried again in an hour"
        )


def _idle(workshop: Workshop, kept_s: float) -> list[Path]:
    """The stores that no build uses and none has for so long; a build writes the folder's time."""
    found = []
    for path in Path(workshop.settings.store).glob("*"):
        with suppress(OSError):
            if path not in workshop.stores and time.time() - path.stat().st_mtime >= kept_s:
                found.append(path)
    return found
