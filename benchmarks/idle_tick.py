"""One idle tick on real Podman: processor time of the agent and of Podman's service together, beside what a script would do.

The script is one `podman ps --format json` and one `podman inspect` for each container. Half of the containers have a health check.
"""

import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio
import psutil

from benchmarks.figures import Figure
from benchmarks.one_node import converge_once, expected_document, podman_on
from benchmarks.states import as_served
from core import plan, status
from core.state import ExpectedState, NodeType
from shell import log
from shell.adapters.podman import Podman
from shell.log_choices import LogLevel
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network

SIZES: Final = (10, 50)
FULL_SIZES: Final = (10, 50, 200)
_GOALS_AT: Final = 50
_GOAL: Final = 1 / 20
_TICKS: Final = 20
_SCRIPTS: Final = 3
_TIMES: Final = re.compile(r"(\d+)m([\d.]+)s")


def main(*, full: bool = False) -> list[Figure]:
    """Processor time and wall time of a tick, in multiples of the script's."""
    enter_private_network()
    log.set_up(level=LogLevel.WARNING)
    found: list[Figure] = []
    for size in FULL_SIZES if full else SIZES:
        with tempfile.TemporaryDirectory() as folder, PodmanStore(Path(folder) / "s") as store:
            found += _measure(store, size)
    return found


def _measure(store: PodmanStore, size: int) -> list[Figure]:
    expected = expected_document(store.subnet_id, store.load(image("health")), size, checked=size // 2)
    assert anyio.run(converge_once, store, expected) == size
    ours_cpu_s, ours_wall_s = anyio.run(_ticks, store, expected)
    scripts = [_script(store, size) for _ in range(_SCRIPTS)]
    cpu_s, wall_s = (statistics.median(column) for column in zip(*scripts, strict=True))
    unit = "podman ps + inspect each"
    return [
        Figure("idle tick on Podman, processor", unit, size, ours_cpu_s, cpu_s, _GOAL if size == _GOALS_AT else None),
        Figure("idle tick on Podman, wall time", unit, size, ours_wall_s, wall_s),
    ]


async def _ticks(store: PodmanStore, expected: ExpectedState) -> tuple[float, float]:
    """Mean processor and wall time of a tick, after a first one that nobody counts."""
    podman = podman_on(store, expected)
    service = _service(store)
    await _tick(podman, expected)
    begun, cpu_s = time.perf_counter(), time.process_time() + _clock(service)
    for _ in range(_TICKS):
        await _tick(podman, expected)
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() + _clock(service) - cpu_s
    await podman.aclose()
    return cpu_s / _TICKS, wall_s / _TICKS


async def _tick(podman: Podman, expected: ExpectedState) -> None:
    there = await podman.containers(time.time())
    assert plan.outstanding(expected, as_served(expected, there), NodeType.WORKER) == ()
    entries = status.entries(there, status.now_up(there, frozenset()), {})
    assert status.encode(entries, None, None)


def _script(store: PodmanStore, size: int) -> tuple[float, float]:
    """Processor and wall time; the shell adds up what its children took."""
    each = (
        'podman ps --all --format json >/dev/null; for id in $(podman ps -q); do podman inspect "$id" >/dev/null; done'
    )
    begun = time.perf_counter()
    said = store.run(("sh", "-ec", f"{each}; times"), timeout_s=120)
    wall_s = time.perf_counter() - begun
    children = said.strip().splitlines()[-1]
    assert size == len(store.cli("ps", "-q").split())
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in _TIMES.findall(children)), wall_s


def _service(store: PodmanStore) -> int:
    """The process id of the store's API service."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if words[:3] == ["podman", "system", "service"] and store.socket_url in words:
            return int(process.info["pid"])
    raise RuntimeError("the store has no service")


def _clock(pid: int) -> float:
    """A process's own clock: its processor time in seconds."""
    return time.clock_gettime((~pid << 3) | 2)
