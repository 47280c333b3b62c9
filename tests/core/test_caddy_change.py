"""What Caddy serves, and the requests that bring it to serve something else."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core.caddy import Route, canonical_routes
from core.caddy_base import Base, tls_server, with_base
from core.caddy_change import Operation, next_operation, read
from core.caddy_config import ALTERED, ROUTE_ID, Json, Object, array, as_object, id_of, render
from tests.caddy_documents import DUPLICATE, Person, answer, persons
from tests.core.test_caddy_config import CANONICAL

BASE = Base("https://cp.test", issuer="internal")
PERSON = Person(https_port=443, other_port=8080)
OLD = (Route("old.test", "old.test", "s-old", ("127.0.0.1:1",)),)
NEW = (Route("new.test", "new.test", "s-new", ("127.0.0.1:2",)),)
SHOP = "/config/apps/http/servers/shop/routes"
OTHER = "/config/apps/http/servers/other/routes"
MOST_OPERATIONS = 3

WORDS = st.text(max_size=5)
FOREIGN: st.SearchStrategy[Json] = st.one_of(
    st.builds(answer, WORDS, st.none() | st.just("a.test")),
    st.builds(lambda words: {"@id": f"x{words}", "handle": [{"handler": "vars", "v": words}]}, WORDS),
)
ROUTE_LISTS: st.SearchStrategy[list[Json]] = st.lists(st.one_of(FOREIGN, FOREIGN, st.just(DUPLICATE)), max_size=5)


@st.composite
def configs(draw: st.DrawFn) -> Object:
    """Any mixture of servers with and without our route, of a person's or our own making, or nothing at all."""
    servers: Object = {}
    for name, listen in (("shop", ":443"), ("other", ":8080"), ("plain", ":80")):
        if draw(st.booleans()):
            fields: Object = {"listen": [listen], "routes": [*draw(ROUTE_LISTS)]}
            if draw(st.integers(0, 5)) == 0:
                fields["routes"] = None
            elif draw(st.integers(0, 5)) == 0:
                del fields["routes"]
            servers[name] = fields
    config: Object = {"apps": {"http": {"servers": servers}, "x": draw(WORDS)}} if draw(st.booleans()) else {}
    if "apps" not in config:
        return config
    return with_base(config, BASE) if draw(st.booleans()) else config


@given(configs(), CANONICAL)
def test_it_ends_and_serves_what_is_wanted(config: Object, routes: tuple[Route, ...]) -> None:
    """L5, L20: from every configuration, in few requests, the routes read back are those wanted, and then nothing is left to do."""
    after = settled(config, routes)
    assert read(after, BASE).unwrap() == routes
    assert next_operation(after, routes, BASE) is None


@given(configs(), CANONICAL)
def test_what_is_foreign_stays(config: Object, routes: tuple[Route, ...]) -> None:
    """L20: unmanaged routes and apps survive as they were, in the same order."""
    before, after = deepcopy(config), settled(config, routes)
    for name, server in servers_of(before).items():
        kept = as_object(servers_of(after)[name])
        assert foreign(kept) == foreign(as_object(server))
    if config:
        assert as_object(after["apps"])["x"] == as_object(before["apps"])["x"]


@given(CANONICAL, CANONICAL)
def test_an_update_is_one_request(old: tuple[Route, ...], new: tuple[Route, ...]) -> None:
    """L20: in our own base, and none without a difference; of our route alone, unless a domain comes or goes (L61)."""
    config = settled({}, old)
    made = [one for one, _ in steps(config, new)]
    if old == new:
        assert made == []
    elif {one.domain for one in old} == {one.domain for one in new}:
        assert made == [Operation("PATCH", "/id/techulus", render(new))]
    else:
        assert [(one.method, one.path) for one in made] == [("POST", "/config/")]


@given(configs(), CANONICAL)
def test_certificates_are_for_what_is_served(config: Object, routes: tuple[Route, ...]) -> None:
    """L61: in the same request as the routes, so that neither is ever there without the other."""
    after = settled(config, routes)
    if tls_server(after, BASE) == "techulus":
        automation = as_object(as_object(as_object(after["apps"])["tls"])["automation"])
        subjects = [name for one in array(automation["policies"]) for name in array(as_object(one)["subjects"])]
        assert subjects == sorted({one.domain for one in routes})


def test_a_bare_caddy_gets_base_and_routes_at_once() -> None:
    """One reload, not two."""
    operation = next_operation({}, NEW, BASE)
    assert operation is not None
    assert (operation.method, operation.path) == ("POST", "/config/")
    assert next_operation(as_object(operation.body), NEW, BASE) is None


@pytest.mark.parametrize(
    ("what", "requests"),
    [
        ("two routes", [("PUT", f"{SHOP}/0")]),
        ("no field routes", [("PUT", SHOP)]),
        ("an empty list of routes", [("PATCH", SHOP)]),
        ("our route, older", [("PATCH", "/id/techulus")]),
        ("our route twice", [("PATCH", SHOP)]),
        ("our route in another server", [("PATCH", OTHER), ("PUT", f"{SHOP}/0")]),
        ("our id in a route within a route", [("PATCH", f"{SHOP}/0")]),
    ],
)
def test_the_requests_for_a_persons_configuration(what: str, requests: list[tuple[str, str]]) -> None:
    """L20: only our route is inserted or replaced; duplicates, a stray one and a server without routes are handled."""
    assert [(one.method, one.path) for one, _ in steps(persons(PERSON)[what], NEW)] == requests


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("two routes", ()),
        ("no field routes", ()),
        ("our route, older", OLD),
        ("our route twice", canonical_routes([*OLD, ALTERED])),
        ("our route in another server", canonical_routes([*OLD, ALTERED])),
    ],
)
def test_what_a_persons_configuration_serves(what: str, found: tuple[Route, ...]) -> None:
    """L4: a second route of ours or one in the wrong server is drift, even when what it says is what is expected."""
    assert read(persons(PERSON)[what], BASE).unwrap() == found


@pytest.mark.parametrize("config", [{}, {"admin": {"listen": "x"}}, PERSON.without_tls_server()])
def test_without_a_base_nothing_is_served(config: Object) -> None:
    """L4: a Caddy that was restarted empty is not one that serves no routes."""
    assert not is_successful(read(config, BASE))


def test_no_routes_need_no_route_of_ours() -> None:
    """L20: a person's configuration is not touched for nothing."""
    assert next_operation(persons(PERSON)["two routes"], (), BASE) is None


def test_a_server_with_an_odd_name_is_reached() -> None:
    """The name is a part of the path."""
    config: Object = {"apps": {"http": {"servers": {"a b?%": {"listen": [":443"]}}}}}
    operation = next_operation(config, NEW, BASE)
    assert operation is not None
    assert operation.path == "/config/apps/http/servers/a%20b%3F%25/routes"


def settled(config: Object, routes: tuple[Route, ...]) -> Object:
    """The configuration after all requests."""
    for operation, after in steps(config, routes):
        assert operation is not None
        config = after
    return config


def steps(config: Object, routes: tuple[Route, ...]) -> Iterator[tuple[Operation, Object]]:
    """Each request with the configuration after it."""
    for _ in range(MOST_OPERATIONS):
        operation = next_operation(config, routes, BASE)
        if operation is None:
            return
        config = after_request(deepcopy(config), operation)
        yield operation, config
    assert next_operation(config, routes, BASE) is None, "too many requests"


def after_request(config: Object, operation: Operation) -> Object:
    """What Caddy's admin API makes of a request (the same requests are sent to the real one in `tests/real`)."""
    if operation.path == "/config/":
        assert operation.method == "POST"
        return as_object(operation.body)
    if operation.path.startswith("/id/"):
        lists = [array(as_object(server).get("routes")) for server in servers_of(config).values()]
        ((routes, index),) = [(one, i) for one in lists for i, route in enumerate(one) if id_of(route) == ROUTE_ID]
        routes[index] = operation.body
        return config
    name, field, *position = operation.path.removeprefix("/config/apps/http/servers/").split("/")
    server = as_object(servers_of(config)[name])
    if not position:
        assert (field in server) == (operation.method == "PATCH")
        server[field] = operation.body
    elif operation.method == "PUT":
        assert int(position[0]) < len(array(server[field]))
        array(server[field]).insert(int(position[0]), operation.body)
    else:
        array(server[field])[int(position[0])] = operation.body
    return config


def servers_of(config: Object) -> Object:
    """The HTTP servers by name."""
    return as_object(as_object(as_object(config.get("apps")).get("http")).get("servers"))


def foreign(server: Object) -> tuple[list[Json], Object]:
    """What is not ours in a server."""
    routes = [route for route in array(server.get("routes")) if not id_of(route).startswith(ROUTE_ID)]
    return routes, {name: value for name, value in server.items() if name != "routes"}
