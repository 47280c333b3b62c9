"""`core.build_sandbox`: what a sandbox lets through."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.build_sandbox import (
    NO_LIMITS,
    Endpoint,
    Limits,
    Place,
    Surroundings,
    endpoint_of_registry,
    endpoint_of_url,
    environment,
    files,
    groups,
    network,
    proxies,
    read_only,
    slice_weights,
    unit,
)

NOWHERE = Surroundings(frozenset(), frozenset())
LIMITS = Limits(memory_bytes=1024**3, tasks=512, cpu_weight=20, io_weight=30, disk_bytes=1024**4)


@pytest.mark.parametrize(
    ("registry", "is_insecure", "endpoint"),
    [
        ("registry.example", False, Endpoint("registry.example", 443)),
        ("registry.example", True, Endpoint("registry.example", 80)),
        ("registry.example:5000", False, Endpoint("registry.example", 5000)),
        ("[::1]:5000", True, Endpoint("::1", 5000)),
        ("127.0.0.1:5055", True, Endpoint("127.0.0.1", 5055)),
        ("registry.example:x", False, None),
        ("", False, None),
    ],
)
def test_where_a_registry_listens(registry: str, is_insecure: bool, endpoint: Endpoint | None) -> None:
    """At the port of its name, else at the usual one."""
    assert endpoint_of_registry(registry, is_insecure=is_insecure) == endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://git.example/a.git", Endpoint("git.example", 443)),
        ("http://127.0.0.1:8000/a.git", Endpoint("127.0.0.1", 8000)),
        ("tcp://10.0.0.1:1234", Endpoint("10.0.0.1", 1234)),
        ("file:///srv/a.git", None),
        ("unix:///run/buildkit/buildkitd.sock", None),
        ("", None),
    ],
)
def test_where_a_url_leads(url: str, endpoint: Endpoint | None) -> None:
    """What is a file leads nowhere."""
    assert endpoint_of_url(url) == endpoint


def test_proxies() -> None:
    """Those that the tools will use; names that are not to be asked by them are none."""
    given = {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "http_proxy": "10.0.0.1:8080",
        "NO_PROXY": "a.example",
        "A": "http://b",
    }
    assert set(proxies(given)) == {Endpoint("proxy.example", 3128), Endpoint("10.0.0.1", 8080)}


def test_what_is_refused() -> None:
    """L65: link-local, the mesh, this server's own addresses but their public ports, what is on its bridges."""
    here = Surroundings(frozenset({IPv4Address("203.0.113.5")}), frozenset({IPv4Network("10.88.0.0/16")}))
    rules = network((), here).rules.splitlines()
    assert rules[0] == "*filter"
    assert rules[-1] == "COMMIT"
    for one in ("169.254.0.0/16", "10.100.0.0/16", "10.200.0.0/16", "10.88.0.0/16", "203.0.113.5"):
        assert f"-A OUTPUT -d {one} -j REJECT" in rules
    public = "-A OUTPUT -p tcp -d 203.0.113.5 -m multiport --dports 80,443 -j ACCEPT"
    assert rules.index(public) < rules.index("-A OUTPUT -d 203.0.113.5 -j REJECT")


def test_what_was_named_is_reached() -> None:
    """Wherever it is: through a rule before the others, or, on loopback, through a socket that leads there."""
    places = [
        Place(Endpoint("registry.internal", 5000), (IPv4Address("10.200.3.9"), IPv6Address("fd00::1"))),
        Place(Endpoint("registry", 5055), (IPv4Address("127.0.0.1"),)),
        Place(Endpoint("::1", 5056), (IPv6Address("::1"),)),
    ]
    made = network(places, NOWHERE)
    rules = made.rules.splitlines()
    opened = "-A OUTPUT -p tcp -d 10.200.3.9 --dport 5000 -j ACCEPT"
    assert rules.index(opened) < rules.index("-A OUTPUT -d 10.200.0.0/16 -j REJECT")
    assert set(made.relays) == {("127.0.0.1:5055", "127.0.0.1:5055"), ("::1:5056", "::1:5056")}
    assert "127.0.0.1 registry" in made.hosts.splitlines()
    assert files(made)["/etc/hosts"] == made.hosts


@pytest.mark.parametrize(
    ("host", "address", "is_reached"),
    [
        ("git.example", "198.51.100.9", True),
        ("gitea.internal", "10.200.3.9", True),
        ("git.example", "169.254.169.254", False),
        ("169.254.169.254", "169.254.169.254", False),
        ("git.example", "127.0.0.1", False),
        ("git.example", "::1", False),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_whatever_address_a_users_name_has(host: str, address: str, is_reached: bool) -> None:
    """L65: the clone's host is of a user's choice, and whoever has its name says where that is."""
    made = network([Place(Endpoint(host, 80), (ip_address(address),), is_users=True)], NOWHERE)
    opened = f"-A OUTPUT -p tcp -d {address} --dport 80 -j ACCEPT" in made.rules
    assert (opened or bool(made.relays)) is is_reached


@given(
    st.lists(
        st.builds(
            Place, st.builds(Endpoint, st.just("h"), st.integers(1, 65535)), st.lists(st.ip_addresses(v=4)).map(tuple)
        )
    )
)
def test_the_order_of_places_does_not_matter(places: list[Place]) -> None:
    """One network for one set of them."""
    assert network(places, NOWHERE).rules == network(reversed(places), NOWHERE).rules or len(
        {one.endpoint for one in places}
    ) < len(places)


def test_a_clean_environment() -> None:
    """L37: nothing of the agent's own; files that a variable names are at a place of the sandbox's."""
    given = {
        "TECHULUS_TOKEN": "x",
        "PATH": "/root/bin",
        "SSL_CERT_FILE": "/root/ca.pem",
        "HTTPS_PROXY": "http://p:1",
        "LD_PRELOAD": "x",
    }
    found = environment(given)
    assert set(found) == {"HTTPS_PROXY", "SSL_CERT_FILE", "LC_ALL", "PATH", "HOME"}
    assert read_only(given)["/root/ca.pem"] == found["SSL_CERT_FILE"] == "/config/SSL_CERT_FILE"
    assert "/root" not in found["PATH"]


@pytest.mark.parametrize("is_unified", [True, False])
def test_control_groups(is_unified: bool) -> None:
    """Memory and processes are bounded, or the build does not begin; weights are where the kernel has them."""
    made = groups(LIMITS, "build-1", is_unified=is_unified)
    needed = {name: value for _, settings in made.made for name, value in settings.items() if not name.startswith("?")}
    assert {str(1024**3), "512"} <= {*needed.values()}
    assert made.joined
    assert all(folder.endswith("/techulus-builds/build-1") for folder in made.joined)
    assert groups(NO_LIMITS, "build-1", is_unified=is_unified).joined == made.joined


def test_a_unit() -> None:
    """L65: a service in the builds' slice, with its bounds; nothing of an order stands on its command line."""
    words = unit(LIMITS, "techulus-build-1")
    assert words[0] == "systemd-run"
    assert {"--pipe", "--wait", "--unit=techulus-build-1.service", "--slice=techulus-builds.slice"} <= {*words}
    assert {f"--property=MemoryMax={1024**3}", "--property=TasksMax=512", "--property=IOWeight=30"} <= {*words}
    assert words[-1] == "--"
    assert slice_weights(LIMITS)[-3:] == ("techulus.slice", "CPUWeight=20", "IOWeight=30")
