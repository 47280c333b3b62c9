"""A Podman of its own with its API service, for an agent under test on one machine: `PodmanStore`.

The containers' addresses can be reached from the process that made the store. Decides names and
subnet; knows nothing of agents.
"""

import json
from pathlib import Path

from tests.lab.lease import Lease
from tests.lab.podman_machine import PodmanMachine

# 10.200.N.0/24, N as in the protocol.
_HIGHEST_SUBNET_ID = 255


class PodmanStore(PodmanMachine):
    """A running Podman store under `directory`, which is removed with it. Use it as a context manager.

    `network` is the name of the agent's network and `subnet_id` a number that no other store on this machine has.
    The network itself is not made. `disk_size_bytes` bounds the storage (a memory disk, empty after a power cut).
    """

    network = "techulus"

    def __init__(self, directory: Path, *, disk_size_bytes: int | None = None) -> None:
        lease = Lease.take("stores", _HIGHEST_SUBNET_ID)
        super().__init__(directory, lease, disk_size_bytes=disk_size_bytes)
        self.subnet_id = lease.number
        self._reserve_bridges()

    @property
    def subnet(self) -> str:
        """The subnet that an agent with this `subnet_id` gives to its containers."""
        return f"10.200.{self.subnet_id}.0/24"

    def address(self, host: int) -> str:
        """The static address with this last number; 1 is the gateway."""
        return f"10.200.{self.subnet_id}.{host}"

    def _reserve_bridges(self) -> None:
        """Make Podman name its first bridge podmanN.

        It takes the first name that is free when the network is made, and the bridge appears only with its first
        container: two stores in one network namespace would agree on podman1.
        """
        for number in range(1, self.subnet_id):
            network = {
                "name": f"reserved-{number}",
                "id": f"{number:064x}",
                "driver": "bridge",
                "network_interface": f"podman{number}",
                "created": "2000-01-01T00:00:00Z",
                "subnets": [{"subnet": f"198.18.{number}.0/24", "gateway": f"198.18.{number}.1"}],
                "ipv6_enabled": False,
                "internal": True,
                "dns_enabled": False,
                "ipam_options": {"driver": "host-local"},
            }
            (self._cell.networks / f"reserved-{number}.json").write_text(json.dumps(network))
