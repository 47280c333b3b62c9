"""`core.containers`: what is accepted of an expected entry, and what a container of this server is."""

import json
from typing import Any

import pytest

from core import containers
from core.containers import HealthCheck, Port, Volume
from core.local_rules import LocalRules
from core.rejection import Rejection
from core.state import parse_expected_after
from tests.builders import (
    DEPLOYMENT,
    NGINX,
    SERVICE,
    a_container_entry,
    a_health_check_entry,
    a_volume_entry,
    actual_of,
    an_actual_document,
    an_actual_entry,
    an_expected_document,
    an_image,
    expected_of,
)


def rejected(subnet_id: int | None = None, **changes: Any) -> list[tuple[str, str]]:
    """Path and key of what is wrong with an entry; nothing wrong, and it must be there."""
    found = expected_of(an_expected_document([a_container_entry(**changes)]), subnet_id)
    assert bool(found.containers) != bool(found.rejected)
    assert {one.key for one in found.rejected} == found.held.containers
    return [(one.path, one.key) for one in found.rejected]


BAD: list[tuple[str, dict[str, Any]]] = [
    ("deploymentId", {"deploymentId": ""}),
    ("deploymentId", {"deploymentId": "a\nb"}),
    ("deploymentId", {"deploymentId": "a/b"}),
    ("deploymentId", {"deploymentId": "a..b"}),
    ("serviceId", {"serviceId": ""}),
    ("serviceId", {"serviceId": "../x"}),
    ("serviceName", {"serviceName": "a\x00"}),
    ("name", {"name": ""}),
    ("name", {"name": "a b"}),
    ("name", {"name": "-rf"}),
    ("name", {"name": "é"}),
    ("name", {"name": "a\n"}),
    ("image", {"image": ""}),
    ("image", {"image": "Not An Image"}),
    ("ipAddress", {"ipAddress": ""}),
    ("ipAddress", {"ipAddress": "fd00::1"}),
    ("ipAddress", {"ipAddress": "10.200.3.2/24"}),
    (
        "ports[1].containerPort",
        {"ports": [{"containerPort": 1, "hostPort": 30001}, {"containerPort": 0, "hostPort": 1}]},
    ),
    ("ports[0].containerPort", {"ports": [{"containerPort": 65536, "hostPort": 1}]}),
    ("ports[0].hostPort", {"ports": [{"containerPort": 1, "hostPort": -1}]}),
    ("env", {"env": {"GOOD": "x", "": "x"}}),
    ("env", {"env": {"A=B": "x"}}),
    ("env", {"env": {"A B": "x"}}),
    ("env", {"env": {"1A": "x"}}),
    ("env", {"env": {"A\n": "x"}}),
    ("healthCheck.cmd", {"healthCheck": a_health_check_entry(cmd=" ")}),
    ("healthCheck.cmd", {"healthCheck": a_health_check_entry(cmd="a\x00")}),
    ("healthCheck.cmd", {"healthCheck": a_health_check_entry(cmd="a\r\nb")}),
    ("healthCheck.interval", {"healthCheck": a_health_check_entry(interval=0)}),
    ("healthCheck.timeout", {"healthCheck": a_health_check_entry(timeout=-1)}),
    ("healthCheck.retries", {"healthCheck": a_health_check_entry(retries=2**31)}),
    ("healthCheck.startPeriod", {"healthCheck": a_health_check_entry(startPeriod=-1)}),
    ("volumes[0].name", {"volumes": [a_volume_entry(name="A")]}),
    ("volumes[0].name", {"volumes": [a_volume_entry(name="..")]}),
    ("volumes[0].hostPath", {"volumes": [a_volume_entry(hostPath="/etc")]}),
    ("volumes[0].hostPath", {"volumes": [a_volume_entry(hostPath=f"volumes/{SERVICE}/data")]}),
    ("volumes[0].hostPath", {"volumes": [a_volume_entry(hostPath=f"/x/../volumes/{SERVICE}/data")]}),
    ("volumes[0].hostPath", {"volumes": [a_volume_entry(hostPath="/var/lib/techulus-agent/volumes/other/data")]}),
    ("volumes[0].containerPath", {"volumes": [a_volume_entry(containerPath="data")]}),
    ("volumes[0].containerPath", {"volumes": [a_volume_entry(containerPath="/")]}),
    ("volumes[0].containerPath", {"volumes": [a_volume_entry(containerPath="/a/../b")]}),
    ("volumes[0].containerPath", {"volumes": [a_volume_entry(containerPath="/a\n")]}),
    (
        "volumes[1].containerPath",
        {"volumes": [a_volume_entry(), a_volume_entry(name="b", hostPath=f"/d/volumes/{SERVICE}/b")]},
    ),
]


@pytest.mark.parametrize(("field", "changes"), BAD, ids=[f"{field} {value}"[:60] for field, value in BAD])
def test_a_bad_entry_is_rejected_at_its_field(field: str, changes: dict[str, Any]) -> None:
    """L7, L34, L35: exact path, and the deployment id as the key that is held."""
    assert rejected(**changes) == [(f"containers[0].{field}", changes.get("deploymentId", DEPLOYMENT))]


GOOD: list[dict[str, Any]] = [
    {},
    {"ipAddress": None},
    {"serviceName": ""},
    {"serviceName": "Web ☃ 'API'"},
    {"env": {}},
    {"env": {"a.b-c_D9": "x"}},
    {"ports": []},
    {"deploymentId": "é " * 3000},
    {"image": "org/app:1.2"},
    {"healthCheck": a_health_check_entry(startPeriod=0, cmd="a\n\tb")},
    {"volumes": [a_volume_entry(), a_volume_entry()]},
    {"volumes": [a_volume_entry(hostPath=f"/srv/elsewhere/volumes/{SERVICE}/data")]},
]


@pytest.mark.parametrize("changes", GOOD, ids=[str(value)[:50] for value in GOOD])
def test_a_good_entry_is_taken(changes: dict[str, Any]) -> None:
    """What the control plane may send, odd as it may look."""
    assert rejected(**changes) == []


@pytest.mark.parametrize(
    ("address", "good"),
    [("10.200.3.2", True), ("10.200.3.254", True), ("10.200.3.1", False), ("10.200.3.255", False), ("10.200.3.0", False),
     ("10.200.4.2", False), ("10.201.3.2", False), ("192.168.3.2", False)],
)  # fmt: skip
def test_with_the_subnet_known_the_address_must_be_one_of_it(address: str, good: bool) -> None:
    """10.200.<subnet>.2 to .254; without it any address will do."""
    assert rejected(3, ipAddress=address) == ([] if good else [("containers[0].ipAddress", DEPLOYMENT)])
    assert rejected(None, ipAddress=address) == []


def test_two_entries_with_one_id_that_differ() -> None:
    """Both are rejected, and what exists for the id is held."""
    found = expected_of(an_expected_document([a_container_entry(), a_container_entry(image="nginx:2")]))
    reason = "another entry has the same key and differs"
    assert found.rejected == (
        Rejection("containers[0]", DEPLOYMENT, reason),
        Rejection("containers[1]", DEPLOYMENT, reason),
    )
    assert (found.containers, set(found.held.containers)) == ((), {DEPLOYMENT})


def test_two_entries_that_say_the_same_are_one() -> None:
    """Also when they spell the same image, ports or env in other ways."""
    ports = [{"containerPort": 1, "hostPort": 30001}, {"containerPort": 2, "hostPort": 30002}]
    one = a_container_entry(image="nginx:1.27", ports=ports, env={"A": "1", "B": "2"})
    other = a_container_entry(image=NGINX, ports=[*reversed(ports), ports[0]], env={"B": "2", "A": "1"})
    found = expected_of(an_expected_document([one, other]))
    assert (len(found.containers), found.rejected) == (1, ())


def test_an_entry_becomes_one_value() -> None:
    """Sorted, without repetition, with a complete image."""
    entry = a_container_entry(image="nginx:1.27", healthCheck=a_health_check_entry(), volumes=[a_volume_entry()])
    (found,) = expected_of(an_expected_document([entry])).containers
    assert (found.image, found.ports, found.env) == (an_image(), (Port(80, 30000),), (("DB_URL", "c2VjcmV0"),))
    assert found.health_check == HealthCheck("curl -f localhost", 10, 5, 3, 30)
    assert found.volumes == (Volume("data", "/data"),)


@pytest.mark.parametrize(
    ("labels", "ours"),
    [({}, False), ({"techulus": ""}, False), ({"x.techulus.y": ""}, False), ({"TECHULUS.x": ""}, False), ({"techulus.": ""}, True),
     ({"a": "b", "techulus.any": ""}, True)],
)  # fmt: skip
def test_which_containers_are_ours(labels: dict[str, str], ours: bool) -> None:
    """Those with any label that begins with `techulus.`."""
    assert containers.is_ours(labels) is ours
    assert bool(actual_of(an_actual_document([an_actual_entry(labels=labels)])).containers) is ours


def test_an_actual_container_becomes_one_value() -> None:
    """State in lower case; an image that has lost its name stays visible as text."""
    (found,) = actual_of(an_actual_document([an_actual_entry(state="Running", image="<none>")])).containers
    assert (found.state, found.image, found.image_text, found.deployment_id) == ("running", None, "<none>", DEPLOYMENT)
    assert (found.service_id, found.service_name) == (SERVICE, "Web API")


def test_a_container_listed_twice_is_one() -> None:
    """Repetition in a listing means nothing."""
    assert len(actual_of(an_actual_document([an_actual_entry(), an_actual_entry()])).containers) == 1


def test_mount_points_are_told_apart_as_podman_does() -> None:
    """L18: what it would refuse after the old container has gone is refused before."""
    volumes = [
        {"name": name, "hostPath": f"/v/volumes/{SERVICE}/{name}", "containerPath": path}
        for name, path in (("a", "/data"), ("b", "//data/"))
    ]
    found = expected_of(an_expected_document([a_container_entry(volumes=volumes)]))
    assert [one.path for one in found.rejected] == ["containers[0].volumes[1].containerPath"]


def test_a_host_port_leads_to_one_port() -> None:
    """Only where host ports are used: without an address."""
    ports = [{"containerPort": port, "hostPort": 30000} for port in (80, 81)]
    found = expected_of(an_expected_document([a_container_entry(ipAddress=None, ports=ports)]))
    assert [one.path for one in found.rejected] == ["containers[0].ports[1].hostPort"]
    assert expected_of(an_expected_document([a_container_entry(ports=ports)])).rejected == ()


@pytest.mark.parametrize("ip_address", [None, "10.200.3.2"])
@pytest.mark.parametrize(
    ("port", "good"),
    [(22, False), (1, False), (2019, False), (29_999, False), (30_000, True), (32_767, True), (32_768, False), (65_535, False)],
)  # fmt: skip
def test_a_host_port_is_one_that_the_control_plane_hands_out(port: int, ip_address: str | None, *, good: bool) -> None:
    """L63: whether it would be published (without an address) or not."""
    ports = [{"containerPort": 80, "hostPort": port}]
    assert rejected(3, ipAddress=ip_address, ports=ports) == (
        [] if good else [("containers[0].ports[0].hostPort", DEPLOYMENT)]
    )


@pytest.mark.parametrize(("port", "good"), [(22, False), (25, True), (8000, True), (8100, True), (8101, False)])
def test_a_host_port_that_the_operator_allows(port: int, *, good: bool) -> None:
    """L63: single ports and ranges, beside those of the control plane."""
    rules = LocalRules(host_ports=((25, 25), (8000, 8100)))
    document = an_expected_document(
        [a_container_entry(ipAddress=None, ports=[{"containerPort": 80, "hostPort": one} for one in (30_000, port)])]
    )
    found = parse_expected_after(None, json.dumps(document).encode(), 3, None, rules).unwrap().expected
    assert [one.path for one in found.rejected] == ([] if good else ["containers[0].ports[1].hostPort"])
