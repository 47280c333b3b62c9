"""L57: a running daemon with every part of it, one of which meets exceptions that nobody foresaw, and then works again."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from core import machine, overview_text
from core.build_plan import Settings
from core.build_sandbox import NO_LIMITS
from core.containers import ContainerId, DeploymentId
from shell import assembly, files, reloading, service_manager
from shell import daemon as daemon_module
from shell.adapters.firewall import Seen
from shell.building import log as build_log
from shell.building.pipeline import Workshop
from shell.daemon import Daemon, run_until_stopped
from shell.figures import FIGURES
from shell.ledger import Ledger
from shell.log import _tapped as log_tap
from shell.log import tap
from shell.logs.own import OwnLog
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops import builds, image_gc
from shell.loops.logs import Logs
from shell.parts import METRIC, PARTS, Part, PartError, Parts
from tests.builders import an_actual_container
from tests.shell import virtual_time
from tests.shell.scenery import Making, Plane, Scenery, wanting
from tests.shell.test_parts import foreign

BROKEN_S: Final = 130.0  # longer than it takes until every part but the image clean-up has had its first turn
WELL_S: Final = 200.0
LONGEST_SILENCE_S: Final = 30.0


class Busy(Plane):
    """A control plane that also has a work queue."""

    async def fetch_work(self) -> bytes:
        """Nothing to do."""
        await anyio.lowlevel.checkpoint()
        if "work" in self.scripts:
            await self.scripts["work"]()
        return b'{"items": []}'


class Manager:
    """A service manager that takes everything."""

    is_there = True
    watchdog_s = 30.0

    def alive(self) -> None:
        """A ping."""

    def status(self, text: str) -> None:
        """In words."""

    ready = stopping = reloading = alive

    def starting(self, seconds: float) -> None:
        """Not ready yet."""


class Store:
    """A log store that takes everything."""

    async def send(self, body: bytes) -> None:
        """Taken."""
        await anyio.lowlevel.checkpoint()

    async def instance(self) -> int | None:
        """It does not tell."""
        await anyio.lowlevel.checkpoint()
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


class Address:
    """A service that knows the server's address."""

    async def fetch(self) -> str:
        """It never changes."""
        await anyio.lowlevel.checkpoint()
        return "198.51.100.7"


class Open:
    """A firewall in which nothing is missing and nothing is in the way."""

    async def fetch(self, *, runs: bool, publishes: bool) -> Seen:
        """It never changes."""
        await anyio.lowlevel.checkpoint()
        return Seen(None, (), ())


@dataclass
class Bench:
    """One daemon, and the exception that one of its parts raises while `is_broken`."""

    folder: Path
    patch: pytest.MonkeyPatch
    error: Exception
    is_broken: bool = True
    raised: int = 0
    scenery: Scenery = field(init=False)
    beside: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scenery = Scenery(self.folder, wanting("a"))
        self.scenery.plane = Busy(self.scenery.plane.document)

    async def script(self) -> None:
        """Raises, or does nothing."""
        await anyio.lowlevel.checkpoint()
        self.call()

    def call(self, *_: Any, **__: Any) -> Any:
        """The same without waiting."""
        if self.is_broken:
            self.raised += 1
            raise self.error
        return None

    def before(self, owner: Any, name: str) -> None:
        """Have a function of the agent raise first."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.call()
            return original(*args, **kwargs)

        self.patch.setattr(owner, name, wrapped)


async def _built_nothing(*_: object) -> bool:
    await anyio.lowlevel.checkpoint()
    return False


async def _cleaned_nothing(*_: object) -> None:
    await anyio.lowlevel.checkpoint()


def _of_podman(name: str) -> Callable[[Bench], None]:
    return lambda bench: bench.scenery.stage.podman.scripts.update({name: bench.script})


def _of_the_plane(name: str) -> Callable[[Bench], None]:
    return lambda bench: bench.scenery.plane.scripts.update({name: bench.script})


def _before(owner: object, name: str) -> Callable[[Bench], None]:
    return lambda bench: bench.before(owner, name)


def _beside(part: str) -> Callable[[Bench], None]:
    return lambda bench: bench.beside.update({part: bench.script})


BREAKS: Final[dict[str, Callable[[Bench], None]]] = {
    "state machine": _before(machine, "step"),
    "expected state": _of_the_plane("fetch"),
    "inspection": lambda bench: bench.scenery.stage.dns.scripts.update(fetch=bench.script),
    "changes": _of_podman("create_and_start"),
    "pulls": _of_podman("pull"),
    "reports": _of_the_plane("report"),
    "events": _of_podman("watch"),
    "work queue": _of_the_plane("work"),
    "health checks": _before(Making, "check_health"),
    "builds": _before(builds, "_once"),
    "build logs": _before(build_log, "tidy"),
    "image clean-up": _before(image_gc, "once"),
    "logs": _before(Logs, "_discover"),
    "log sender": _before(Sender, "run"),
    "own log": _before(OwnLog, "heard"),
    "public address": _before(Address, "fetch"),
    "firewall": _before(Open, "fetch"),
    "state files": _before(files, "write_atomic"),
    "status": _before(overview_text, "headline"),
    "watchdog": _before(Manager, "alive"),
    "metrics": _beside("metrics"),
    "examination": _beside("examination"),
    "signals": _before(reloading, "reload"),
}


def test_every_part_is_broken_here() -> None:
    """A new one has to say how."""
    assert tuple(BREAKS) == PARTS


def a_daemon(bench: Bench) -> Daemon:
    """One with everything that a daemon may have, on stand-ins."""
    folder, patch = bench.folder, bench.patch
    patch.setattr(daemon_module, "_SYSTEMD", folder / "nowhere")
    patch.setattr(service_manager, "of_this_process", Manager)
    ill = an_actual_container(id=ContainerId("h"), name="h", deployment_id=DeploymentId("h"), health="starting")
    bench.scenery.stage.podman.there["h"] = ill
    bench.scenery.document["containers"].append(
        wanting("h")["containers"][0]
        | {
            "ipAddress": "10.200.3.77",
            "healthCheck": {"cmd": "true", "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 0},
        }
    )
    bench.scenery.change(bench.scenery.document)
    own = OwnLog("server")

    def logs(*args: Any) -> Logs:
        spool = Spool(folder / "logs" / "spool", 1024**2)
        pump = Pump(Sender(Store(), spool), Positions(folder / "logs" / "positions.json"), own.take, parts=args[-1])
        tap(assembly.heard(own, args[-1]))
        return Logs(pump, bench.scenery.stage.podman, lambda: (), None, lambda: ())  # type: ignore[arg-type]

    patch.setattr(assembly, "logs", logs)
    node = replace(
        bench.scenery.node,
        workshop=Workshop(folder / "builds", Settings(), NO_LIMITS),
        images=object(),  # type: ignore[arg-type]
        firewall=Open(),  # type: ignore[arg-type]
        public_address=Address(),
    )
    return Daemon(node, ledger=Ledger(folder))


@pytest.mark.parametrize("part", BREAKS)
def test_a_part_that_fails_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """The daemon lives, reports and polls go on; one line with the trace, counted, in the status; its recovery is logged once."""
    bench = Bench(tmp_path, monkeypatch, foreign(PARTS.index(part)))
    monkeypatch.setattr(builds, "_once", _built_nothing)
    monkeypatch.setattr(image_gc, "once", _cleaned_nothing)
    BREAKS[part](bench)
    late_s = image_gc.FIRST_S if part == "image clean-up" else 0.0
    broken_s, well_s = BROKEN_S + late_s, WELL_S + late_s
    counted = FIGURES.counts[METRIC, (("part", part),)]

    async def main() -> None:
        daemon = a_daemon(bench)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_until_stopped, daemon, bench.beside)
            await anyio.sleep(broken_s / 2)
            os.kill(os.getpid(), signal.SIGHUP)
            await anyio.sleep(broken_s / 2)
            assert {one.part for one in daemon.parts.failing} == {part}
            assert part in str(daemon.overview()["failing"])
            bench.is_broken = False
            await anyio.sleep(well_s / 2)
            os.kill(os.getpid(), signal.SIGHUP)
            await anyio.sleep(well_s / 2)
            assert daemon.parts.failing == ()
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with capture_logs(processors=[log_tap]) as said:
            virtual_time.run(main)
    finally:
        tap(None)
    assert FIGURES.counts[METRIC, (("part", part),)] - counted == bench.raised > 0
    failed = [(one["part"], one["about"]) for one in said if one["event"] == "part failed"]
    assert len(set(failed)) == len(failed) and {name for name, _ in failed} == {part}
    assert all("in call" in one["trace"] for one in said if one["event"] == "part failed")
    recovered = [(one["part"], one["about"]) for one in said if one["event"] == "part works again"]
    assert sorted(recovered, key=str) == sorted(failed, key=str)
    times = [0.0, *(when for when, _ in bench.scenery.plane.reports), broken_s + well_s]
    silences = [later - sooner for sooner, later in pairwise(times) if part != "reports" or later > broken_s + 60]
    assert max(silences) <= LONGEST_SILENCE_S
    names = {one.name for one in bench.scenery.stage.podman.there.values()}
    assert names == {"a", "h"}, "in the end everything is as it should be"


def test_a_headline_that_fails_beside_the_loop_is_noted_on_it() -> None:
    """A large one is found in a thread, which changes nothing that the loop looks at."""
    noted: list[bool] = []

    class Watched(Parts):
        def _failed(self, part: Part, about: str, error: Exception) -> PartError:
            noted.append(threading.current_thread() is threading.main_thread())
            return super()._failed(part, about, error)

    def overview() -> Any:
        assert threading.current_thread() is not threading.main_thread()
        raise ValueError

    async def main() -> None:
        many = SimpleNamespace(has_many=lambda: True)
        daemon = cast("Daemon", SimpleNamespace(parts=Watched(), reconcile=many, overview=overview))
        assert "see the log" in await Daemon._headline(daemon)

    with capture_logs():
        anyio.run(main)
    assert noted == [True]
