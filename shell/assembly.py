"""Puts together what the daemon's loops work with, from the node's parts."""

import time
from collections.abc import Callable

import psutil

from core.state import ExpectedState
from shell.building import caches
from shell.image_ledger import ImageLedger
from shell.loops.builds import Builder
from shell.loops.image_gc import Broom
from shell.node import Node
from shell.pulls import Pulls


def builder(node: Node, paused: Callable[[], bool]) -> Builder | None:
    """What builds here; None on a node that builds nothing."""
    if node.workshop is None:
        return None
    return Builder(
        desk=node.control_plane,
        workshop=node.workshop,
        logs=node.workshop.top / "logs",
        encryption_key=node.identity.encryption_key,
        wall_clock=time.time,
        paused=paused,
        concurrency=node.build_concurrency,
    )


def broom(
    node: Node, ledger: ImageLedger, expected: Callable[[], ExpectedState | None], pulls: Pulls, builds: Builder | None
) -> Broom:
    """What keeps this server's disk from filling up."""
    assert node.images is not None

    async def prune(thoroughly: bool) -> None:
        if builds is not None:
            await caches.prune(builds.workshop, thoroughly, busy=bool(builds.now))

    return Broom(
        images=node.images,
        ledger=ledger,
        expected=expected,
        pulling=pulls.under_way,
        wall_clock=time.time,
        percent_used=lambda folder: psutil.disk_usage(folder).percent,
        prune_builds=prune,
        high_percent=node.image_gc_high,
    )
