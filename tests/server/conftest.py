"""What is installed is the bundle of this checkout, in a network of the test's own; one bundle serves all tests of a run."""

import os
from collections.abc import Iterator

import pytest

from tests.lab.bundles import Bundle
from tests.lab.bundles import bundle as made
from tests.lab.private_network import enter_private_network
from tests.lab.systemd_host import SystemdHost


@pytest.fixture(scope="session", autouse=True)
def private_network() -> None:
    """This process alone on a loopback of its own, for all of its tests."""
    enter_private_network()


@pytest.fixture(scope="session")
def bundle(private_network: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Made by whichever process needs it first."""
    base = tmp_path_factory.getbasetemp()
    return made((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundle")


@pytest.fixture
def host(private_network: None, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    """A server with systemd, and the bundle in its /mnt/bundle."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "mnt").mkdir()
    bundle.copy_to(folder / "mnt" / "bundle")
    with SystemdHost(folder / "machine", folder / "mnt") as running:
        yield running
