"""Network namespaces that nobody is in any more, and that still answer for a container's address.

Podman's service that is killed in the middle of a set-up leaves one behind, and netavark may finish it: then two places in the bridge
have the same address, and packets go to either.
"""

from pathlib import Path
from typing import Final

from core.podman_processes import interface_with
from shell import children
from shell.adapters.podman.processes import Processes
from shell.children import Child
from shell.failure import AdapterError
from shell.log import logger

_LIMIT_S: Final = 5.0  # of a command that takes milliseconds


async def free(processes: Processes, address: str) -> None:
    """Take an address away from every namespace without a process. Podman has just given it to a container, so to nobody else."""
    for namespace in await processes.unused_networks():
        within = ("nsenter", f"--net={namespace}", "--", "ip")
        try:
            _, said = await _run(*within, "-oneline", "-4", "address", "show")
            interface = interface_with(said, address)
            if interface is None:
                continue
            status, said = await _run(*within, "link", "delete", interface)
        except AdapterError as error:
            status, said = 1, str(error)
        if status == 0:
            logger().info("address taken away from a left-over network namespace", address=address, namespace=namespace)
        else:
            then = f"`ip netns delete {Path(namespace).name}` does it; packets for it may get lost until then"
            logger().warning("left-over network namespace not emptied", address=address, why=said, then=then)


async def _run(*argv: str) -> tuple[int, str]:
    return await children.answer(Child(argv, Path("/"), {}, _LIMIT_S))
