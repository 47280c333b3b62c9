"""A simulated server: network, mount and PID namespace with its own Podman, on a switch with others: `LabServer`.

Decides what a server has when it boots. What runs on it is started by its users; it knows nothing of agents.
"""

from pathlib import Path

from tests.lab.lease import Lease
from tests.lab.podman_machine import PodmanMachine
from tests.lab.switch import Switch, server_address

_HIGHEST_NUMBER = 999
# Where an agent on a real server looks for it.
_USUAL_SOCKET = "/run/podman/podman.sock"


class LabServer(PodmanMachine):
    """A server with the address 192.168.77.`number` on the switch. Use it as a context manager.

    Inside it has /run, /dev/shm, /etc/containers and all network links to itself (interface names such as wg0 and
    socket folders such as /run/wireguard do not collide); all other files are those of the machine. It has no way out.
    """

    def __init__(self, directory: Path, switch: Switch, number: int, *, disk_size_bytes: int | None = None) -> None:
        super().__init__(
            directory, Lease.take("servers", _HIGHEST_NUMBER), own_network=True, disk_size_bytes=disk_size_bytes
        )
        self.number = number
        self.address = server_address(number)
        self._switch = switch

    def start(self) -> None:
        """Boot it, with its link and its Podman service. Returns when Podman answers; fine when it runs."""
        if not self._cell.running():
            self._cell.start()
            self._switch.plug(self.init, self.number)
            self.run(("ln", "-s", str(self.socket_path), _USUAL_SOCKET))
        super().start()
