"""`deploy/common.sh`: nothing is deleted under a process that Podman has forgotten."""

import subprocess
from pathlib import Path

import pytest

from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

_COMMON = Path(__file__).parents[2] / "deploy/common.sh"


def user_of_volumes(data: Path) -> str:
    """What the installer says."""
    script = f'set -euo pipefail; source "{_COMMON}"; user_of_volumes "$0"'
    return subprocess.run(("bash", "-c", script, data), check=True, capture_output=True, text=True).stdout.strip()


def test_a_process_that_has_a_volume_mounted(tmp_path: Path) -> None:
    """L47: as a container that Podman 4.3 has forgotten has one, which no listing names; the purge is refused."""
    volume, mounted = tmp_path / "volumes/service-77/data", tmp_path / "mounted"
    assert user_of_volumes(tmp_path) == "", "nothing is there yet"
    for folder in (volume, mounted):
        folder.mkdir(parents=True)
    assert user_of_volumes(tmp_path) == ""
    script = 'mount --bind "$0" "$1" && touch "$1/up" && exec sleep 600'
    with subprocess.Popen(("unshare", "--mount", "sh", "-c", script, volume, mounted)) as process:
        try:
            wait_for(lambda: (volume / "up").exists(), PATIENCE_S, "the mount")
            assert user_of_volumes(tmp_path) == str(process.pid)
        finally:
            process.kill()
    assert user_of_volumes(tmp_path) == ""
