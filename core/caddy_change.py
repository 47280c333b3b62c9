"""What Caddy serves now, and the next request on the way to what it should serve.

One function, `next_operation`, decides what differs and what is done about it, so that "no difference" and "nothing to do" are the same.
Our route is known by its `@id` and belongs into the server that listens on the TLS address; a second one, or one in another server, goes.
Routes that are not ours are neither changed nor put into another order.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from returns.result import Failure, Result, Success

from core import caddy_config
from core.caddy import Route
from core.caddy_base import (
    HEALTH_ID,
    OWN_IDS,
    TLS_SERVER,
    Base,
    automation,
    merged,
    routes_of,
    servers,
    tls_server,
    with_base,
)
from core.caddy_config import ROUTE_ID, Json, Object, array, as_object, id_of, is_ours, text


@dataclass(frozen=True, slots=True)
class Operation:
    """One request to Caddy's admin API."""

    method: Literal["POST", "PUT", "PATCH"]
    path: str
    body: Json


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a route with our `@id` stands."""

    server: str
    index: int


def read(config: Object, base: Base) -> Result[tuple[Route, ...], str]:
    """The routes of ours that this configuration serves, in canonical order; a failure when it lacks what they need to be served.

    Anything else about our route that calls for a change (a second one, the wrong server) shows as `caddy_config.ALTERED`.
    """
    if with_base(config, base) != config:
        return Failure("the base configuration is incomplete" if "apps" in config else "the configuration is empty")
    target = tls_server(config, base)
    places = sorted(_places(config), key=lambda one: (one.server != target, one.server, one.index))
    if not places:
        return Success(())
    first = places[0]
    routes = caddy_config.parse(routes_of(config, first.server)[first.index], base.version)
    in_place = len(places) == 1 and first.server == target
    return Success(routes if in_place else caddy_config.with_altered(routes))


def next_operation(config: Object, routes: tuple[Route, ...], base: Base) -> Operation | None:
    """The next request on the way to serving exactly these routes, None at the end of it.

    Look again after each. In the common case there is one: the routes alone, or the whole with them where a domain comes or goes.
    """
    based = with_base(config, base)
    if based != config:
        return Operation("POST", "/config/", with_routes(based, routes, base))
    target = tls_server(config, base)
    places = _places(config)
    astray = next((one for one in places if one.server != target), None)
    if astray is not None:
        return Operation("PATCH", _path(astray.server), _without_ours(routes_of(config, astray.server)))
    here = routes_of(config, target)
    ours = caddy_config.render(routes, base.version)
    whole = with_routes(config, routes, base)
    if automation(whole) != automation(config):  # other domains, other certificates: both at once
        return Operation("POST", "/config/", whole)
    if not places:
        return _insertion(config, target, here, ours) if routes else None
    if len(places) > 1:
        return Operation("PATCH", _path(target), _replaced(here, ours))
    if here[places[0].index] == ours:
        return None
    path = f"/id/{ROUTE_ID}" if _count_id(config) == 1 else f"{_path(target)}/{places[0].index}"
    return Operation("PATCH", path, ours)


def with_routes(config: Object, routes: tuple[Route, ...], base: Base) -> Object:
    """The whole configuration that serves these routes; the base must be in it."""
    target = tls_server(config, base)
    here = routes_of(config, target)
    ours = caddy_config.render(routes, base.version)
    kept = _replaced(here, ours) if any(map(is_ours, here)) else _inserted(here, ours)
    return with_base(merged(config, {"apps": {"http": {"servers": {target: {"routes": kept}}}}}), base)


def foreign(config: Object, base: Base) -> tuple[str, ...]:
    """What a Caddy whose base is ours serves beside it, in words: routes that we have not made. None where a person has set Caddy up."""
    if tls_server(config, base) != TLS_SERVER:
        return ()
    return tuple(
        f"{_hosts(route)} by {_handlers(route)} in the server {name}"
        for name in sorted(servers(config))
        for route in routes_of(config, name)
        if id_of(route) not in OWN_IDS
    )


def _hosts(route: Json) -> str:
    matchers = map(as_object, array(as_object(route).get("match")))
    return ", ".join(text(host) for one in matchers for host in array(one.get("host"))) or "every host"


def _handlers(route: Json) -> str:
    return ", ".join(text(as_object(one).get("handler")) for one in array(as_object(route).get("handle"))) or "nothing"


def _places(config: Object) -> list[_Place]:
    return [
        _Place(server, index)
        for server in sorted(servers(config))
        for index, route in enumerate(routes_of(config, server))
        if is_ours(route)
    ]


def _count_id(value: Json) -> int:
    """How often our `@id` stands anywhere: Caddy takes duplicates without a word, and `/id/` then means one of them."""
    if isinstance(value, dict):
        return int(is_ours(value)) + sum(map(_count_id, value.values()))
    return sum(map(_count_id, value)) if isinstance(value, list) else 0


def _path(server: str) -> str:
    return f"/config/apps/http/servers/{quote(server, safe='')}/routes"


def _insertion(config: Object, server: str, here: list[Json], ours: Object) -> Operation:
    """The request that adds our route and no more. Caddy inserts into a list by PUT, but not into an empty one."""
    if here:
        return Operation("PUT", f"{_path(server)}/{_position(here)}", ours)
    exists = "routes" in as_object(servers(config).get(server))
    return Operation("PATCH" if exists else "PUT", _path(server), [ours])


def _position(here: list[Json]) -> int:
    """In front of everything that a person made, whose last route may answer any host; behind our own health path."""
    return 1 if here and id_of(here[0]) == HEALTH_ID else 0


def _inserted(here: list[Json], ours: Object) -> list[Json]:
    position = _position(here)
    return [*here[:position], ours, *here[position:]]


def _replaced(here: list[Json], ours: Object) -> list[Json]:
    """Our route in the place of the first one with our `@id`; the others with it go."""
    first = next(index for index, route in enumerate(here) if is_ours(route))
    return [*here[:first], ours, *_without_ours(here[first + 1 :])]


def _without_ours(here: list[Json]) -> list[Json]:
    return [route for route in here if not is_ours(route)]
