"""What a control plane that is somebody else's asks of a server: nothing is reached, each is said once, and the rest is served.

A case is a row of `ATTACKS`; all are sent in one document.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.lab.captured_server import DOMAIN, NUMBER, CapturedServer, container
from tests.lab.ports import accepts
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

_PATIENCE_S: Final = 120
_IMAGE: Final = "localhost/nothing:1"


def route(domain: str, upstream: str, key: str | None = None) -> tuple[str, dict[str, Any]]:
    """A route from a domain to somewhere."""
    return "caddy.routes", {"id": key or domain, "domain": domain, "upstreams": [upstream], "serviceId": "s"}


def record(name: str) -> tuple[str, dict[str, Any]]:
    """A name that leads to the attacker's container."""
    return "dns.records", {"name": name, "ips": [f"10.200.{NUMBER}.66"]}


def published(name: str, port: int, address: str | None = None) -> tuple[str, dict[str, Any]]:
    """A container at a port of the server."""
    return "containers", container(name, _IMAGE, address, port)


ATTACKS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Caddy's admin API as localhost": route("localhost", "127.0.0.1:2019"),
    "Caddy's admin API by its socket": route("socket.test", "unix//run/techulus-caddy/admin.sock"),
    "the server's loopback": route("loopback.test", "127.0.0.1:2019"),
    "the server by IPv6": route("six.test", "[::1]:2019"),
    "the server by its gateway": route("gateway.test", f"10.200.{NUMBER}.1:53"),
    "the server by the tunnel": route("tunnel.test", f"10.100.{NUMBER}.1:22"),
    "the server by its link": route("link.test", f"192.168.77.{NUMBER}:22"),
    "a cloud's metadata by a route": route("metadata.test", "169.254.169.254:80"),
    "an address for a domain": route("127.0.0.1", f"10.200.{NUMBER}.2:80"),
    "an address in octal": route("0177.0.0.1", f"10.200.{NUMBER}.2:80"),
    "an address in hexadecimal": route("0x7f.0x0.0x0.0x1", f"10.200.{NUMBER}.2:80"),
    "a name of the cloud as a domain": route("metadata.google.internal", f"10.200.{NUMBER}.2:80", "named"),
    "a cloud's metadata": record("metadata.google.internal"),
    "the container's host": record("host.containers.internal"),
    "a machine of the cloud": record("ip-10-0-0-1.eu-west-1.compute.internal"),
    "a project of the cloud": record("vm.zone.c.project.internal"),
    "a zone of the cloud": record("google.internal"),
    "the owner's way in": published("ssh", 22),
    "a port of the control plane's with another": published("dns", 53, f"10.200.{NUMBER}.67"),
}
_KEYS: Final = {"caddy.routes": "id", "dns.records": "name", "containers": "deploymentId"}


@pytest.fixture(scope="module")
def captured(private_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapturedServer]:
    """A server that has been told all of it, and has had its say."""
    with CapturedServer(tmp_path_factory.mktemp("captured")) as server:
        server.plane.document = server.told(*ATTACKS.values())
        wait_for(lambda: len(server.status()["rejected"]) == len(ATTACKS), _PATIENCE_S, "everything to be rejected")
        two_polls(server)
        yield server


def two_polls(server: CapturedServer) -> None:
    """Until the agent has asked again twice, so that what it would do at once is done."""

    def polls() -> int:
        return server.plane.requests.count("GET /api/v1/agent/expected-state")

    later = polls() + 2
    wait_for(lambda: polls() >= later, _PATIENCE_S, "two more polls")


@pytest.mark.parametrize("what", ATTACKS)
def test_nothing_is_reached_and_it_is_said_once(captured: CapturedServer, what: str) -> None:
    """L61, L62, L63: one line in the log, one in the status, with the reason; everything else is served meanwhile."""
    name, entry = ATTACKS[what]
    key = entry[_KEYS[name]]
    (said,) = [one for one in captured.status()["rejected"] if one["key"] == key]
    assert said["path"].startswith(f"{name}[") and said["reason"]
    assert len([one for one in captured.lines() if one.get("key") == key]) == 1
    if name == "caddy.routes":
        assert captured.get(entry["domain"]) is None and captured.get(entry["domain"], "/config/") is None
    elif name == "dns.records":
        assert captured.addresses(key) == []
    else:
        assert entry["name"] not in captured.server.cli("ps", "--all", "--format", "{{.Names}}")
        assert not accepts(captured.server.address, entry["ports"][0]["hostPort"])
    assert captured.is_served()


def test_a_certificate_is_asked_for_what_is_served_alone(captured: CapturedServer) -> None:
    """L61: it would allow any, and was asked by many clients."""
    for domain in ("nobody.test", "localhost", f"192.168.77.{NUMBER}"):
        assert captured.get(domain) is None
    assert set(captured.plane.checked) <= {DOMAIN}


def test_caddys_admin_api_is_closed(captured: CapturedServer) -> None:
    """L61: no address of TCP, and a folder that its user alone can enter."""
    listening = captured.server.run(("ss", "-ltnH")).splitlines()
    assert not [line for line in listening if ":2019" in line]
    assert captured.server.run(("stat", "-c", "%a", "/run/techulus-caddy")).strip() == "700"


def test_what_was_planted_before_is_not_held(captured: CapturedServer) -> None:
    """L61, L62: by way of an agent that knew no better, under keys that are rejected now, which would hold what is served."""
    planted = {
        "match": [{"host": ["planted.test"]}],
        "handle": [
            {"handler": "vars", "techulus_id": "localhost", "techulus_service": "s"},
            {"handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:2019"}]},
        ],
        "terminal": True,
    }
    ask = ("curl", "-sSf", "-H", "Host;", "--unix-socket", "/run/techulus-caddy/admin.sock")
    inner = "http://caddy/id/techulus/handle/0/routes"
    captured.server.run((*ask, "-H", "Content-Type: application/json", "-d", json.dumps(planted), inner))
    evil = f"echo 10.200.{NUMBER}.66 metadata.google.internal >>/run/techulus-agent/dns/records; pkill -HUP dnsmasq"
    captured.server.run(("sh", "-c", evil))
    wait_for(lambda: "planted.test" not in captured.server.run((*ask, inner)), _PATIENCE_S, "the route to go")
    wait_for(lambda: not captured.addresses("metadata.google.internal"), _PATIENCE_S, "the name to go")
    wait_for(captured.is_served, _PATIENCE_S, "the rest")


def test_a_container_that_runs_is_left_when_its_port_is_refused(captured: CapturedServer) -> None:
    """L63, L7: a mistake in a document takes nothing down."""

    def running() -> list[str]:
        return captured.server.cli("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}").splitlines()

    def kept(port: int) -> tuple[str, dict[str, Any]]:
        return "containers", container("kept", captured.image, None, port)

    captured.plane.document = captured.told(*ATTACKS.values(), kept(30_001))
    wait_for(lambda: any("kept-1" in one for one in running()), _PATIENCE_S, "the container")
    before = running()
    captured.plane.document = captured.told(*ATTACKS.values(), kept(22))
    wait_for(lambda: "d-kept" in {one["key"] for one in captured.status()["rejected"]}, _PATIENCE_S, "the rejection")
    two_polls(captured)
    assert running() == before and not accepts(captured.server.address, 22)
