"""Names that no other test on this machine has, and a tunnel of the userspace implementation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lease import Lease
from tests.real.wireguard.tunnel import Tunnel
from tests.real.wireguard.tunnel import tunnel as made_tunnel


@pytest.fixture
def lease() -> Iterator[Lease]:
    """Sockets of wireguard-go lie in one folder for all networks of the machine: names come from the lease's number."""
    lease = Lease.take("tunnels", 999)
    yield lease
    lease.release()


@pytest.fixture
def tunnel(tmp_path: Path, lease: Lease) -> Iterator[Tunnel]:
    """Not made yet; gone after the test."""
    with made_tunnel(tmp_path, f"wgt{lease.number}", "userspace") as made:
        yield made
