"""`core.podman`: what a container of ours is made of."""

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import podman
from core.containers import HealthCheck, Port, Volume
from core.podman import CreateOptions, Limit
from tests.builders import DEPLOYMENT, NAME, NGINX, SERVICE, an_expected_container, an_image

DIGEST = "sha256:" + "0123456789abcdef" * 4
OPTIONS = CreateOptions("techulus", "/data/volumes", "/data/hosts", ("10.200.3.1",), 1_000_000)

IMAGE_ID = "5c55" * 16
LABELS: dict[str, Any] = {
    "techulus.deployment.id": DEPLOYMENT,
    "techulus.service.id": SERVICE,
    "techulus.service.name": "Web API",
    "techulus.agent.image": NGINX,
}
WHOLE: dict[str, Any] = {
    "name": NAME,
    "image": IMAGE_ID,
    "labels": LABELS,
    "env": {"A": "1"},
    "netns": {"nsmode": "bridge"},
    "Networks": {"techulus": {"static_ips": ["10.200.3.2"], "static_mac": "02:74:0a:c8:03:02"}},
    "portmappings": [],
    "dns_search": ["."],
    "dns_server": ["10.200.3.1"],
    "restart_policy": "no",
    "privileged": False,
    "cap_drop": ["all"],
    "cap_add": [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
    ],
    "no_new_privileges": False,
    "resource_limits": {"pids": {"limit": 4096}},
    "log_configuration": {"driver": "k8s-file", "size": 1_000_000},
    "healthconfig": {"Test": ["NONE"]},
    "mounts": [
        {"type": "bind", "source": f"/data/hosts/{NAME}", "destination": "/etc/hosts", "options": ["bind", "rw"]},
    ],
}

CHECK = HealthCheck("curl -f localhost", interval_s=10, timeout_s=5, retries=3, start_period_s=30)

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a volume is a folder of its service, whatever path was sent",
        {"volumes": (Volume("data", "/var/lib/x"), Volume("logs", "/logs"))},
        {
            "mounts": [
                *WHOLE["mounts"],
                *(
                    {
                        "type": "bind",
                        "source": f"/data/volumes/{SERVICE}/{name}",
                        "destination": at,
                        "options": ["rbind", "rw"],
                    }
                    for name, at in (("data", "/var/lib/x"), ("logs", "/logs"))
                ),
            ]
        },
    ),
    (
        "a health check is a shell command, its times in nanoseconds",
        {"health_check": CHECK},
        {
            "healthconfig": {
                "Test": ["CMD-SHELL", "curl -f localhost"],
                "Interval": 10_000_000_000,
                "Timeout": 5_000_000_000,
                "Retries": 3,
                "StartPeriod": 30_000_000_000,
            }
        },
    ),
    (
        "only without an address are host ports published",
        {"address": None, "ports": (Port(80, 30000), Port(443, 30001))},
        {
            "Networks": {"techulus": {}},
            "portmappings": [
                {"container_port": 80, "host_port": 30000, "protocol": "tcp"},
                {"container_port": 443, "host_port": 30001, "protocol": "tcp"},
            ],
        },
    ),
    (
        "it is made from the image of its deployment, and the label keeps what was asked for",
        {"image": an_image(f"nginx:1.27@{DIGEST}")},
        {"labels": {**LABELS, "techulus.agent.image": f"docker.io/library/nginx:1.27@{DIGEST}"}},
    ),
]


def test_a_container_is_confined() -> None:
    """L40: every field of the request, so that none comes or goes unnoticed."""
    assert podman.create_request(an_expected_container(), OPTIONS, {"A": "1"}, IMAGE_ID) == WHOLE


@pytest.mark.parametrize(("changes", "difference"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_asked_for_is_in_the_request(changes: dict[str, Any], difference: dict[str, Any]) -> None:
    """One thing differs from the healthy container, and only what follows from it in the request."""
    assert podman.create_request(an_expected_container(**changes), OPTIONS, {"A": "1"}, IMAGE_ID) == WHOLE | difference


def test_resolvers_are_left_to_podman_when_none_are_named() -> None:
    """No search domain even so."""
    request = podman.create_request(an_expected_container(), CreateOptions("n", "/v", "/h", (), 1), {}, IMAGE_ID)
    assert "dns_server" not in request
    assert request["dns_search"] == ["."]


def test_limits_are_sent_only_when_there_are_any() -> None:
    """Else Podman's defaults hold."""
    assert "r_limits" not in podman.create_request(an_expected_container(), OPTIONS, {}, IMAGE_ID)
    limited = CreateOptions("n", "/v", "/h", (), 1, (Limit("nofile", 1024, 2048),))
    request = podman.create_request(an_expected_container(), limited, {}, IMAGE_ID)
    assert request["r_limits"] == [{"type": "nofile", "soft": 1024, "hard": 2048}]


def test_a_volume_in_the_place_of_the_hosts_file_is_the_services_own() -> None:
    """Nothing is mounted twice at one place."""
    container = an_expected_container(volumes=(Volume("mine", "/etc/hosts"),))
    mounts: Any = podman.create_request(container, OPTIONS, {}, IMAGE_ID)["mounts"]
    assert [one["source"] for one in mounts] == [f"/data/volumes/{SERVICE}/mine"]


@pytest.mark.parametrize(("address", "own"), [("10.200.3.2", "10.200.3.2"), (None, "127.0.0.1")])
def test_the_hosts_file(address: str | None, own: str) -> None:
    """Names of the container's own, loopback's, and Podman's name for the server."""
    assert podman.hosts_text("web-1", address, "10.200.3.1", "0f3a0f3a0f3a").splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        f"{own} 0f3a0f3a0f3a web-1",
        "10.200.3.1 host.containers.internal",
    ]


def test_the_network() -> None:
    """L21: room for the tunnel's header; addresses without a wish come from the top of the subnet."""
    assert podman.network_request("techulus", 3) == {
        "name": "techulus",
        "driver": "bridge",
        "dns_enabled": False,
        "labels": {"techulus.network": "containers"},
        "options": {"mtu": "1420"},
        "subnets": [
            {
                "subnet": "10.200.3.0/24",
                "gateway": "10.200.3.1",
                "lease_range": {"start_ip": "10.200.3.240", "end_ip": "10.200.3.254"},
            }
        ],
    }


ADDRESSES = st.ip_addresses(v=4).map(str)


@given(ADDRESSES, ADDRESSES)
def test_a_mac_belongs_to_one_address(one: str, other: str) -> None:
    """L21: stable, locally administered, for one station; two addresses never share one."""
    first = int(podman.mac_for(one).split(":")[0], 16)
    assert first & 0b11 == 0b10
    assert (podman.mac_for(one) == podman.mac_for(other)) == (IPv4Address(one) == IPv4Address(other))


@given(st.dictionaries(st.text(), st.text()), st.text())
def test_any_text_survives_in_env_and_labels(env: dict[str, str], name: str) -> None:
    """Multi-line secrets and odd service names are the same after JSON."""
    made = podman.create_request(an_expected_container(service_name=name), OPTIONS, env, IMAGE_ID)
    request = json.loads(json.dumps(made))
    assert request["env"] == env
    assert request["labels"]["techulus.service.name"] == name
