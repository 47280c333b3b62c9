"""Ten services with ten different images that are not here yet, beside a loop of `podman run -d` for the same, from a slow registry.

Both run in the same run, on a new store each time, twice in turn. The line is limited for all connections together, as that of a server is,
and once for each connection, as registries do it. Compared are the times until all run and until the first one does.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio

from benchmarks.figures import Figure
from benchmarks.one_node import converge_once, expected_of_images
from shell import log
from shell.log_choices import LogLevel
from tests.lab.images import custom_image
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network
from tests.lab.registry import Registry
from tests.lab.relay import Relay

_SERVICES: Final = 10
_IMAGE_BYTES: Final = 30 * 2**20
_LINE_BYTES_PER_S: Final = 20 * 2**20
_ROUNDS: Final = 2
_ALL_GOAL: Final = 0.75
_ALL_GOAL_ON_ONE_LINE: Final = 0.9  # 300 MiB take 15 s on it whoever fetches them, and the loop takes 20 s
_FIRST_GOAL: Final = 1.1
_SERVE: Final = ("sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait")


def main() -> list[Figure]:
    """0 → 10 running, and the first of them, for both kinds of limit."""
    enter_private_network()
    log.set_up(level=LogLevel.WARNING)
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder) / "registry") as registry:
        names = [registry.push(custom_image(f"heavy{n}", "v1", _SERVE, _IMAGE_BYTES + n)) for n in range(_SERVICES)]
        with Relay((registry.host, registry.port)) as relay:
            references = [name.replace(registry.address, relay.address) for name in names]
            return [
                figure
                for together in (True, False)
                for figure in _compared(Path(folder), relay, references, together=together)
            ]


def _compared(folder: Path, relay: Relay, references: list[str], *, together: bool) -> list[Figure]:
    relay.flow(_LINE_BYTES_PER_S, together=together)
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        with PodmanStore(folder / "store") as store:
            store.trust_registry(relay.address)
            theirs.append(_loop_s(store, references))
        with PodmanStore(folder / "store") as store:
            store.trust_registry(relay.address)
            ours.append(_agent_s(store, references))
    line = "one line for all" if together else "each connection by itself"
    return [
        Figure(
            f"10 new images of 30 MiB at 20 MiB/s ({line}), {what}",
            "loop of podman run -d",
            _SERVICES,
            statistics.median(one[index] for one in ours),
            statistics.median(one[index] for one in theirs),
            goal,
        )
        for index, (what, goal) in enumerate(
            (("first", _FIRST_GOAL), ("all", _ALL_GOAL_ON_ONE_LINE if together else _ALL_GOAL))
        )
    ]


def _loop_s(store: PodmanStore, references: list[str]) -> tuple[float, float]:
    """Seconds until the first runs, and all; the loop runs inside the store's machine."""
    store.cli("network", "create", "--subnet", store.subnet, "--disable-dns", store.network)
    one = f"podman run -d --network {store.network} --ip 10.200.{store.subnet_id}.$((i+=1)) $image >/dev/null"
    script = f"i=1; for image in {' '.join(references)}; do {one}; date +%s.%N; done"
    begun = time.time()
    ended = [float(line) - begun for line in store.run(("sh", "-ec", script), timeout_s=240).split()]
    return ended[0], ended[-1]


def _agent_s(store: PodmanStore, references: list[str]) -> tuple[float, float]:
    """Seconds until the first runs, and all."""
    document = expected_of_images(store.subnet_id, references)
    begun = time.perf_counter()
    ended: list[float] = []
    running = anyio.run(converge_once, store, document, lambda: ended.append(time.perf_counter() - begun))
    assert running == _SERVICES
    return ended[0], ended[-1]
