"""One node on stand-ins of everything outside: components that record, a control plane that answers with a document.

For virtual time: nothing here opens a connection or waits for a thread.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from core.containers import ContainerId, ExpectedContainer
from core.secrets import EncryptionKey, encrypt
from core.state import NodeType
from shell.adapters.control_plane import ControlPlane
from shell.components import Components
from shell.identity import Identity, Keys
from shell.last_good import LastGood
from shell.node import Node
from tests.builders import Document, a_container_entry, an_actual_container, an_expected_document
from tests.shell.stand_ins import Podman, Script, Stage

KEY = EncryptionKey(bytes(range(32)))
SECRET = encrypt(KEY, "hunter2", bytes(12))


class Plane(ControlPlane):
    """Answers with a document, keeps the reports, and runs a script inside either call."""

    def __init__(self, document: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        self.document = document
        self.scripts: dict[str, Script] = {}
        self.reports: list[tuple[float, dict[str, Any]]] = []
        self.closed = False

    async def fetch_expected_state(self) -> bytes:
        """The document."""
        await anyio.lowlevel.checkpoint()
        if "fetch" in self.scripts:
            await self.scripts["fetch"]()
        return self.document

    async def post_status(self, body: bytes) -> None:
        """Write it down."""
        await anyio.lowlevel.checkpoint()
        if "report" in self.scripts:
            await self.scripts["report"]()
        self.reports.append((anyio.current_time(), json.loads(body)))

    async def aclose(self) -> None:
        """Really close, and write it down."""
        await super().aclose()
        self.closed = True


class Making(Podman):
    """An engine whose new containers run."""

    async def create_and_start(self, container: ExpectedContainer, env: dict[str, str], image_id: str) -> None:
        """Make it, and have it up for a minute."""
        await super().create_and_start(container, env, image_id)
        made = an_actual_container(
            id=ContainerId(f"id-{container.name}"),
            name=container.name,
            image=container.image,
            deployment_id=container.deployment_id,
            running_for_s=60.0,
            image_id=image_id,
        )
        self.there[made.id] = made


@dataclass
class Scenery:
    """One node with everything around it."""

    folder: Path
    document: Document
    managed: bool = True
    node_type: NodeType = NodeType.WORKER
    stage: Stage = field(default_factory=Stage)
    plane: Plane = field(init=False)

    def __post_init__(self) -> None:
        self.plane = Plane(json.dumps(self.document).encode())
        self.stage.podman = Making(self.stage.journal)

    @property
    def node(self) -> Node:
        """The node as `shell.node` would build it."""
        parts = self.stage.components if self.managed else Components(self.stage.podman)
        identity = Identity("server", 3, "10.100.3.1", False, self.plane.url, Keys(bytes(32), bytes(32)), KEY)
        return Node(identity, self.node_type, self.plane, parts, LastGood(self.folder, 3), None, self.folder)

    @property
    def made(self) -> list[str]:
        """The containers that were made, in order."""
        return [entry[1] for entry in self.stage.journal if entry[0] == "create_and_start"]

    @property
    def reported(self) -> list[list[str]]:
        """The deployments of each report."""
        return [[one["deploymentId"] for one in body["containers"]] for _, body in self.plane.reports]

    def change(self, document: Document) -> None:
        """The control plane wants something else now."""
        self.plane.document = json.dumps(document).encode()


def wanting(*names: str, image: str = "docker.io/library/nginx:1.27") -> Document:
    """An expected state with these containers and nothing else."""
    entries = [
        a_container_entry(
            deploymentId=name, name=name, image=image, ipAddress=f"10.200.3.{number}", env={"PASSWORD": SECRET}
        )
        for number, name in enumerate(names, start=2)
    ]
    return an_expected_document(entries, [], [], [])
