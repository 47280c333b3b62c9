"""Puts together what the daemon's loops work with, from the node's parts."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import psutil

from core.caddy import Route
from core.state import ExpectedState
from shell import state_file
from shell.adapters.podman import Podman
from shell.building import caches
from shell.building.pipeline import Workshop
from shell.gather import Gather
from shell.image_fetching import ImageFetching
from shell.image_ledger import ImageLedger
from shell.log import tap
from shell.logs.own import OwnLog
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops.builds import Builder
from shell.loops.firewall import FirewallLoop, Ports
from shell.loops.image_gc import Broom
from shell.loops.logs import Logs
from shell.node import Node
from shell.parts import PartError, Parts


def builder(node: Node, paused: Callable[[], Awaitable[bool]], parts: Parts) -> Builder | None:
    """What builds here; None on a node that builds nothing."""
    if node.workshop is None:
        return None
    return Builder(
        desk=node.control_plane,
        workshop=node.workshop,
        logs=build_logs(node.workshop),
        encryption_key=node.identity.encryption_key,
        wall_clock=time.time,
        paused=paused,
        concurrency=node.build_concurrency,
        parts=parts,
    )


def build_logs(workshop: Workshop) -> Path:
    """The folder of the builds' logs."""
    return workshop.top / "logs"


def logs(node: Node, gather: Gather, in_force: Callable[[], ExpectedState | None], parts: Parts) -> Logs | None:
    """What ships this node's logs; None without a log store."""
    podman = node.components.podman
    if node.log_store is None or not isinstance(podman, Podman):
        return None
    folder = node.data_dir / "logs"
    state_file.make_folder(folder)
    own = OwnLog(node.identity.server_id)
    pump = Pump(
        Sender(node.log_store, Spool(folder / "spool", node.log_spool_bytes), node.log_settle_s),
        Positions(folder / "positions.json"),
        own.take,
        parts=parts,
    )
    tap(heard(own, parts))

    def routes() -> tuple[Route, ...]:
        expected = in_force()
        return () if expected is None else expected.caddy

    builds = None if node.workshop is None else build_logs(node.workshop)
    made = Logs(pump, podman, lambda: gather.containers, node.access_log, routes, builds)
    podman.before_removal = made.farewell
    return made


def heard(own: OwnLog, parts: Parts) -> Callable[[Mapping[str, Any]], None]:
    """What listens to the agent's own events; whoever logs does not hear of its failures."""

    def hear(event: Mapping[str, Any]) -> None:
        with suppress(PartError), parts.contained("own log"):
            own.heard(event)

    return hear


def firewall(
    node: Node,
    gather: Gather,
    in_force: Callable[[], ExpectedState | None],
    lock: anyio.Lock,
    is_paused: Callable[[], Awaitable[bool]],
) -> FirewallLoop | None:
    """What keeps the containers' traffic passing this server's firewall; None on a node without one."""
    if node.firewall is None:
        return None
    return FirewallLoop(
        Ports(
            firewall=node.firewall,
            containers=lambda: gather.containers,
            list_containers=lambda: node.components.podman.containers(time.time()),
            expected=in_force,
            lock=lock,
            is_paused=is_paused,
        )
    )


def broom(
    node: Node,
    ledger: ImageLedger,
    expected: Callable[[], ExpectedState | None],
    fetching: ImageFetching,
    builds: Builder | None,
) -> Broom:
    """What keeps this server's disk from filling up."""
    assert node.images is not None

    async def prune(thoroughly: bool) -> None:
        if builds is not None:
            await caches.prune(builds.workshop, thoroughly)

    return Broom(
        images=node.images,
        ledger=ledger,
        expected=expected,
        pulling=fetching.under_way,
        kept=fetching.kept_ids,
        wall_clock=time.time,
        percent_used=lambda folder: psutil.disk_usage(folder).percent,
        prune_builds=prune,
        high_percent=node.image_gc_high,
    )
