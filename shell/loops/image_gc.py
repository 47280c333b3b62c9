"""Room on the disk: hourly, images and build caches that nothing needs any more go, by age, and sooner when the disk is nearly full.

Decisions are the core's; a removal that fails is said, and tried again the next time.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import anyio

from core import image_gc
from core.image_gc import Store
from core.state import ExpectedState
from shell.failure import AdapterError
from shell.image_ledger import ImageLedger
from shell.log import logger
from shell.parts import Turned, no_turn

EVERY_S: Final = 3600.0
FIRST_S: Final = 300.0  # not while the server comes up


class ImageStore(Protocol):
    """What this loop asks of Podman. Every call may raise AdapterError."""

    async def store(self) -> Store:
        """What is there, and what containers use."""

    async def folder(self) -> str:
        """Where the images lie."""

    async def remove(self, reference: str) -> None:
        """Take an image's name away."""


@dataclass(frozen=True, slots=True)
class Broom:
    """What the loop cleans with. `expected` is None while nothing is known, and then nothing is removed.

    `pulling` are the references on their way, `kept` the ids of the images that deployments are; `percent_used` says how full a folder's
    disk is; `prune_builds` cleans build caches, thoroughly when told that the disk is full.
    """

    images: ImageStore
    ledger: ImageLedger
    expected: Callable[[], ExpectedState | None]
    pulling: Callable[[], frozenset[str]]
    kept: Callable[[], frozenset[str]]
    wall_clock: Callable[[], float]
    percent_used: Callable[[str], float]
    prune_builds: Callable[[bool], Awaitable[None]]
    high_percent: int


async def run(broom: Broom, turned: Turned = no_turn) -> None:
    """Clean now and then, for ever."""
    await anyio.sleep(FIRST_S)
    while True:
        try:
            await once(broom)
        except (AdapterError, OSError) as error:
            logger().warning("images not cleaned", why=str(error), then="tried again in an hour")
        turned()
        await anyio.sleep(EVERY_S)


async def once(broom: Broom) -> None:
    """Clean. Raises AdapterError when it cannot be told what is there."""
    expected = broom.expected()
    if expected is None:
        return
    folder = await broom.images.folder()
    store = await broom.images.store()
    store = replace(store, used=store.used | broom.kept())
    broom.ledger.needed(expected)
    broom.ledger.present(store)
    wanted = frozenset(str(one.image) for one in expected.containers) | broom.pulling()
    for is_full in (False, True):
        if is_full and broom.percent_used(folder) < broom.high_percent:
            break
        await broom.prune_builds(is_full)
        for name in image_gc.rubbish(broom.ledger.entries, store, wanted, broom.wall_clock(), is_full=is_full):
            if is_full and broom.percent_used(folder) < broom.high_percent:
                break
            await _remove(broom, name, "the disk is nearly full" if is_full else "unused for seven days")
    broom.ledger.present(await broom.images.store())


async def _remove(broom: Broom, name: str, why: str) -> None:
    try:
        await broom.images.remove(name)
    except AdapterError as error:
        logger().warning("image not removed", image=name, why=str(error), then="tried again in an hour")
    else:
        logger().info("image removed", image=name, why=why, source="image clean-up")
