"""`core.caddy`: routes from public domains to containers."""

import json
from typing import Any

import msgspec
import pytest

from core import caddy
from core.caddy import Route
from core.local_rules import NO_RULES, LocalRules
from core.state import parse_expected_after
from tests.builders import SERVICE, a_route_entry, actual_of, an_actual_document, an_expected_document, expected_of

APP = "app.example.org"


def sifted(*entries: dict[str, Any]) -> tuple[tuple[Route, ...], set[str], list[tuple[str, str]]]:
    """Good routes, held ids, and path and key of what is rejected."""
    found = expected_of(an_expected_document(routes=list(entries)))
    return found.caddy, set(found.held.caddy), [(one.path, one.key) for one in found.rejected]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("domain", {"domain": ""}),
        ("domain", {"domain": "*"}),
        ("domain", {"domain": "a.*.example"}),
        ("domain", {"domain": "*.*.example"}),
        ("domain", {"domain": "*."}),
        ("domain", {"domain": "a b.example"}),
        ("domain", {"domain": "a_b.example"}),
        ("domain", {"domain": "10.0.0.1"}),
        ("domain", {"domain": "http://a.example"}),
        ("domain", {"domain": "a.example:443"}),
        ("domain", {"domain": "{env.SECRET}"}),
        ("domain", {"domain": "a.example\n"}),
        ("domain", {"domain": "☃" * 70 + ".example"}),
        ("domain", {"domain": "\u202e.example"}),
        ("upstreams[1]", {"upstreams": ["10.200.1.2:80", "10.200.1.2"]}),
        ("upstreams[0]", {"upstreams": ["web.internal:80"]}),
        ("upstreams[0]", {"upstreams": ["10.200.1.2:0"]}),
        ("upstreams[0]", {"upstreams": ["unix//run/x.sock"]}),
        ("upstreams[0]", {"upstreams": ["127.0.0.1:2019"]}),
        ("upstreams[0]", {"upstreams": ["localhost:2019"]}),
        ("upstreams[0]", {"upstreams": ["0.0.0.0:2019"]}),
        ("upstreams[0]", {"upstreams": ["[::1]:2019"]}),
        ("upstreams[0]", {"upstreams": ["::ffff:10.200.1.2:80"]}),
        ("upstreams[0]", {"upstreams": ["169.254.169.254:80"]}),
        ("upstreams[0]", {"upstreams": ["10.100.1.1:80"]}),
        ("upstreams[0]", {"upstreams": ["10.201.1.2:80"]}),
        ("upstreams[0]", {"upstreams": ["010.200.1.2:80"]}),
        ("domain", {"domain": "localhost"}),
        ("domain", {"domain": "LOCALHOST"}),
        ("domain", {"domain": "a.localhost"}),
        ("domain", {"domain": "*.localhost"}),
        ("domain", {"domain": "ｌｏｃａｌhost"}),
        ("domain", {"domain": "com"}),
        ("domain", {"domain": "*.com"}),
        ("domain", {"domain": "internal"}),
        ("domain", {"domain": "web.internal"}),
        ("domain", {"domain": "*.internal"}),
        ("domain", {"domain": "metadata.google.internal"}),
        ("domain", {"domain": "web。internal"}),
        ("domain", {"domain": "127.1"}),
        ("domain", {"domain": "2130706433"}),
        ("domain", {"domain": "0177.0.0.1"}),
        ("domain", {"domain": "0x7f000001"}),
        ("domain", {"domain": "0x7f.0x0.0x0.0x1"}),
        ("domain", {"domain": "1.0X7F"}),
        ("domain", {"domain": "a.0x"}),
        ("domain", {"domain": "127.0.0.0x1"}),
        ("domain", {"domain": "*.0.0.0x1"}),
        ("domain", {"domain": "１２７.０.０.１"}),
        ("domain", {"domain": "::1"}),
        ("domain", {"domain": "[::1]"}),
        ("domain", {"domain": "[::ffff:127.0.0.1]"}),
        ("upstreams[0]", {"upstreams": [""]}),
        ("serviceId", {"serviceId": "a\x00"}),
    ],
)
def test_a_bad_route_is_rejected_at_its_field(field: str, changes: dict[str, Any]) -> None:
    """L7, L34, L61: alone, with its id as the key that is held."""
    good, held, rejected = sifted(a_route_entry(id="good"), a_route_entry(**changes))
    assert ([one.id for one in good], held, rejected) == (["good"], {APP}, [(f"caddy.routes[1].{field}", APP)])


@pytest.mark.parametrize("bad_id", ["", "a\n"])
def test_an_id_that_could_break_something(bad_id: str) -> None:
    """It goes into Caddy's configuration."""
    assert sifted(a_route_entry(id=bad_id)) == ((), {bad_id}, [("caddy.routes[0].id", bad_id)])


@pytest.mark.parametrize(
    ("domain", "form"),
    [
        ("App.Example.ORG", "app.example.org"),
        ("*.Example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_domains_have_one_form(domain: str, form: str) -> None:
    """Lower case and IDNA; on the server the same (L5)."""
    (route,) = sifted(a_route_entry(domain=domain))[0]
    assert route.domain == form
    assert actual_of(an_actual_document(routes=[a_route_entry(domain=domain)])).caddy == (route,)


def test_two_routes_with_one_id() -> None:
    """Those that differ are both rejected, those that say the same are one."""
    other = a_route_entry(upstreams=["10.200.5.9:80", "10.200.3.2:80"])
    assert len(sifted(a_route_entry(), other)[0]) == 1
    clash = [("caddy.routes[0]", APP), ("caddy.routes[1]", APP)]
    assert sifted(a_route_entry(), a_route_entry(domain="b.example")) == ((), {APP}, clash)


def test_two_ids_may_have_one_domain() -> None:
    """The id is the key."""
    assert len(sifted(a_route_entry(), a_route_entry(id="other"))[0]) == 2


def test_a_route_has_one_form() -> None:
    """Upstreams sorted and without repetition; no upstream is no route."""
    entries = [
        a_route_entry(upstreams=["10.200.5.9:80", "10.200.3.2:080", "10.200.5.9:80"]),
        a_route_entry(id="e", upstreams=[]),
    ]
    route = Route(APP, APP, SERVICE, ("10.200.3.2:80", "10.200.5.9:80"))
    assert sifted(*entries) == ((route,), set(), [])
    assert actual_of(an_actual_document(routes=entries)).caddy == (route,)


def test_what_is_served_and_odd_stays_visible() -> None:
    """A route made by hand counts as drift (L4)."""
    entry = a_route_entry(domain="odd_domain", upstreams=["x"])
    assert actual_of(an_actual_document(routes=[entry])).caddy == (Route(APP, "odd_domain", SERVICE, ("x",)),)


def on_a_server(rules: LocalRules = NO_RULES, **changes: Any) -> list[tuple[str, str]]:
    """Path and reason of what is rejected of one route on the server with subnet 3."""
    document = an_expected_document(routes=[a_route_entry(**changes)])
    parsed = parse_expected_after(None, json.dumps(document).encode(), 3, None, rules).unwrap()
    return [(one.path, one.reason) for one in parsed.expected.rejected]


@pytest.mark.parametrize("host", ["10.200.3.1", "10.200.9.1", "10.200.3.0", "10.200.3.255", "10.200.0.7"])
def test_an_address_in_the_containers_network_that_no_container_has(host: str) -> None:
    """L61: gateways are servers, with all that listens there; networks, broadcast and the subnet 0 are nobody's."""
    reason = f"{host}:9100 is a server's own address, or none"
    assert on_a_server(upstreams=["10.200.3.2:80", f"{host}:9100"]) == [("caddy.routes[0].upstreams", reason)]


@pytest.mark.parametrize("host", ["10.200.3.2", "10.200.255.254", "10.200.1.254"])
def test_a_containers_address(host: str) -> None:
    """Of this server and of any other."""
    assert on_a_server(upstreams=[f"{host}:1", f"{host}:65535"]) == []


@pytest.mark.parametrize("domain", ["box.example.org", "BOX.example.org", "*.example.org"])
def test_a_domain_that_answers_for_this_server(domain: str) -> None:
    """L61: its own names are its owner's, also by a wildcard."""
    rules = LocalRules(frozenset({"box.example.org", "box"}))
    assert [path for path, _ in on_a_server(rules, domain=domain)] == ["caddy.routes[0].domain"]
    assert on_a_server(domain=domain) == []


@pytest.mark.parametrize(
    "domain", ["example.org", "app.example.org", "a.box.example.org", "*.box.example.org", "x.org"]
)
def test_a_domain_beside_this_servers_own(domain: str) -> None:
    """A server may be named in the same zone as what it serves."""
    assert on_a_server(LocalRules(frozenset({"box.example.org"})), domain=domain) == []


@pytest.mark.parametrize(
    ("changes", "could"),
    [
        ({}, True),
        ({"domain": "*.example.org"}, True),
        ({"domain": "localhost"}, False),
        ({"domain": ""}, False),
        ({"domain": "Example.org"}, False),
        ({"upstreams": ["127.0.0.1:2019"]}, False),
        ({"upstreams": ["10.200.3.1:53"]}, False),
        ({"upstreams": ["10.200.3.2:80", "unix//run/x"]}, False),
        ({"upstreams": ["10.200.3.2"]}, False),
    ],
)
def test_what_is_served_and_could_never_be_expected(changes: dict[str, Any], *, could: bool) -> None:
    """L61: so that nothing which came by another way is held."""
    (route,) = expected_of(an_expected_document(routes=[a_route_entry()])).caddy
    changed = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    assert caddy.could_be_expected(msgspec.structs.replace(route, **changed)) is could
