"""The outside components of one node, as gather and perform see them.

A component that is None is left alone on this server: it is left out of the expected and the actual side alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from core.caddy import Route
from core.containers import ActualContainer, ContainerId, ExpectedContainer
from core.deployment_images import StoredImage
from core.dns import Record
from core.image import Image
from core.podman_events import ContainerEvent
from core.podman_images import ImageUser
from core.state import Component
from core.wireguard import Peer


class ImageEngine(Protocol):
    """What the agent asks of Podman's images. Everything may raise AdapterError; everything is bounded in time."""

    async def find(self, image: Image) -> StoredImage | None:
        """What a reference means in the store; None when nothing has that name."""

    async def has(self, image_id: str) -> bool:
        """Whether an image of that id is in the store."""

    async def pull(self, image: Image, *, timeout_s: float, on_answer: Callable[[], None]) -> StoredImage:
        """Fetch an image from its registry. `on_answer` is called once the registry has answered."""

    async def fault(self, image_id: str) -> str | None:
        """Why the content of an image is not what was fetched, None when it is. Reads all of it."""

    async def users(self, image_id: str) -> tuple[ImageUser, ...]:
        """The containers that were made from an image, whoever made them."""

    async def discard(self, image_id: str) -> None:
        """Remove an image with all its names; refused while a container uses it."""


class ContainerEngine(Protocol):
    """What the agent asks of Podman. Everything may raise AdapterError; everything is bounded in time."""

    @property
    def images(self) -> ImageEngine:
        """Its images."""

    async def containers(self, wall_now_s: float) -> tuple[ActualContainer, ...]:
        """All containers of ours, in one call."""

    async def watch(self, on_open: Callable[[], None], on_event: Callable[[ContainerEvent], None]) -> None:
        """Say what happens to containers of ours until that ends, which raises AdapterError."""

    async def last_output(self, container_id: ContainerId, lines: int) -> tuple[str, ...]:
        """The last lines that a container wrote, oldest first."""

    async def ensure_network(self) -> None:
        """Make the containers' network if it is missing."""

    async def make_volumes(self, container: ExpectedContainer) -> None:
        """Make the folders of a container's volumes. Done before anything is stopped for it, since a folder may be refused."""

    async def create_and_start(self, container: ExpectedContainer, env: dict[str, str], image_id: str) -> None:
        """Create a container from an image that is here and start it; nothing is left over when that fails."""

    async def start(self, container_id: ContainerId) -> None:
        """Start a container that exists."""

    async def stop_and_remove(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """Stop politely, then by force, remove, and check that it is gone."""

    async def restart(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """Stop politely, then by force, and start again."""

    async def remove_forced(self, container_id: ContainerId) -> None:
        """Remove at once."""

    async def remove_volumes(self, service_id: str) -> None:
        """Delete the folders of a service's volumes."""

    async def check_health(self, container_id: ContainerId, limit_s: float) -> str:
        """Run a container's health check once, within its limit; the outcome of this run."""

    async def end_overrun_check(self, container_id: ContainerId, limit_s: float) -> None:
        """End a health check that somebody else runs, if it has overrun its limit."""

    def check_ended_at(self, container_id: ContainerId) -> float:
        """When a health check was last heard to have ended, on the loop's clock."""


class RecordServer(Protocol):
    """What the agent asks of dnsmasq."""

    async def fetch(self) -> tuple[Record, ...]:
        """The records that are served now."""

    async def apply(self, records: tuple[Record, ...]) -> None:
        """Serve exactly these records."""


class RouteServer(Protocol):
    """What the agent asks of Caddy."""

    async def fetch(self) -> tuple[Route, ...]:
        """The routes of ours that are served now."""

    async def apply(self, routes: tuple[Route, ...]) -> None:
        """Serve exactly these routes."""


class PeerInterface(Protocol):
    """What the agent asks of WireGuard."""

    async def fetch(self) -> tuple[Peer, ...]:
        """The peers that are configured now."""

    async def apply(self, upsert: tuple[Peer, ...], remove: tuple[str, ...]) -> None:
        """Set these peers, remove those keys, touch no other."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components that are managed on this server."""

    podman: ContainerEngine
    dns: RecordServer | None = None
    caddy: RouteServer | None = None
    wireguard: PeerInterface | None = None

    def left_out(self) -> frozenset[Component]:
        """The components that are left alone here."""
        managed: dict[Component, object] = {"dns": self.dns, "caddy": self.caddy, "wireguard": self.wireguard}
        return frozenset(name for name, component in managed.items() if component is None)
