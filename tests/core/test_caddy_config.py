"""Our routes as configuration and back."""

import json
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import caddy_config
from core.caddy import Route, canonical_routes
from core.caddy_config import ALTERED, Json, Object, Services, array, as_object, parse, render

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DOMAINS = st.builds(
    lambda star, labels: star + ".".join(labels),
    st.sampled_from(["", "*."]),
    st.lists(LABELS, min_size=2, max_size=3).map(lambda labels: [*labels, "test"]),
)
UPSTREAMS = st.one_of(
    st.builds(
        lambda a, b, port: f"10.200.{a}.{b}:{port}", st.integers(1, 255), st.integers(2, 254), st.integers(1, 65535)
    ),
    st.builds(lambda part, port: f"[fd00::{part:x}]:{port}", st.integers(1, 65535), st.integers(1, 65535)),
)
ROUTES = st.builds(
    Route,
    id=st.text(min_size=1),
    domain=DOMAINS,
    service_id=st.text(),
    upstreams=st.lists(UPSTREAMS, min_size=1, max_size=4, unique=True).map(lambda ups: tuple(sorted(ups))),
)
CANONICAL = st.lists(ROUTES, max_size=6).map(canonical_routes)
VERSIONS = st.sampled_from([(2, 6), (2, 7), (2, 8), (3, 0)])
ONE = Route("app.test", "app.test", "s-1", ("10.200.1.2:80",))
TWO = Route("app.test", "app.test", "s-1", ("10.200.1.2:80", "10.200.2.2:80"))


@given(CANONICAL, VERSIONS)
def test_what_is_rendered_is_read_back(routes: tuple[Route, ...], version: tuple[int, int]) -> None:
    """L5: read back(render(expected)) == expected, after a trip through JSON."""
    assert parse(json.loads(caddy_config.encode(render(routes, version))), version) == routes


@given(st.lists(ROUTES, max_size=6), st.randoms())
def test_the_order_of_routes_does_not_matter(routes: list[Route], random: Random) -> None:
    """L5: odd order is no drift."""
    shuffled = list(routes)
    random.shuffle(shuffled)
    assert render(routes) == render(shuffled)


@given(CANONICAL, st.data())
def test_an_altered_route_shows(routes: tuple[Route, ...], data: st.DataObject) -> None:
    """L4: a configuration altered by hand is drift, and what can be read of it is still read."""
    rendered = render((*routes, ONE))
    inner = inner_routes(rendered)
    proxy = as_object(array(as_object(data.draw(st.sampled_from(inner)))["handle"])[1])
    proxy["flush_interval"] = -1
    assert parse(rendered) == canonical_routes([*routes, ONE, ALTERED])


@pytest.mark.parametrize("odd", [None, {}, {"@id": "techulus"}, {"@id": "techulus", "handle": [None]}, "x", [1], 7])
def test_what_is_not_our_route_is_altered(odd: Json) -> None:
    """L4: our `@id` over something else is drift, not an error."""
    assert parse(odd) == (ALTERED,)


def test_a_more_specific_domain_comes_first() -> None:
    """The first match wins in Caddy, so an exact domain stands before the wildcard that covers it."""
    wildcard = Route("*.a.test", "*.a.test", "s", ("10.200.1.1:80",))
    exact = Route("z.a.test", "z.a.test", "s", ("10.200.1.1:80",))
    domains = [
        array(as_object(array(as_object(one)["match"])[0])["host"])[0]
        for one in inner_routes(render([wildcard, exact]))
    ]
    assert domains == ["z.a.test", "*.a.test"]


@pytest.mark.parametrize(("route", "marked"), [(ONE, False), (TWO, True)])
def test_only_one_of_several_upstreams_is_taken_out(route: Route, *, marked: bool) -> None:
    """L23: a dead upstream is taken out for a while; an only one is not, so that a request can wait for it."""
    assert ("health_checks" in proxy_of(route)) is marked


@pytest.mark.parametrize(("version", "known"), [((2, 6), False), ((2, 7), True), ((3, 0), True)])
def test_streams_survive_a_reload_where_caddy_can_do_that(version: tuple[int, int], *, known: bool) -> None:
    """L20: `stream_close_delay` is set from 2.7 on and left out before, where it would be refused."""
    assert ("stream_close_delay" in proxy_of(TWO, version)) is known


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("app.test", "exact"),
        ("APP.test:8443", "exact"),
        ("x.app.test", "wild"),
        ("x.y.app.test", None),
        ("other.test", None),
        ("", None),
    ],
)
def test_the_service_of_a_host(host: str, service: str | None) -> None:
    """The access log names the host alone; the same rule that routes a request finds its service."""
    routes = (Route("1", "*.app.test", "wild", ("10.200.1.1:80",)), Route("2", "app.test", "exact", ("10.200.1.1:80",)))
    assert Services(routes).of(host) == service


@pytest.mark.parametrize(
    ("said", "version"), [("2.6.2\n", (2, 6)), ("v2.10.1 h1:abc=\n", (2, 10)), ("", None), ("(devel)", None)]
)
def test_the_version(said: str, version: tuple[int, int] | None) -> None:
    """Debian's Caddy and upstream's spell it differently."""
    assert caddy_config.parse_version(said) == version


@pytest.mark.parametrize("raw", [b"", b"[]", b"<html>", b"1", b"\xff", b"[" * 100_000])
def test_what_is_no_configuration_is_refused(raw: bytes) -> None:
    """L20: on a read error nothing is written."""
    assert not is_successful(caddy_config.decode(raw))


def test_no_configuration_is_an_empty_one() -> None:
    """L4: Caddy restarted without a configuration answers null."""
    assert caddy_config.decode(b"null\n").unwrap() == {}


def inner_routes(rendered: Object) -> list[Json]:
    """The routes within our route."""
    return array(as_object(array(rendered["handle"])[0])["routes"])


def proxy_of(route: Route, version: tuple[int, int] = (2, 6)) -> Object:
    """The proxy handler of the only route."""
    (inner,) = inner_routes(render([route], version))
    return cast(Object, array(as_object(inner)["handle"])[1])
