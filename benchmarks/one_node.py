"""One node without a network to its control plane: the agent's own loop on a real Podman, with a document that stays the same."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from core import state
from core.action import Action
from core.events import Effect, Outcome
from core.memory import Memory
from core.phases import Closing, State, Waiting
from core.render import Json
from core.state import ExpectedState, NodeType
from shell import resources
from shell.adapters.podman import Podman, PodmanSettings
from shell.components import Components
from shell.deployment_images import DeploymentImages
from shell.gather import Gather
from shell.image_fetching import FetchSettings, ImageFetching
from shell.loops.reconcile import Reconcile, World
from shell.loops.reports import Reports
from shell.perform import Perform
from shell.turns import Turns
from tests.lab.podman_store import PodmanStore


def podman_on(store: PodmanStore, expected: ExpectedState) -> Podman:
    """The adapter, as an agent of this store has it; the registries of this document have no TLS."""
    volumes_dir = Path(store.directory) / "volumes"
    insecure = frozenset(one.image.registry for one in expected.containers)
    return Podman(PodmanSettings(store.socket_path, store.subnet_id, volumes_dir, insecure_registries=insecure))


def expected_document(subnet_id: int, reference: str, containers: int, checked: int = 0) -> ExpectedState:
    """So many containers of one image, the first ones with a health check."""
    return expected_of_images(subnet_id, [reference] * containers, checked)


def expected_of_images(subnet_id: int, references: Sequence[str], checked: int = 0) -> ExpectedState:
    """A container of each image, the first ones with a health check."""
    check: Json = {"cmd": "test -e /www/health", "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 1}
    entries: list[Json] = [
        {
            "deploymentId": f"deployment-{i:04}",
            "serviceId": "service",
            "serviceName": "Benchmark",
            "name": f"service-{i:04}",
            "image": references[i],
            "ipAddress": f"10.200.{subnet_id}.{i + 2}",
            "ports": [],
            "env": {},
            "healthCheck": check if i < checked else None,
            "volumes": [],
        }
        for i in range(len(references))
    ]
    empty: dict[str, Json] = {"dns": {"records": []}, "caddy": {"routes": []}, "wireguard": {"peers": []}}
    return state.parse_expected(json.dumps({"containers": entries, **empty}).encode(), subnet_id).unwrap()


async def converge_once(store: PodmanStore, expected: ExpectedState, applied: Callable[[], None] = lambda: None) -> int:
    """Run the agent's loop until a look after a change finds nothing left to do; the number of containers that run then.

    `applied` is called after each change. (The last report is not waited for: reports keep a second between each other.)
    """
    podman = podman_on(store, expected)
    components = Components(podman)
    at_rest = anyio.Event()

    def observe(now: State, effects: tuple[Effect, ...]) -> None:
        looked = isinstance(now.phase, Waiting) or (isinstance(now.phase, Closing) and now.phase.looked)
        if looked and now.memory.in_force is not None and not now.memory.drift:
            at_rest.set()

    reconcile = Reconcile(Memory(NodeType.WORKER), observe)

    async def fetch() -> ExpectedState:
        return expected

    async def send(body: bytes) -> None:
        assert body

    async def remember() -> None:
        return None

    gather = Gather(components)
    reports = Reports(send, podman, lambda: reconcile.state.memory, resources.fetch, time.time)
    async with anyio.create_task_group() as tasks:
        kept, turns = DeploymentImages(Path(store.directory)), Turns()
        fetching = ImageFetching(podman, kept, tasks, reconcile.image_fetched, turns, FetchSettings())
        perform = Perform(components, kept.id_of, None, turns.lock)
        tasks.start_soon(reports.run)

        async def change(action: Action) -> Outcome:
            outcome = await perform(action)
            applied()
            return outcome

        world = World(
            fetch, lambda: gather(time.time()), change, fetching.begin, reports.post, reports.deliver, remember
        )
        tasks.start_soon(reconcile.run, world)
        await at_rest.wait()
        tasks.cancel_scope.cancel()
    running = [one for one in await podman.containers(time.time()) if one.state == "running"]
    await podman.aclose()
    return len(running)
