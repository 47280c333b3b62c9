"""Processes that Podman does not see, and health checks that do not end, under a real systemd whose timers run the checks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.agent import Plane
from tests.lab.images import image
from tests.lab.systemd_host import SystemdHost
from tests.lab.wait import wait_for
from tests.server.test_service import INSTALL

# Installing takes its time where processors are shared.
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

_PATIENCE_S = 90
_CHECK = "sleep 1000"


@pytest.fixture
def plane(host: SystemdHost, tmp_path: Path) -> Iterator[Plane]:
    """A control plane that the server reaches over its wire."""
    with Plane(tmp_path / "plane", host.host_address) as running:
        yield running


def container_of(plane: Plane, service: str, but: str = "") -> str:
    """The container in which a service was last reported, another than `but`."""

    def found() -> str:
        rows = [one for one in plane.lab("deployments") if one["service"] == service]
        return rows[0]["containerId"] or "" if rows and rows[0]["containerId"] != but else ""

    return wait_for(found, _PATIENCE_S, f"{service} in a new container")


def running_checks(host: SystemdHost) -> int:
    """How many commands of the check run."""
    return int(host.ask("pgrep", "--count", "--full", "--exact", _CHECK)[1])


def was_reported(plane: Plane, container_id: str, health: str) -> bool:
    """Whether the control plane has been told of this health."""
    entries = [one for report in plane.lab("reports?limit=1000") for one in report["body"].get("containers", [])]
    return any(one["containerId"] == container_id and one["healthStatus"] == health for one in entries)


def test_processes_under_systemd(host: SystemdHost, plane: Plane) -> None:
    """L48: conmon and its process killed, the service runs again. L51: a check of a timer that overruns is ended, and has failed."""
    reference = host.load(image("web"))
    check = {"cmd": _CHECK, "interval": 2, "timeout": 1, "retries": 2, "start_period": 0}
    plane.want({"web": {"image": reference}, "checked": {"image": reference, "health_check": check}})
    given = {
        "CONTROL_PLANE_URL": plane.url,
        "REGISTRATION_TOKEN": plane.token("one", host.subnet_id),
        "TECHULUS_ALLOW_HTTP": "true",
        "TECHULUS_PUBLIC_IP_SERVICE": "none",
        "TECHULUS_PULL_POLICY": "missing",  # its images were loaded: it has no registry
    }
    host.run(INSTALL, timeout_s=300, env=given)
    checked = container_of(plane, "checked")
    most = 0

    def is_unhealthy() -> bool:
        nonlocal most
        most = max(most, running_checks(host))
        return was_reported(plane, checked, "unhealthy")

    wait_for(is_unhealthy, _PATIENCE_S, "the control plane to hear of the check")
    assert most == 1

    web = container_of(plane, "web")
    numbers = host.run("podman", "inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", web).split()
    host.run("sh", "-c", f"kill -9 {numbers[0]}; kill -9 {numbers[1]}")
    assert host.run("podman", "inspect", "--format", "{{.State.Status}}", web).strip() == "running"
    again = container_of(plane, "web", but=web)
    assert host.ask("podman", "inspect", web)[0] != 0, "the old one is gone"
    assert host.run("podman", "exec", again, "cat", "/www/index.html").endswith("v1\n"), (
        "after what Podman says of control groups"
    )
