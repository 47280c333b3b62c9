"""Build caches and what builds have left: BuildKit's cache, and the store that Podman's builder has to itself."""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio.to_thread

from shell.adapters import build_tools
from shell.building.pipeline import Workshop
from shell.children import Child, answer
from shell.failure import AdapterError
from shell.log import logger

_LIMIT_S: Final = 300.0
_KEPT_S: Final = 7 * 86_400.0
_STAMP: Final = "store-cleaned"


async def prune(workshop: Workshop, thoroughly: bool, busy: bool) -> None:
    """Drop what is old; everything when `thoroughly`. The builder's own store is left alone while a build goes on."""
    if not await anyio.to_thread.run_sync(workshop.top.is_dir):
        return
    await _prune_buildkit(workshop, thoroughly)
    if not busy and await anyio.to_thread.run_sync(_is_due, workshop, thoroughly):
        await _empty(workshop, Path(workshop.settings.store))


async def drop_working_containers(workshop: Workshop) -> None:
    """Let go of what an interrupted build of Podman's builder has left mounted in its store. No build may go on."""
    store = Path(workshop.settings.store)
    tool = shutil.which("buildah")  # podman itself leaves none
    if tool is None or not await anyio.to_thread.run_sync(store.is_dir):
        return
    argv = (tool, f"--root={store}", f"--runroot={store}-run", "rm", "--all")
    with suppress(AdapterError):
        await answer(Child(argv, workshop.top, {}, _LIMIT_S))


async def _prune_buildkit(workshop: Workshop, thoroughly: bool) -> None:
    if workshop.settings.builder == "podman" or shutil.which("buildctl") is None:
        return
    age = () if thoroughly else (f"--keep-duration={_KEPT_S / 3600:.0f}h",)
    argv = ("buildctl", f"--addr={build_tools.buildkit_address()}", "prune", *age)
    await _run(Child(argv, workshop.top, {}, _LIMIT_S), "BuildKit's cache")


async def _empty(workshop: Workshop, store: Path) -> None:
    tool = shutil.which("buildah") or shutil.which("podman")
    if tool is None:
        return
    argv = (tool, f"--root={store}", f"--runroot={store}-run", "rmi", "--all", "--force")
    await _run(Child(argv, workshop.top, {}, _LIMIT_S), "the builder's store")
    await anyio.to_thread.run_sync((workshop.top / _STAMP).touch)


async def _run(child: Child, what: str) -> None:
    try:
        status, said = await answer(child)
    except AdapterError as error:
        status, said = -1, str(error)
    if status == 0:
        logger().info("build cache pruned", what=what)
    else:
        logger().warning("build cache not pruned", what=what, why=said[-300:], then="tried again in an hour")


def _is_due(workshop: Workshop, thoroughly: bool) -> bool:
    stamp = workshop.top / _STAMP
    if not Path(workshop.settings.store).is_dir():
        return False
    if not stamp.exists():
        stamp.touch()
    return thoroughly or time.time() - stamp.stat().st_mtime > _KEPT_S
