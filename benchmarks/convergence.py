"""Convergence of 20 missing containers of one local image, beside a plain loop of `podman run -d` for the same 20.

Both run on the same Podman store in the same run, one after the other, three times in turn; the medians are compared. The agent's side is
the whole of it: the state machine, a look after each change, reports to a control plane that takes them.
"""

import statistics
import tempfile
import time
from pathlib import Path

import anyio

from benchmarks.one_node import converge_once, expected_document
from shell import log
from shell.log_choices import LogLevel
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network

CONTAINERS = 20
_ROUNDS = 3
_GOAL = 1.0


def main() -> bool:
    """Print both times and their ratio; True when the agent is no slower than the loop."""
    enter_private_network()
    log.set_up(level=LogLevel.WARNING)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder, PodmanStore(Path(folder) / "s") as store:
        reference = store.load(image("web"))
        for _ in range(_ROUNDS):
            theirs.append(_loop_s(store, reference))
            _clear(store)
            ours.append(_agent_s(store, reference))
            _clear(store)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"{CONTAINERS} containers: agent {statistics.median(ours):.2f} s, loop of podman run -d {statistics.median(theirs):.2f} s, "
    )
    print(f"ratio {ratio:.2f} (goal: at most {_GOAL}): {'met' if ratio <= _GOAL else 'MISSED'}")
    return ratio <= _GOAL


def _loop_s(store: PodmanStore, reference: str) -> float:
    """The loop runs inside the store's machine, so that nothing but Podman itself is measured."""
    store.cli("network", "create", "--subnet", store.subnet, "--disable-dns", store.network)
    each = f"podman run -d --name loop-$i --network {store.network} --ip 10.200.{store.subnet_id}.$((i+1)) {reference} >/dev/null"
    begun = time.perf_counter()
    store.run(("sh", "-ec", f"for i in $(seq 1 {CONTAINERS}); do {each}; done"), timeout_s=120)
    return time.perf_counter() - begun


def _agent_s(store: PodmanStore, reference: str) -> float:
    document = expected_document(store.subnet_id, reference, CONTAINERS)
    begun = time.perf_counter()
    running = anyio.run(converge_once, store, document)
    assert running == CONTAINERS
    return time.perf_counter() - begun


def _clear(store: PodmanStore) -> None:
    store.cli("rm", "-af", "-t", "0")
    store.cli("network", "rm", "-f", store.network)
