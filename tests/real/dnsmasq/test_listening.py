"""`shell.adapters.dnsmasq.listening` against the kernel: on which addresses somebody could answer."""

from collections.abc import Iterator

import pytest

from shell.adapters.dnsmasq import listening
from tests.lab.process import run

pytestmark = pytest.mark.real

NIC = "listening0"


@pytest.fixture
def nic(private_network: None) -> Iterator[str]:
    """An interface, still down."""
    run(("ip", "link", "add", NIC, "type", "bridge"))
    yield NIC
    run(("ip", "link", "delete", NIC))


def test_an_address_counts_while_its_interface_is_up(nic: str) -> None:
    """And only that very address, whether it is the interface's first or not."""
    for address in ("10.77.1.1/24", "10.77.1.2/24", "10.78.0.1/32"):
        run(("ip", "address", "add", address, "dev", nic))
    assert not listening.is_up("10.77.1.1")
    run(("ip", "link", "set", nic, "up"))
    assert all(map(listening.is_up, ("10.77.1.1", "10.77.1.2", "10.78.0.1")))
    assert not any(map(listening.is_up, ("10.77.1.3", "10.77.1.0")))
    run(("ip", "address", "delete", "10.77.1.2/24", "dev", nic))
    assert listening.is_up("10.77.1.1") and not listening.is_up("10.77.1.2")


def test_it_is_found_among_many(nic: str) -> None:
    """More addresses than there is room for at first."""
    run(("ip", "link", "set", nic, "up"))
    for last in range(1, 100):
        run(("ip", "address", "add", f"10.79.0.{last}/24", "dev", nic))
    assert all(listening.is_up(f"10.79.0.{last}") for last in range(1, 100))
    assert not listening.is_up("10.79.0.100")
    assert listening.is_up("127.0.0.1")
