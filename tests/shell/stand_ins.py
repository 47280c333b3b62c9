"""Recording stand-ins of the outside components: they check what they are given, keep it, and answer as the test says.

They share one journal, so that the order of calls to different components can be seen.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio

from core.caddy import Route
from core.containers import ActualContainer, ContainerId, DeploymentId, ExpectedContainer
from core.deployment_images import StoredImage
from core.dns import Record
from core.image import Image
from core.podman_events import ContainerEvent
from core.podman_images import ImageUser
from core.state import ActualState
from core.wireguard import Peer
from shell.components import Components
from shell.failure import AdapterError

T = TypeVar("T")

Journal = list[tuple[Any, ...]]
Script = Callable[[], Awaitable[None]]


def failing(what: str, why: str = "it is broken") -> Script:
    """A script that fails as an adapter does."""

    async def fail() -> None:
        raise AdapterError("stand-in", what, why)

    return fail


def taking(seconds: float, then: Script | None = None) -> Script:
    """A script that takes its time."""

    async def wait() -> None:
        await anyio.sleep(seconds)
        if then is not None:
            await then()

    return wait


hanging = taking(float("inf"))


def image_id(image: Image) -> str:
    """The id of an image in the stand-ins: for each reference its own."""
    return f"id of {image}"


def image_id_of(_: DeploymentId, image: Image) -> str:
    """The same, as a change asks for the image of its deployment."""
    return image_id(image)


@dataclass
class ImageStore:
    """Images that a test sets up: `here` by reference, `registry` what a reference stands for when it is pulled (else its own id)."""

    journal: Journal
    scripts: dict[str, Script]
    here: dict[Image, StoredImage] = field(default_factory=dict)
    registry: dict[Image, StoredImage] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    used_by: dict[str, tuple[ImageUser, ...]] = field(default_factory=dict)

    def add(self, *images: Image) -> None:
        """Have these here."""
        self.here |= {one: StoredImage(image_id(one), "sha256:" + "d" * 64) for one in images}

    async def find(self, image: Image) -> StoredImage | None:
        """What is here under that name."""
        await scripted(self.scripts, "find")
        return self.here.get(image)

    async def has(self, image_id: str) -> bool:
        """Whether it has been pulled or was set up."""
        await scripted(self.scripts, "has")
        return image_id in {one.id for one in self.here.values()}

    async def pull(self, image: Image, *, timeout_s: float, on_answer: Callable[[], None]) -> StoredImage:
        """Have the image, unless the script fails or hangs; the registry answers when the script has ended."""
        assert 0 < timeout_s < 3600
        self.journal.append(("pull", str(image)))
        with anyio.move_on_after(timeout_s) as limit:
            await scripted(self.scripts, "pull")
            await scripted(self.scripts, f"pull {image}")
        if limit.cancelled_caught:
            raise AdapterError("stand-in", f"pull {image}", "no answer in time")
        on_answer()
        await scripted(self.scripts, "layers")
        came = self.registry.get(image) or StoredImage(image_id(image), "sha256:" + "d" * 64)
        self.here[image] = came
        return came

    async def fault(self, image_id: str) -> str | None:
        """What the test says is wrong."""
        self.journal.append(("verify", image_id))
        await scripted(self.scripts, "fault")
        return self.damaged.get(image_id)

    async def users(self, image_id: str) -> tuple[ImageUser, ...]:
        """What the test set up."""
        return self.used_by.get(image_id, ())

    async def discard(self, image_id: str) -> None:
        """It is gone, and so is its damage."""
        self.journal.append(("discard", image_id))
        await scripted(self.scripts, "discard")
        self.here = {name: one for name, one in self.here.items() if one.id != image_id}
        self.damaged.pop(image_id, None)


async def scripted(scripts: dict[str, Script], name: str) -> None:
    """Run the script of that name, if there is one."""
    await anyio.lowlevel.checkpoint()
    script = scripts.get(name)
    if script is not None:
        await script()


@dataclass
class Podman:
    """A container engine with containers and images that a test sets up. `scripts` run inside the call of their name."""

    journal: Journal = field(default_factory=list)
    there: dict[str, ActualContainer] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    changing: int = 0
    output: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tell: Callable[[ContainerEvent], None] = lambda event: None
    checks_ended: dict[str, float] = field(default_factory=dict)
    images: ImageStore = field(init=False)

    def __post_init__(self) -> None:
        self.images = ImageStore(self.journal, self.scripts)

    async def containers(self, wall_now_s: float) -> tuple[ActualContainer, ...]:
        """What is there."""
        assert wall_now_s >= 0
        await self._scripted("containers")
        return tuple(self.there.values())

    async def watch(self, on_open: Callable[[], None], on_event: Callable[[ContainerEvent], None]) -> None:
        """Open, and then silent unless the script says something."""
        on_open()
        self.tell = on_event
        await self._scripted("watch")
        await anyio.sleep_forever()

    async def last_output(self, container_id: ContainerId, lines: int) -> tuple[str, ...]:
        """What the test set up."""
        await self._scripted("last_output")
        return self.output.get(container_id, ())[-lines:]

    async def ensure_network(self) -> None:
        """Only written down."""
        await self._change("ensure_network")

    async def make_volumes(self, container: ExpectedContainer) -> None:
        """Of those that a container has."""
        if container.volumes:
            await self._change("make_volumes", container.name)

    async def create_and_start(self, container: ExpectedContainer, env: dict[str, str], image_id: str) -> None:
        """The image must be here and the name free."""
        assert await self.images.has(image_id), "an image is here before a container is made of it"
        assert all(one.name != container.name for one in self.there.values()), "a name is used once"
        assert env.keys() == dict(container.env).keys()
        await self._change("create_and_start", container.name, tuple(sorted(env.items())))

    async def start(self, container_id: ContainerId) -> None:
        """The container must exist."""
        assert container_id in self.there
        await self._change("start", container_id)

    async def stop_and_remove(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """The container must exist; it is gone afterwards."""
        assert container_id in self.there
        assert grace_s >= 0
        await self._change("stop_and_remove", container_id)
        del self.there[container_id]

    async def restart(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """The container must exist."""
        assert container_id in self.there
        assert grace_s >= 0
        await self._change("restart", container_id)

    async def remove_forced(self, container_id: ContainerId) -> None:
        """The container must exist; it is gone afterwards."""
        assert container_id in self.there
        await self._change("remove_forced", container_id)
        del self.there[container_id]

    async def check_health(self, container_id: ContainerId, limit_s: float) -> str:
        """The container must exist."""
        assert container_id in self.there
        assert limit_s > 0
        await self._scripted("check_health")
        return "healthy"

    async def end_overrun_check(self, container_id: ContainerId, limit_s: float) -> None:
        """Written down, though it is no change of this agent's."""
        assert container_id in self.there
        self.journal.append(("end_overrun_check", container_id, limit_s))

    def check_ended_at(self, container_id: ContainerId) -> float:
        """What the test set up."""
        return self.checks_ended.get(container_id, float("-inf"))

    async def remove_volumes(self, service_id: str) -> None:
        """Only named."""
        assert service_id
        await self._change("remove_volumes", service_id)

    async def _change(self, name: str, *facts: Any) -> None:
        self.journal.append((name, *facts))
        self.changing += 1
        try:
            assert self.changing == 1, "one change at a time"
            await self._scripted(name)
        finally:
            self.changing -= 1

    async def _scripted(self, name: str) -> None:
        await scripted(self.scripts, name)


@dataclass
class Served(Generic[T]):
    """A component that serves a list: DNS records or routes."""

    name: str
    journal: Journal = field(default_factory=list)
    now: tuple[T, ...] = ()
    scripts: dict[str, Script] = field(default_factory=dict)

    async def fetch(self) -> tuple[T, ...]:
        """What is served."""
        await anyio.lowlevel.checkpoint()
        if "fetch" in self.scripts:
            await self.scripts["fetch"]()
        return self.now

    async def apply(self, wanted: tuple[T, ...]) -> None:
        """Serve this, unless the script fails."""
        assert isinstance(wanted, tuple)
        self.journal.append((self.name, wanted))
        if "apply" in self.scripts:
            await self.scripts["apply"]()
        self.now = wanted


@dataclass
class Tunnel:
    """A WireGuard interface."""

    journal: Journal = field(default_factory=list)
    now: dict[str, Peer] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)

    async def fetch(self) -> tuple[Peer, ...]:
        """The peers that are there."""
        await anyio.lowlevel.checkpoint()
        if "fetch" in self.scripts:
            await self.scripts["fetch"]()
        return tuple(self.now.values())

    async def apply(self, upsert: tuple[Peer, ...], remove: tuple[str, ...]) -> None:
        """Only keys that are there can be removed."""
        assert set(remove) <= set(self.now)
        self.journal.append(("wireguard", upsert, remove))
        self.now = {key: peer for key, peer in self.now.items() if key not in remove}
        self.now |= {peer.public_key: peer for peer in upsert}


@dataclass
class Stage:
    """All components of one server, with one journal."""

    journal: Journal = field(default_factory=list)
    podman: Podman = field(init=False)
    dns: Served[Record] = field(init=False)
    caddy: Served[Route] = field(init=False)
    wireguard: Tunnel = field(init=False)

    def __post_init__(self) -> None:
        self.podman = Podman(self.journal)
        self.dns = Served("dns", self.journal)
        self.caddy = Served("caddy", self.journal)
        self.wireguard = Tunnel(self.journal)

    @property
    def components(self) -> Components:
        """As the agent is given them."""
        return Components(self.podman, self.dns, self.caddy, self.wireguard)

    def serve(self, state: ActualState) -> None:
        """Have this state here."""
        assert isinstance(state.dns, tuple) and isinstance(state.caddy, tuple) and isinstance(state.wireguard, tuple)
        self.podman.there = {one.id: one for one in state.containers}
        self.dns.now, self.caddy.now = state.dns, state.caddy
        self.wireguard.now = {peer.public_key: peer for peer in state.wireguard}
