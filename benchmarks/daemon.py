"""The idle daemon: a worker with all of its components and 50 containers, as `agent run` in a process of its own."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from benchmarks.figures import Figure
from tests.lab.fleet import Fleet, Node
from tests.lab.private_network import enter_private_network

CONTAINERS: Final = 50
_WINDOW_S: Final = 40
_FULL_WINDOW_S: Final = 300
_SETTLE_S: Final = 12  # after the last container has come up: reports, first looks, imports that come late
_MEMORY_GOAL_MIB: Final = 64
_PROCESSOR_GOAL: Final = 0.003
_MIB: Final = 1024**2


def main(*, full: bool = False) -> list[Figure]:
    """Resident memory to a MiB, processor time to wall time."""
    enter_private_network()
    window_s = _FULL_WINDOW_S if full else _WINDOW_S
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder) / "f", workers=1, proxies=0) as fleet:
        reference = fleet.registry.offer("web")
        fleet.want({"web": {"image": reference, "replicas": CONTAINERS, "servers": ["worker-1"]}})
        fleet.until_running(CONTAINERS, timeout_s=120)
        process = _agent(fleet.node("worker-1"))
        time.sleep(_SETTLE_S)
        begun, before_s = time.monotonic(), _processor_s(process)
        time.sleep(window_s)
        took_s, used_s = time.monotonic() - begun, _processor_s(process) - before_s
        resident = process.memory_info().rss / _MIB
        assert process.is_running() and len(fleet.plane.lab("deployments")) == CONTAINERS
    return [
        Figure("idle daemon: resident memory", "MiB", CONTAINERS, resident, 1, _MEMORY_GOAL_MIB),
        Figure(f"idle daemon: processor over {window_s} s", "one core", CONTAINERS, used_s, took_s, _PROCESSOR_GOAL),
    ]


def _agent(node: Node) -> psutil.Process:
    """The agent's process: the one with its data directory among its words."""
    wanted = str(node.data_dir)
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if wanted in words and "--url" in words and process.info["pid"] != os.getpid() and "nsenter" not in words[0]:
            return process
    raise RuntimeError(f"no agent with {wanted} runs")


def _processor_s(process: psutil.Process) -> float:
    """By the process's own clock (clock_getcpuclockid): the times that `ps` shows are sampled at the ticks at which sleepers wake."""
    return time.clock_gettime((~process.pid << 3) | 2)
