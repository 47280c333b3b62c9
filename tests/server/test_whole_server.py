"""A whole server: kernel WireGuard, one control group hierarchy, crun, Podman's own timers; a proxy from installation to its end."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import debian_tree
from tests.lab.agent import Plane
from tests.lab.bundles import Bundle, another
from tests.lab.debian_tree import Overlay
from tests.lab.https_client import HttpsClient
from tests.lab.images import Image, image
from tests.lab.mesh_peer import MeshPeer
from tests.lab.process import LabError
from tests.lab.vm_server import HOST, VmServer
from tests.lab.wait import PATIENCE_S, wait_for
from tests.server.test_service import visited

# About five minutes on two cores that do nothing else: the processor is emulated. The limits are for what hangs.
pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

UNIT = "techulus-agent.service"
SUBNET, PEER_SUBNET = 7, 8
IMAGES = (image("web"), image("health"), image("env"))
_PATIENCE_S = 600
_INSTALL_S = 1200
_STUCK = "sleep 1000"


def reference(one: Image) -> str:
    """What it is called in the server's Podman."""
    return f"lab.test/{one.name}:{one.tag}"


def services() -> dict[str, object]:
    """Four: one public, one with a health check, one with a check that does not end."""
    # The processor is emulated: a check takes seconds there, which is neither too long for Podman nor all that the server does.
    check = {"cmd": "test -f /www/health", "interval": 30, "timeout": 120, "retries": 3, "start_period": 1}
    stuck = {"cmd": _STUCK, "interval": 60, "timeout": 20, "retries": 1, "start_period": 1}
    web, health, env = (reference(one) for one in IMAGES)
    return {
        "web": {"image": web, "servers": ["one"], "ports": [{"container": 80, "domain": "app.test"}]},
        "checked": {"image": health, "servers": ["one"], "health_check": check},
        "env": {"image": env, "servers": ["one"]},
        "stuck": {"image": web, "servers": ["one"], "health_check": stuck},
    }


def disk(folder: Path, bundle: Bundle) -> Path:
    """A Debian with the packages that an agent drives, this bundle and a newer one, and the images that its containers need."""
    newer = another(bundle, folder, "7.0.0", {})
    Overlay(debian_tree.server(), folder / "overlay").export(folder / "root")
    bundle.copy_to(folder / "root/root/bundle")
    newer.copy_to(folder / "root/root/newer")
    for one in IMAGES:
        (folder / "root/root" / f"{one.name}.tar").write_bytes(one.archive.read_bytes())
    return folder / "root"


def load_images(server: VmServer) -> None:
    """Before there is an agent: what it misses at first, it looks for again with growing pauses."""
    for one in IMAGES:
        server.run(f"podman load --quiet --input /root/{one.name}.tar && podman tag {one.reference} {reference(one)}")


@contextmanager
def told(server: VmServer) -> Iterator[None]:
    """A failure within tells what the server ran and said by then."""
    try:
        yield
    except Exception as error:
        for command in ("uptime", "podman ps --all", f"journalctl --no-pager --unit {UNIT} --lines 60"):
            error.add_note(f"{command}:\n{server.ask(command)[1]}")
        raise


def install(server: VmServer, plane: Plane) -> str:
    """What the installer says."""
    given = {
        "CONTROL_PLANE_URL": f"http://{HOST}:{plane.port}",
        "REGISTRATION_TOKEN": plane.token("one", SUBNET),
        "IS_PROXY": "true",
        "TECHULUS_ALLOW_HTTP": "true",
        "TECHULUS_TLS_ISSUER": "internal",
        "TECHULUS_PUBLIC_IP": "10.0.2.15",
        "TECHULUS_NO_BUILDS": "true",
        "TECHULUS_PULL_POLICY": "missing",  # its images were loaded: it has no registry
    }
    return server.run("/root/bundle/install.sh", timeout_s=_INSTALL_S, env=given)


def containers(server: VmServer) -> list[str]:
    """Name, process and start of what runs."""
    said = server.run(
        "podman inspect --format '{{.Name}} {{.State.Pid}} {{.State.StartedAt}}' $(podman ps --quiet) </dev/null || true"
    )
    return sorted(line for line in said.splitlines() if len(line.split()) > 2 and not line.startswith("Error"))


def kill_unseen(server: VmServer, there: list[str]) -> str:
    """End the process of the first of these and its monitor, so that Podman goes on to say `Up`; its name."""
    name = there[0].split()[0]
    server.run(f"kill -9 $(podman inspect --format '{{{{.State.ConmonPid}}}} {{{{.State.Pid}}}}' {name})")
    return name


def was_unhealthy(plane: Plane) -> bool:
    """Whether the control plane has been told so of a container."""
    reports = (one["body"] for one in plane.lab("reports?limit=1000"))
    return any(one["healthStatus"] == "unhealthy" for body in reports for one in body.get("containers", []))


def see_what_podman_does_not(server: VmServer, plane: Plane) -> None:
    """A check that does not end has failed and is ended; a container whose monitor and process are gone runs again."""
    wait_for(lambda: was_unhealthy(plane), _PATIENCE_S, "a check that does not end to have failed")
    wait_for(lambda: len(containers(server)) == 3, _PATIENCE_S, "the control plane to give that service up")
    assert server.ask(f"pgrep --full --exact '{_STUCK}'")[0] == 1
    there = containers(server)
    killed = kill_unseen(server, there)
    wait_for(lambda: len({*containers(server)} & {*there}) == 2, _PATIENCE_S, f"{killed} to be missed")
    wait_for(lambda: len(containers(server)) == 3, _PATIENCE_S, f"{killed} in a new process")


def is_answered(url: str) -> bool:
    """Whether a container answers through the tunnel."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_public(server: VmServer, root: Path) -> bool:
    """Whether the proxy answers for the domain over TLS, verified against its own authority."""
    root.write_text(server.run("cat /var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt || true"))
    try:
        with HttpsClient(server.port, "app.test", root) as client:
            return client.get().body.strip() == "v1"
    except (OSError, LabError):
        return False


def test_a_proxy_from_its_installation_to_its_end(bundle: Bundle, tmp_path: Path) -> None:
    """L5, L16, L25, L29, L48, L51: registers, serves, comes back without its control plane, is upgraded unnoticed, and is taken away."""
    with Plane(tmp_path / "plane") as plane, MeshPeer(plane, tmp_path, PEER_SUBNET, HOST) as peer:
        plane.want(services())
        with VmServer(tmp_path / "machine", disk(tmp_path, bundle)) as server, told(server):
            load_images(server)
            assert "running: " in install(server, plane)
            wait_for(lambda: len(containers(server)) >= 3, _PATIENCE_S, "three containers")
            peer.learn()
            addresses = {one["service"]: one["ipAddress"] for one in plane.lab("deployments")}
            through_tunnel = f"http://{addresses['env']}/"
            wait_for(lambda: is_answered(through_tunnel), _PATIENCE_S, "a container through the tunnel")
            wait_for(lambda: "(healthy)" in server.run("podman ps"), _PATIENCE_S, "a healthy container")
            assert "podman healthcheck run" in server.run(
                "systemctl list-timers --all; systemctl cat '*.timer' --no-pager | cat; "
                "grep -rh ExecStart /run/systemd/transient || true"
            ), "by Podman's own timers"
            see_what_podman_does_not(server, plane)
            wait_for(lambda: is_public(server, tmp_path / "root.crt"), _PATIENCE_S, "the public answer")
            assert "wireguard" in server.run("lsmod") and server.ask("pgrep wireguard-go")[0] == 1
            assert server.run("stat --file-system --format %T /sys/fs/cgroup").strip() == "cgroup2fs"

            plane.stop()
            # What Podman and Caddy wrote within the last half minute, they do not insist on having on the disk.
            server.run("sync")
            server.cut_power()
            wait_for(lambda: len(containers(server)) == 3, _PATIENCE_S, "the containers again")
            wait_for(lambda: is_answered(through_tunnel), _PATIENCE_S, "the tunnel again")
            wait_for(lambda: is_public(server, tmp_path / "root.crt"), _PATIENCE_S, "the public answer again")
            assert "last good" in server.run(f"journalctl --boot --unit {UNIT}")

            there, interface = containers(server), server.run("ip --json link show wg0")
            plane.start()
            with visited(through_tunnel) as failures:
                assert "installed agent 7.0.0" in server.run("/root/newer/install.sh", timeout_s=_INSTALL_S)
            assert failures == []
            assert (containers(server), server.run("ip --json link show wg0")) == (there, interface)
            assert server.run(f"systemctl is-active {UNIT}").strip() == "active"

            server.run("/opt/techulus-agent/current/installer/install.sh --uninstall")
            assert containers(server) == there, "they are not the agent's to end"
            assert is_answered(through_tunnel)
            server.run("/root/newer/install.sh --uninstall --purge")
            assert containers(server) == [] and server.ask("ip link show wg0")[0] != 0
            assert server.ask("test -e /var/lib/techulus-agent")[0] == 1
