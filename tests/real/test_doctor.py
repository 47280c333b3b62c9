"""`agent doctor` on a server where everything is well, and with one thing after the other broken."""

import contextlib
import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import AGENT, Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.small_disk import small_disk
from tests.lab.wait import PATIENCE_S, wait_for

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
    assert found["open ports"]["found"].startswith("51820/udp, 80/tcp, 443/tcp, 443/udp must be open from outside")


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


def test_a_port_that_somebody_else_holds(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """Said with its holder; the tunnel needs it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        _, found = examined(store, plane, tmp_path / "none", "--wireguard-port", str(port))
    assert found[f"port {port}/udp"]["level"] == "warning"
    assert "held by" in found[f"port {port}/udp"]["found"] and "ports" not in found
    _, found = examined(store, plane, tmp_path / "none", "--wireguard-port", str(port))
    assert found["ports"]["level"] == "ok"


def test_a_network_of_the_same_name(store: PodmanStore, plane: Plane, agent: Agent, tmp_path: Path) -> None:
    """No container can be made in it; the server's own is fine, and running components are not in each other's way."""
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: (agent.data_dir / "config.json").exists(), PATIENCE_S, "registration")
    assert agent.stop() == 0
    store.cli("network", "create", "--subnet", "10.99.0.0/24", "odd")
    _, found = examined(store, plane, agent.data_dir, "--network", "odd")
    assert found["network"]["level"] == "warning" and "10.99.0.0/24" in found["network"]["found"]
    assert found["identity"]["level"] == "ok"


@pytest.mark.parametrize(("says", "level", "said"), [("4.2.1", "failed", "newer is needed"), ("4.3.0", "ok", "4.3")])
def test_the_oldest_podman(plane: Plane, tmp_path: Path, says: str, level: str, said: str) -> None:
    """An older one is refused by name, also when the agent starts."""
    with old_podman(tmp_path / "sock", says) as path:
        argv = [
            str(AGENT),
            "doctor",
            "--output",
            "json",
            "--data-dir",
            str(tmp_path / "d"),
            "--podman-socket",
            str(path),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
        assert found["podman"]["level"] == level and said in found["podman"]["found"]
        if level == "failed":
            assert "4.3 or newer is needed" in refused(plane, tmp_path, "--podman-socket", str(path))


def test_a_start_is_refused(store: PodmanStore, plane: Plane, agent: Agent, tmp_path: Path) -> None:
    """Keys that others can read, a server without Podman: one line says what to do, and nothing was changed."""
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: (agent.data_dir / "config.json").exists(), PATIENCE_S, "registration")
    assert agent.stop() == 0
    (agent.data_dir / "config.json").chmod(0o644)
    environment = {**os.environ, "PATH": str(tmp_path)}
    argv = [str(AGENT), "run", "--data-dir", str(agent.data_dir), "--podman-socket", str(tmp_path / "none")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, f"chmod 600 {agent.data_dir}/config.json" in done.stderr) == (1, True)
    (agent.data_dir / "config.json").chmod(0o600)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "podman: not installed" in done.stderr) == (1, True), done.stderr


def test_few_files_and_a_wrong_clock(store: PodmanStore, tmp_path: Path) -> None:
    """Warnings, with the way to mend them."""
    with skewed_plane() as url:
        argv = [str(AGENT), "doctor", "--output", "json", "--data-dir", str(tmp_path / "d"), "--url", url]
        argv = ["sh", "-c", 'ulimit -n 1024; exec "$@"', "sh", *argv, "--podman-socket", str(store.socket_path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0
    assert found["open files"]["level"] == "warning" and "LimitNOFILE" in found["open files"]["todo"]
    assert found["clock"]["level"] == "warning" and "timedatectl" in found["clock"]["todo"]


def test_a_full_disk(store: PodmanStore, plane: Plane, tmp_path: Path) -> None:
    """Said before anything cannot be written."""
    with small_disk(tmp_path / "data", "size=1m") as disk:
        (disk / "filling").write_bytes(bytes(1024**2 - 16384))
        _, found = examined(store, plane, disk)
    assert found["disk"]["level"] == "warning" and "make room" in found["disk"]["todo"]


def refused(plane: Plane, folder: Path, *options: str) -> str:
    """What an agent says that does not start."""
    argv = [str(AGENT), "run", "--url", plane.url, "--data-dir", str(folder / "data"), *options]
    environment = {**os.environ, "TECHULUS_TOKEN": plane.token("refused")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr


@contextlib.contextmanager
def old_podman(path: Path, version: str) -> Iterator[Path]:
    """A service that says this version, and nothing else that makes sense. (No other Podman can be installed beside this one.)"""

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"Version": version, "ApiVersion": "1.41", "MinAPIVersion": "1.24"}).encode()
            self.send_response(200)
            self.send_header("Libpod-API-Version", version)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


@contextlib.contextmanager
def skewed_plane() -> Iterator[str]:
    """A control plane whose clock is ten minutes ahead."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + 600)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
