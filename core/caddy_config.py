"""Our routes as a part of Caddy's configuration, and back: one route with the `@id` `techulus`, a subroute with one route per `Route`.

The theory: what is rendered is all that Caddy is asked to keep, and it keeps it as it was sent. So id and service ride along in a `vars`
handler, `parse(render(routes)) == routes` for every canonical tuple, and anything that was altered by hand shows itself by rendering
differently from what was read. Only modules that Caddy 2.6 has are used.

Refuses to know in which server the route stands (that is `core.caddy_change`) and how Caddy is reached.
"""

import json
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from returns.result import Failure, Result, Success

from core import bounds
from core.caddy import Route, canonical_routes, plain
from core.digest import canonical

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Object: TypeAlias = dict[str, Json]
Version: TypeAlias = tuple[int, int]
"""Major and minor version of Caddy."""

ROUTE_ID: Final = "techulus"
OLDEST_VERSION: Final[Version] = (2, 6)
ALTERED: Final = Route("(altered by hand)", "(altered by hand)", "", ("(altered by hand)",))
"""Stands for whatever in our part of the configuration is not as we render it, so that it is written anew."""

_STREAM_CLOSE_DELAY_SINCE: Final[Version] = (2, 7)
_WILDCARD: Final = "*."
_ID_VAR: Final = "techulus_id"
_SERVICE_VAR: Final = "techulus_service"
_VERSION: Final = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})")

# A request waits this long for an upstream that answers. It covers a container that is being replaced, and it must exceed
# `_FAIL_FOR`: with all upstreams marked as failed, a waiting request sees the mark vanish and tries them again.
_TRY_FOR: Final = "6s"
_TRY_EVERY: Final = "100ms"
_FAIL_FOR: Final = "3s"
# A container in the mesh answers a SYN within a second or is gone; a silent one must not eat up `_TRY_FOR`.
_DIAL_TIMEOUT: Final = "2s"
# A reload leaves streams of the old configuration alone for this long; by then nearly all have ended by themselves.
_STREAM_CLOSE_DELAY: Final = "24h"


def decode(raw: bytes) -> Result[Object, str]:
    """The configuration as Caddy's admin API answers it; none at all (`null`) is an empty one."""
    try:
        document: Json = json.loads(raw)
        json.dumps(document, ensure_ascii=False).encode()  # raises for half a character, which no other text may hold
    except (ValueError, RecursionError) as error:
        return Failure(f"its configuration is not JSON: {error}")
    if _is_deep(document):
        return Failure("its configuration is nested too deeply")
    if document is None:
        return Success({})
    if not isinstance(document, dict):
        return Failure("its configuration is not a JSON object")
    return Success(document)


def _is_deep(document: Json) -> bool:
    level = [document]
    for _ in range(bounds.DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def encode(document: Json) -> bytes:
    """The JSON text to send."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def parse_version(text: str) -> Version | None:
    """The version from the output of `caddy version` ("2.6.2", "v2.7.6 h1:..."), or None."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2])) if match else None


def render(routes: Iterable[Route], version: Version = OLDEST_VERSION) -> Object:
    """The one route of ours that serves exactly these. A host that none of them matches falls through to the server's next route."""
    inner: list[Json] = [_rendered(route, version) for route in sorted(routes, key=_before)]
    return {"@id": ROUTE_ID, "handle": [{"handler": "subroute", "routes": inner}]}


def parse(route: Json, version: Version = OLDEST_VERSION) -> tuple[Route, ...]:
    """The routes in our route, in canonical order, and `ALTERED` when it is not just what we render for them."""
    handlers = array(as_object(route).get("handle"))
    inner = array(as_object(handlers[0]).get("routes")) if handlers else []
    found = canonical_routes(_parsed(one) for one in inner)
    return found if render(found, version) == route else with_altered(found)


def with_altered(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """The same routes with the mark that something beside them differs."""
    return canonical_routes([*routes, ALTERED])


class Services:
    """Which service answers for a host; what is asked for each request, so the routes are put in order once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_domain = {route.domain: route.service_id for route in sorted(routes, key=_before, reverse=True)}

    def of(self, host: str) -> str | None:
        """The service for a host as the access log names it (a port may follow); None when none of the routes answers for it."""
        before, _, port = host.rpartition(":")
        name = (before if port.isdecimal() and before else host).lower()
        found = self._by_domain.get(name)
        return self._by_domain.get(_WILDCARD + name.partition(".")[2]) if found is None else found


def as_object(value: Json) -> Object:
    """The value itself, or an empty object when it is none."""
    return value if isinstance(value, dict) else {}


def array(value: Json) -> list[Json]:
    """The value itself, or an empty list when it is none."""
    return value if isinstance(value, list) else []


def text(value: Json) -> str:
    """The value itself, or an empty text when it is none."""
    return value if isinstance(value, str) else ""


def id_of(value: Json) -> str:
    """The `@id` of an object, empty when it has none."""
    return text(as_object(value).get("@id"))


def is_ours(route: Json) -> bool:
    """Whether this is our route."""
    return id_of(route) == ROUTE_ID


def _before(route: Route) -> tuple[bool, str]:
    """Exact domains come before wildcards: the first match wins, and the more specific one has to."""
    return route.domain.startswith(_WILDCARD), canonical(plain(route))


def _rendered(route: Route, version: Version) -> Object:
    return {
        "match": [{"host": [route.domain]}],
        "handle": [
            {"handler": "vars", _ID_VAR: route.id, _SERVICE_VAR: route.service_id},
            _reverse_proxy(route.upstreams, version),
        ],
        "terminal": True,
    }


def _reverse_proxy(upstreams: tuple[str, ...], version: Version) -> Object:
    handler: Object = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": upstream} for upstream in upstreams],
        "load_balancing": {
            "selection_policy": {"policy": "round_robin"},
            "try_duration": _TRY_FOR,
            "try_interval": _TRY_EVERY,
        },
        "transport": {"protocol": "http", "dial_timeout": _DIAL_TIMEOUT},
    }
    if len(upstreams) > 1:  # a mark on the only upstream would turn requests away that a next try might serve
        handler["health_checks"] = {"passive": {"fail_duration": _FAIL_FOR, "max_fails": 1}}
    if version >= _STREAM_CLOSE_DELAY_SINCE:
        handler["stream_close_delay"] = _STREAM_CLOSE_DELAY
    return handler


def _parsed(route: Json) -> Route:
    """What can be read of one inner route; a route with nothing readable has no upstream and so is none."""
    handlers = [as_object(one) for one in array(as_object(route).get("handle"))]
    matchers = array(as_object(route).get("match"))
    hosts = array(as_object(matchers[0]).get("host")) if matchers else []
    labels = next((one for one in handlers if one.get("handler") == "vars"), {})
    proxy = next((one for one in handlers if one.get("handler") == "reverse_proxy"), {})
    dials = [text(as_object(one).get("dial")) for one in array(proxy.get("upstreams"))]
    return Route(
        id=text(labels.get(_ID_VAR)),
        domain=text(hosts[0]) if hosts else "",
        service_id=text(labels.get(_SERVICE_VAR)),
        upstreams=tuple(dial for dial in dials if dial),
    )
