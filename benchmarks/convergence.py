"""Convergence of missing containers of one local image, beside a plain loop of `podman run -d` for the same number; one redeploy.

Both run on the same Podman store in the same run, one after the other, three times in turn (two for the most); the medians are compared.
The agent's side is the whole of it: the state machine, a look after each change, reports to a control plane that takes them.
"""

import http.client
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import anyio

from benchmarks.figures import Figure
from benchmarks.one_node import converge_once, expected_document
from shell import log
from shell.log_choices import LogLevel
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network
from tests.lab.registry import Registry

SIZES: Final = (10, 50)
_ROUNDS: Final = 3
_GOAL: Final = 1.0
_MARGIN_S: Final = 0.3
_ASK_EVERY_S: Final = 0.005
_REDEPLOYS: Final = 2


def main() -> list[Figure]:
    """0 → N, and the downtime of a redeploy as a client sees it."""
    enter_private_network()
    log.set_up(level=LogLevel.WARNING)
    return [*(_converged(size) for size in SIZES), _redeployed()]


def _converged(size: int) -> Figure:
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder, PodmanStore(Path(folder) / "s") as store:
        reference = store.load(image("web"))
        for _ in range(_ROUNDS if size < max(SIZES) else 2):
            theirs.append(_loop_s(store, reference, size))
            _clear(store)
            ours.append(_agent_s(store, reference, size))
            _clear(store)
    goal = _GOAL if size == max(SIZES) else None
    return Figure(
        f"convergence 0 → {size}",
        "loop of podman run -d",
        size,
        statistics.median(ours),
        statistics.median(theirs),
        goal,
    )


def _loop_s(store: PodmanStore, reference: str, size: int) -> float:
    """The loop runs inside the store's machine, so that nothing but Podman itself is measured."""
    store.cli("network", "create", "--subnet", store.subnet, "--disable-dns", store.network)
    each = f"podman run -d --name loop-$i --network {store.network} --ip 10.200.{store.subnet_id}.$((i+1)) {reference} >/dev/null"
    begun = time.perf_counter()
    store.run(("sh", "-ec", f"for i in $(seq 1 {size}); do {each}; done"), timeout_s=240)
    return time.perf_counter() - begun


def _agent_s(store: PodmanStore, reference: str, size: int) -> float:
    document = expected_document(store.subnet_id, reference, size)
    begun = time.perf_counter()
    running = anyio.run(converge_once, store, document)
    assert running == size
    return time.perf_counter() - begun


def _redeployed() -> Figure:
    """What a client misses while an image that is not here yet replaces another, to a stop and a start of the same container."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder) / "registry") as registry:
        first = registry.offer("web", "v1")
        for _ in range(_REDEPLOYS):
            with PodmanStore(Path(folder) / "s") as store:
                store.trust_registry(registry.address)
                address = store.address(2)
                assert anyio.run(converge_once, store, expected_document(store.subnet_id, first, 1)) == 1
                name = store.cli("ps", "--format", "{{.Names}}").strip()
                with _Client(address) as client:
                    begun = time.perf_counter()
                    store.cli("stop", name)
                    store.cli("start", name)
                    theirs.append(time.perf_counter() - begun)
                    client.until("v1")
                    client.longest_s = 0.0
                    second = expected_document(store.subnet_id, registry.offer("web", "v2"), 1)
                    assert anyio.run(converge_once, store, second) == 1
                    client.until("v2")
                ours.append(client.longest_s)
    return Figure(
        "downtime of a redeploy, its pull included",
        f"stop + start + {_MARGIN_S:g} s",
        1,
        statistics.median(ours),
        statistics.median(theirs) + _MARGIN_S,
        _GOAL,
    )


class _Client:
    """Asks all the time; `longest_s` is the longest time between two answers."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest_s = 0.0
        self.last = ""

    def until(self, page: str) -> None:
        """Returns once this is the answer."""
        deadline = time.monotonic() + 30
        while self.last != page:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._address} answers {self.last!r}, not {page!r}")
            time.sleep(_ASK_EVERY_S)

    def _run(self) -> None:
        answered_at = time.perf_counter()
        while not self._done.wait(_ASK_EVERY_S):
            connection = http.client.HTTPConnection(self._address, timeout=0.2)
            try:
                connection.request("GET", "/")
                self.last = connection.getresponse().read().decode().strip()
            except (OSError, http.client.HTTPException):  # also one that is cut off in its answer
                continue
            finally:
                connection.close()
            now = time.perf_counter()
            self.longest_s, answered_at = max(self.longest_s, now - answered_at), now

    def __enter__(self) -> "_Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _clear(store: PodmanStore) -> None:
    store.cli("rm", "-af", "-t", "0")
    store.cli("network", "rm", "-f", store.network)
