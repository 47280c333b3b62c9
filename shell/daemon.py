"""The running agent: its loops side by side, ended together.

Nothing here waits for the control plane or for one broken component; what is missing is said, and its loop tries again. A first SIGTERM or
Ctrl-C lets the change in hand finish, reports and ends within ten seconds; a second one ends at once.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from core import health, overview, overview_text, state
from core.action import Action
from core.events import Effect, Report
from core.memory import Memory
from core.overview import Exchange
from core.phases import State
from core.render import Json
from core.state import ActualState, ExpectedState, NodeType
from shell import assembly, reloading, resources, service_manager, status_socket, version
from shell.beside import beside_if
from shell.building import log as build_log
from shell.deployment_images import DeploymentImages
from shell.ever_up import EverUp
from shell.expected_state import Expected
from shell.figures import FIGURES
from shell.gather import Gather
from shell.image_fetching import ImageFetching
from shell.image_ledger import ImageLedger
from shell.ledger import Ledger
from shell.log import logger
from shell.loops import builds as build_loop
from shell.loops import events as event_loop
from shell.loops import health as health_loop
from shell.loops import image_gc, watchdog, work_queue
from shell.loops.public_address import PublicAddress
from shell.loops.reconcile import Reconcile, World
from shell.loops.reports import Reports
from shell.loops.watchdog import Pulse
from shell.node import Node
from shell.parts import Part, PartError, Parts, Turned, once
from shell.pausing import PauseFile
from shell.perform import Perform
from shell.state_file import StateFile
from shell.turns import Turns
from shell.watching import Watching

_SYSTEMD = Path("/run/systemd/system")  # where it runs, Podman has its timers run the health checks
_START_LIMIT_S = 300.0
_RECONCILE_LIMIT_S = 600.0  # PROCESSING takes five minutes at most, and then a last look and a report
_LOOP_LIMIT_S = 240.0  # a look and a report, each with its own limit, and the pause between them
_WORK_LIMIT_S = 1200.0  # the whole queue, of which any item may wait for a container to stop
_FLUSH_S = 1.0  # for what is still to be written, when the disk does not hang
STOP_LIMIT_S = 8.0  # for the change in hand and the last report, out of the ten seconds that a stop may take


class Daemon:
    """One node's loops; with a ledger, the work queue is one of them."""

    def __init__(
        self,
        node: Node,
        observe: Callable[[State, tuple[Effect, ...]], None] = lambda state, effects: None,
        ledger: Ledger | None = None,
    ) -> None:
        self.parts = Parts()
        in_force = node.last_good.load()
        left_out = node.components.left_out()
        self._ever_up = EverUp(node.data_dir)
        memory = Memory(
            node_type=node.node_type,
            ever_up=self._ever_up.known,
            in_force=None if in_force is None else state.without(in_force, left_out),
            seed=node.identity.server_id,
            idle_since=time.monotonic(),
        )
        self._clock = time.monotonic
        self._manager = service_manager.of_this_process()
        self._pulse = Pulse(lambda: self._clock())
        self._is_ready = False
        self._node = node
        self._ledger = ledger
        self._began_at_s = time.time()
        self._turns = Turns()
        self._looked_in, self._looked_at_s = self._turns.epoch, 0.0
        self._pause = PauseFile(node.data_dir, time.time)
        self._work: Exchange | None = None
        service = node.public_address if node.public_ip is None else None
        self._address = None if service is None else PublicAddress(service)
        self._builder = assembly.builder(node, self._pause.is_paused, self.parts)
        self._images = ImageLedger(node.data_dir, time.time)
        self._deployment_images = DeploymentImages(node.data_dir, self.parts)
        self._checks_health = not _SYSTEMD.is_dir()
        self._expected = Expected(node)
        self._gather = Gather(node.components, self.parts, node.rules)
        self._logs = assembly.logs(node, self._gather, self._in_force, self.parts) if ledger is not None else None
        self._state_files = self._all_state_files()
        self._firewall = assembly.firewall(node, self._gather, self._in_force, self._turns.lock, self._pause.is_paused)
        self._watching, self._observe = Watching(FIGURES), observe
        self.reconcile = Reconcile(memory, self._observed, self.parts)
        self._reports = Reports(
            send=self._send_report,
            engine=node.components.podman,
            memory=lambda: self.reconcile.state.memory,
            resources=resources.fetch,
            wall_clock=time.time,
            public_ip=self._public_ip,
            beat=lambda: self._pulse.beat("reports", _LOOP_LIMIT_S),
            parts=self.parts,
        )
        for name in sorted(left_out - ({"caddy"} if node.node_type is NodeType.WORKER else set())):
            logger().info("component left alone", component=name, then="not looked at and not changed on this server")

    def _all_state_files(self) -> list[StateFile[Any]]:
        found: list[StateFile[Any]] = [self._ever_up.file, self._images.file, self._deployment_images.file]
        found.append(self._node.last_good.file)
        found += [] if self._ledger is None else [self._ledger.file]
        return found + ([] if self._logs is None else [self._logs.pump.positions.file])

    def _observed(self, state: State, effects: tuple[Effect, ...]) -> None:
        # A change that never ends stops all others: then the watchdog has its turn. One that waits for a work item's end is none.
        if state.memory.unfinished is None or self._turns.is_changing:
            self._pulse.beat("reconcile", _RECONCILE_LIMIT_S)
        self._ever_up.keep(state.memory.ever_up)
        self._watching(state, effects)
        in_force = state.memory.in_force
        if in_force is not None and any(isinstance(one, Report) for one in effects):
            # A report follows from a look that listed all containers.
            self._deployment_images.look(in_force, self._gather.containers)
        if not self._is_ready and any(isinstance(one, Report) for one in effects):
            self._is_ready = True
            self._manager.ready()
        elif not self._is_ready and state.memory.look_failure is not None:
            # Names, routes, the tunnel and builds are at work: no reason to end it.
            self._manager.starting(_START_LIMIT_S)
        self._observe(state, effects)

    async def run(self) -> None:
        """Work until `reconcile.stop`; then end everything."""
        try:
            await self._run()
        finally:
            with anyio.CancelScope(shield=True):
                await self._node.aclose()

    async def _run(self) -> None:
        self._clock = asyncio.get_running_loop().time  # which other threads may ask, too: metrics are read from one
        async with anyio.create_task_group() as shipping:
            if self._logs is not None:
                self.parts.start(shipping, "logs", self._logs.run)
            await self._work_until_stopped()
            if self._logs is not None:  # now that nobody removes a container or says anything more
                await self._logs.end()
            with anyio.move_on_after(_FLUSH_S):
                for file in self._state_files:
                    await file.flush()
            shipping.cancel_scope.cancel()

    async def _work_until_stopped(self) -> None:
        async with anyio.create_task_group() as tasks:
            podman = self._node.components.podman
            fetching = ImageFetching(
                podman,
                self._deployment_images,
                tasks,
                self.reconcile.image_fetched,
                self._turns,
                self._node.image_fetching,
                pulled=self._images.pulled,
                parts=self.parts,
            )
            image_id = self._deployment_images.id_of
            key = self._node.identity.encryption_key
            perform = Perform(self._node.components, image_id, key, self._turns.lock, self._withheld)
            self.parts.start(tasks, "reports", self._reports.run)
            self.parts.start(tasks, "events", partial(event_loop.run, self._ear()))
            for file in self._state_files:
                self.parts.start(tasks, "state files", file.run, file.path.name)
            if (firewall := self._firewall) is not None:
                self.parts.start(tasks, "firewall", firewall.run)
                await firewall.first_turn()
            if self._ledger is not None:
                self._start_beside(tasks, self._ledger, fetching)
            await self.reconcile.run(
                World(
                    fetch=self._expected.fetch,
                    look=self._look,
                    perform=perform,
                    fetch_images=fetching.begin,
                    post=self._reports.post,
                    deliver=self._reports.deliver,
                    remember=self._remember,
                    pause=self._pause.in_force,
                )
            )
            tasks.cancel_scope.cancel()

    def _start_beside(self, tasks: anyio.abc.TaskGroup, ledger: Ledger, fetching: ImageFetching) -> None:
        """Everything that a daemon does beside reconciling."""
        node, start = self._node, partial(self.parts.start, tasks)
        start("work queue", partial(work_queue.run, self._hands(ledger)))
        start(
            "status",
            partial(
                status_socket.run, node.data_dir, self.overview, parts=self.parts, is_large=self.reconcile.has_many
            ),
        )
        start(
            "watchdog",
            partial(watchdog.run, self._manager, self._pulse, self._headline),
        )
        check = health_loop.run if self._checks_health else health_loop.end_overruns
        start("health checks", partial(check, self._ward()))
        if (builder := self._builder) is not None:
            start("builds", partial(build_loop.run, builder))
            start("build logs", lambda turned: build_log.keep_few(builder.logs, turned=turned))
        if node.images is not None:
            broom = assembly.broom(node, self._images, self._in_force, fetching, builder)
            start("image clean-up", partial(image_gc.run, broom))
        if self._address is not None:
            start("public address", self._address.run)

    async def _headline(self) -> str:
        with suppress(PartError), self.parts.contained("status", "headline"):  # the pings go on
            return await beside_if(self.reconcile.has_many(), lambda: overview_text.headline(self.overview()))
        return "its status cannot be told; see the log"

    def overview(self) -> dict[str, Json]:
        """What this agent is doing now, as `agent status` tells it."""
        return overview.document(
            overview.Moment(
                agent=overview.Agent(
                    version=version.number(),
                    pid=os.getpid(),
                    server_id=self._node.identity.server_id,
                    node_type=self._node.node_type.value,
                    control_plane=self._node.control_plane.url,
                    began_at_s=self._began_at_s,
                ),
                state=self.reconcile.state,
                containers=self._gather.containers,
                now=self._clock(),
                wall_now_s=time.time(),
                report=self._reports.last,
                work=self._work,
                shipping=None if self._logs is None else self._logs.pump.figures(),
                kept_images=self._deployment_images.known,
                firewall=None if self._firewall is None else self._firewall.document(),
                builds=() if self._builder is None else tuple(self._builder.now.values()),
                build_warnings=() if self._builder is None else self._builder.warnings,
                failing=self.parts.failing,
            )
        )

    def reload(self) -> None:
        """Take over what may change while the agent runs."""
        self._manager.reloading()
        reloading.reload()
        self._manager.ready()

    def stopping(self) -> None:
        """The service manager hears that this is meant."""
        self._manager.stopping()

    def _in_force(self) -> ExpectedState | None:
        return self.reconcile.state.memory.in_force

    async def _remember(self) -> None:
        in_force = self._in_force()
        if in_force is not None:
            self._images.needed(in_force)
        await self._expected.remember()

    def _public_ip(self) -> str | None:
        return self._node.public_ip or (None if self._address is None else self._address.value)

    async def _withheld(self, action: Action) -> str | None:
        is_paused = await self._pause.is_paused()  # first: what is asked below must hold when the change begins
        if self._looked_in != self._turns.epoch:
            return "a work item has changed this server since it was looked at"
        return "the agent is paused" if is_paused else self.reconcile.withheld(action)

    def _ear(self) -> event_loop.Ear:
        return event_loop.Ear(
            engine=self._node.components.podman,
            containers=lambda: self._gather.containers,
            stir=self._reports.stir,
            looked_at_s=lambda: self._looked_at_s,
            replan=self._replan,
        )

    def _replan(self) -> None:
        if not self._turns.is_changing:  # what a work item does to a container is followed by a poll
            self.reconcile.containers_changed()

    def _heard_of_work(self, failure: str | None) -> None:
        self._work = Exchange(time.time(), failure)

    def _hands(self, ledger: Ledger) -> work_queue.Hands:
        return work_queue.Hands(
            queue=self._node.control_plane,
            engine=self._node.components.podman,
            ledger=ledger,
            turns=self._turns,
            wake=self.reconcile.wake,
            wall_clock=time.time,
            paused=self._pause.is_paused,
            expected=self._expected.deployments,
            heard=self._heard_of_work,
            beat=lambda: self._pulse.beat("work queue", _WORK_LIMIT_S),
            parts=self.parts,
        )

    def _ward(self) -> health_loop.Ward:
        return health_loop.Ward(
            containers=lambda: self._gather.containers,
            checks=lambda: health.checks_of(self.reconcile.state.memory.in_force),
            engine=self._node.components.podman,
            stir=self._reports.stir,
            parts=self.parts,
        )

    async def _look(self) -> ActualState:
        self._looked_in, self._looked_at_s = self._turns.epoch, time.time()
        return await self._gather(self._looked_at_s)

    async def _send_report(self, body: bytes) -> None:
        await self._node.control_plane.post_status(body)


async def run_until_stopped(daemon: Daemon, beside: Mapping[Part, Callable[[], Awaitable[None]]] | None = None) -> None:
    """Run, and stop on SIGTERM or Ctrl-C; what is `beside` is begun at once and ended with the daemon."""
    async with anyio.create_task_group() as tasks:
        for part, one in (beside or {}).items():
            daemon.parts.start(tasks, part, once(one))
        daemon.parts.start(tasks, "signals", partial(_stop_on_signal, daemon, tasks.cancel_scope))
        await daemon.run()
        tasks.cancel_scope.cancel()


async def _stop_on_signal(daemon: Daemon, everything: anyio.CancelScope, turned: Turned) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        asked = False
        turned()
        async for number in signals:
            if number == signal.SIGHUP:
                with suppress(PartError), daemon.parts.contained("signals", "reload"):
                    daemon.reload()
                continue
            if asked:
                logger().warning("stopping at once", signal=signal.Signals(number).name)
                everything.cancel()
                return
            asked = True
            daemon.stopping()
            logger().info("stopping", signal=signal.Signals(number).name, then="the change in hand is finished first")
            everything.deadline = anyio.current_time() + STOP_LIMIT_S
            await daemon.reconcile.stop()
