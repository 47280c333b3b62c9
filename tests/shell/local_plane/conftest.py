"""A control plane of its own for each test."""

from pathlib import Path

import pytest

from tests.shell.local_plane.callers import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """An empty control plane."""
    return Cluster(tmp_path)
