"""`core.caddy`: routes from public domains to containers."""

from typing import Any

import pytest

from core.caddy import Route
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
        ("upstreams[0]", {"upstreams": [""]}),
        ("serviceId", {"serviceId": "a\x00"}),
    ],
)
def test_a_bad_route_is_rejected_at_its_field(field: str, changes: dict[str, Any]) -> None:
    """L7, L34: alone, with its id as the key that is held."""
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
        ("localhost", "localhost"),
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
