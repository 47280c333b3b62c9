"""Builds a node from its options and identity: which components are managed here, and by what."""

from dataclasses import dataclass

from core.state import NodeType
from shell.adapters.control_plane import ControlPlane
from shell.adapters.podman import Podman, PodmanSettings
from shell.components import Components
from shell.identity import Identity
from shell.last_good import LastGood
from shell.options import Options

_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Node:
    """Everything that a command needs to look at this server or to work on it."""

    identity: Identity
    node_type: NodeType
    control_plane: ControlPlane
    components: Components
    last_good: LastGood


def build(options: Options, identity: Identity, control_plane: ControlPlane) -> Node:
    """The node that these options and this identity describe."""
    podman = Podman(
        PodmanSettings(
            socket=options.podman_socket,
            network=options.network,
            subnet_id=identity.subnet_id,
            volumes_dir=options.data_dir / "volumes",
            registry_auth_file=options.registry_auth_file,
            insecure_registries=frozenset(options.insecure_registry),
            dns=(),
            log_size_bytes=options.container_log_mib * _MIB,
        )
    )
    return Node(
        identity=identity,
        node_type=NodeType.PROXY if identity.is_proxy else NodeType.WORKER,
        control_plane=control_plane,
        components=Components(podman),
        last_good=LastGood(options.data_dir, identity.subnet_id),
    )
