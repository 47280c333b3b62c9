"""`agent doctor` on a server where everything is well, and with one thing after the other broken."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import AGENT, Plane
from tests.lab.podman_store import PodmanStore

pytestmark = pytest.mark.real


def examined(
    store: PodmanStore, plane: Plane, folder: Path, *options: str, path: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Exit status, and the findings by check."""
    argv = [str(AGENT), "doctor", "--output", "json", "--data-dir", str(folder), "--url", plane.url]
    argv += ["--podman-socket", str(store.socket_path), *options]
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(done.stdout)
    assert found["ok"] is (done.returncode == 0)
    return done.returncode, {one["check"]: one for one in found["checks"]}


def test_everything_is_well(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """What is needed is here; a proxy is also asked for Caddy."""
    code, found = examined(store, plane, tmp_path / "none", "--proxy")
    assert code == 0
    for check in ("podman", "control plane", "dnsmasq", "wireguard", "caddy", "git", "skopeo"):
        assert found[check]["level"] == "ok", found[check]
    assert found["podman"]["found"].startswith("4.")
    assert found["identity"]["level"] == "warning"


def test_podman_is_away(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """Nothing works without it: a failure, and what to do."""
    store.kill()
    code, found = examined(store, plane, tmp_path / "none")
    assert code == 1
    assert found["podman"]["level"] == "failed"
    assert "podman.socket" in found["podman"]["todo"]


def test_the_control_plane_is_away(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """A warning: the agent goes on with what it knows."""
    plane.stop()
    code, found = examined(store, plane, tmp_path / "none")
    assert code == 0
    assert found["control plane"]["level"] == "warning"


def test_tools_are_missing(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """Each is a warning with the option that does without it; what is left alone is not asked for."""
    (tmp_path / "bin").mkdir()
    code, found = examined(store, plane, tmp_path / "none", "--proxy", path=str(tmp_path / "bin"))
    assert code == 0
    for check in ("dnsmasq", "caddy", "git", "skopeo", "builder"):
        assert found[check]["level"] == "warning"
        assert found[check]["todo"]
    unmanaged = ("--unmanaged", "dns", "--unmanaged", "wireguard", "--no-builds")
    _, found = examined(store, plane, tmp_path / "none", *unmanaged, path=str(tmp_path / "bin"))
    assert not {"dnsmasq", "wireguard", "git", "caddy"} & found.keys()


def test_keys_that_others_can_read(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """A failure, with the command that mends it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    code, found = examined(store, plane, folder)
    assert code == 1
    assert found[f"mode of {folder}"]["todo"].startswith(f"chmod 700 {folder}")


def test_an_identity_that_makes_no_sense(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """Said with its file."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "config.json").write_text("{")
    (folder / "config.json").chmod(0o600)
    _, found = examined(store, plane, folder)
    assert found["identity"]["level"] in ("failed", "warning")
