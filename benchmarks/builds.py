"""A container's answers beside builds that take all that they get: the 99th percentile of a request loop, with and without them, in turn.

The builds are real ones in their sandbox, one after the other for as long as the loop asks: steps that fork without end, write without end,
eat memory without end (each is ended at its bound), and eight that compute on two processors. The loop is a process of its own that asks a
hundred times a second, as a server is asked that has room.
"""

import http.client
import multiprocessing
import os
import statistics
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import anyio
from returns.pipeline import is_successful

from benchmarks.figures import Figure
from core import build_source
from core.build_plan import Settings, Stage
from core.build_sandbox import Limits
from shell import log
from shell.building import pipeline
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.workplace import Workplace
from shell.log_choices import LogLevel
from tests.lab.git_server import GitServer
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

_STEPS: Final = {
    "fork without end": "f() { f | f & }; f; sleep 300",
    "write without end": "dd if=/dev/zero of=/big bs=1M count=10000",
    "eat memory without end": "awk 'BEGIN { s = \"x\"; while (1) s = s s }'",
    "compute": "for i in 1 2 3 4 5 6 7; do while :; do :; done & done; while :; do :; done",
}
_LIMITS: Final = Limits(memory_bytes=256 * 2**20, tasks=200, cpu_weight=20, io_weight=20, disk_bytes=300 * 2**20)
_ROUNDS: Final = 3
_WINDOW_S: Final = 10.0
_PAUSE_S: Final = 0.01
_GOAL: Final = 2.0


def main() -> list[Figure]:
    """One ratio for each kind of step."""
    enter_private_network()
    log.set_up(level=LogLevel.ERROR)
    os.environ["BUILDAH_RUNTIME"] = "runc"
    with (
        tempfile.TemporaryDirectory() as name,
        Registry(Path(name) / "registry") as registry,
        PodmanStore(Path(name) / "store") as store,
        GitServer(Path(name) / "git") as git,
    ):
        image = registry.offer("web")
        store.trust_registry(registry.address)
        store.cli("network", "create", "--subnet", store.subnet, "--disable-dns", store.network)
        store.cli("run", "-d", "--network", store.network, "--ip", store.address(2), image)
        wait_for(lambda: _answer_s(store.address(2)) is not None, PATIENCE_S, "the container to answer")
        settings = Settings("podman", insecure_registries=frozenset({registry.address}), store=f"{name}/builds/store")
        workshop = Workshop(Path(name) / "builds", settings, _LIMITS, ("http",))
        return [
            _figure(what, store.address(2), workshop, _job(git, number, f"FROM {image}\nRUN {step}\n", registry))
            for number, (what, step) in enumerate(_STEPS.items())
        ]


def _figure(what: str, address: str, workshop: Workshop, job: Job) -> Figure:
    quiet, beside = [], []
    for _ in range(_ROUNDS):
        quiet.append(_p99_s(address))
        beside.append(anyio.run(_beside, address, workshop, job))
    name = f"p99 of an answer beside builds that {what}"
    return Figure(name, "p99 without them", None, statistics.median(beside), statistics.median(quiet), _GOAL)


async def _beside(address: str, workshop: Workshop, job: Job) -> float:
    begun = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_build_again_and_again, workshop, job, begun)
        await begun.wait()
        found = await anyio.to_thread.run_sync(_p99_s, address)
        tasks.cancel_scope.cancel()
    return found


async def _build_again_and_again(workshop: Workshop, job: Job, begun: anyio.Event) -> None:
    async def stage(entered: Stage) -> None:
        if entered is Stage.BUILDING:
            begun.set()

    try:
        while True:
            with suppress(BuildError):
                await pipeline.build(workshop, job, Listener(stage, lambda line: None))
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(Workplace(workshop.top, job.id).remove)


def _job(git: GitServer, number: int, dockerfile: str, registry: Registry) -> Job:
    commit = git.commit(f"site{number}", {"Dockerfile": dockerfile})
    source = build_source.parse(git.url(f"site{number}"), commit, "main", ("http",))
    assert is_successful(source)
    return Job(f"{number}", source.unwrap(), f"{registry.address}/lab/site:1", "service", {})


def _p99_s(address: str) -> float:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_ask, args=(theirs, address))
    process.start()
    found: list[float] = ours.recv()
    process.join()
    return statistics.quantiles(found, n=100)[-1]


def _ask(pipe: Connection, address: str) -> None:
    found: list[float] = []
    end = time.monotonic() + _WINDOW_S
    while time.monotonic() < end:
        took = _answer_s(address)
        assert took is not None, "a request has failed"
        found.append(took)
        time.sleep(_PAUSE_S)
    pipe.send(found)


def _answer_s(address: str) -> float | None:
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return None
    finally:
        connection.close()
    return time.perf_counter() - begun
