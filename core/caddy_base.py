"""Caddy's base configuration: what must be there for our routes to be served, added around whatever else is there.

Two kinds of configuration are met. Where a server that is not ours listens on the TLS address, a person has set Caddy up, and there is
nothing to add. Otherwise the base is ours: a server `techulus` with on-demand certificates, access log, health path and a 404 for unknown
hosts, a server that redirects to it unless something else listens there, what the two need of other apps, and where the admin API listens.

Certificates are obtained for the domains that our route serves and for no others, whatever the control plane would allow; so the base
depends on the route that stands in the configuration, and follows it.

The theory: `with_base` is idempotent and changes nothing that it did not make, so that a complete base is one that it leaves as it is.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from core import caddy_config
from core.caddy_config import ALTERED, OLDEST_VERSION, Json, Object, Version, array, as_object, id_of, is_ours, text

Issuer: TypeAlias = Literal["acme", "internal"]

TLS_SERVER: Final = "techulus"
REDIRECT_SERVER: Final = "techulus-redirect"
HEALTH_PATH: Final = "/__caddy_health__"
CHECK_PATH: Final = "/api/v1/caddy/check"
HEALTH_ID: Final = "techulus-health"

_FALLBACK_ID: Final = "techulus-fallback"
_PLAIN_HEALTH_ID: Final = "techulus-plain-health"
_REDIRECT_ID: Final = "techulus-to-https"
OWN_IDS: Final = frozenset({caddy_config.ROUTE_ID, HEALTH_ID, _FALLBACK_ID, _PLAIN_HEALTH_ID, _REDIRECT_ID})
_POLICY_ID: Final = "techulus-tls"
_LOG: Final = "techulus"
_ACCESS_LOGGER: Final = f"http.log.access.{_LOG}"
_PERMISSION_SINCE: Final[Version] = (2, 8)
_LOG_ROLL_MB: Final = 50
_LOG_ROLL_KEEP: Final = 3
_HTTP_PORT: Final = 80
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class Base:
    """What the base configuration depends on.

    `control_plane` is a URL. `listen` is an address, empty for all. `storage` is the folder for certificates, None for Caddy's own choice.
    `process_log` takes Caddy's own messages, None leaves them on its standard error. `admin` is where the admin API is to listen, None for
    wherever it does.
    """

    control_plane: str
    issuer: Issuer = "acme"
    access_log: str = "/var/log/caddy/techulus.log"
    listen: str = ""
    http_port: int = _HTTP_PORT
    https_port: int = _HTTPS_PORT
    storage: str | None = None
    process_log: str | None = None
    version: Version = OLDEST_VERSION
    admin: str | None = None


def with_base(config: Object, base: Base) -> Object:
    """The configuration with everything that our routes need; the same one when it is all there or a person has set it up."""
    if tls_server(config, base) != TLS_SERVER:
        return config
    there = servers(config)
    ours: Object = {TLS_SERVER: _tls_server(as_object(there.get(TLS_SERVER)), base)}
    if _owner(config, base.listen, base.http_port, REDIRECT_SERVER) == REDIRECT_SERVER:
        ours[REDIRECT_SERVER] = _redirect_server(as_object(there.get(REDIRECT_SERVER)), base)
    apps: Object = {"http": {**_ports(base), "servers": ours}, "tls": {"automation": _automation(config, base)}}
    if base.issuer == "internal":
        apps["pki"] = {"certificate_authorities": {"local": {"install_trust": False}}}
    wanted: Object = {"logging": {"logs": _logs(config, base)}, "apps": apps}
    if base.admin is not None:
        wanted["admin"] = {"listen": base.admin}
    if base.storage is not None and "storage" not in config:
        wanted["storage"] = {"module": "file_system", "root": base.storage}
    return merged(config, wanted)


def tls_server(config: Object, base: Base) -> str:
    """The name of the server that answers at the TLS address: found by its listener, or the name that ours will have."""
    return _owner(config, base.listen, base.https_port, TLS_SERVER)


def listens_on(entry: str, address: str, port: int) -> bool:
    """Whether a listener of Caddy's (`:443`, `tcp/127.0.0.1:8000-8010`, `[::]:443`) takes what comes to this address (empty: all)."""
    network, slash, rest = entry.partition("/")
    if slash and not network.startswith("tcp"):
        return False
    host, colon, ports = (rest if slash else entry).rpartition(":")
    first, _, last = ports.partition("-")
    if not colon or not _PORT.fullmatch(first) or not _PORT.fullmatch(last or first):
        return False
    everywhere = ("", "0.0.0.0", "[::]")  # noqa: S104 - compared, not bound
    return int(first) <= port <= int(last or first) and (
        host in everywhere or address in everywhere or host.strip("[]") == address.strip("[]")
    )


def servers(config: Object) -> Object:
    """The HTTP servers by name."""
    return as_object(as_object(as_object(config.get("apps")).get("http")).get("servers"))


def routes_of(config: Object, server: str) -> list[Json]:
    """The routes of one HTTP server; none when it has no list of them."""
    return array(as_object(servers(config).get(server)).get("routes"))


def merged(config: Object, wanted: Object) -> Object:
    """The configuration with the wanted values as a JSON merge patch (RFC 7396): null removes, objects are merged, the rest is replaced."""
    result = dict(config)
    for name, value in wanted.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(as_object(result.get(name)), value) if isinstance(value, dict) else value
    return result


def _owner(config: Object, address: str, port: int, ours: str) -> str:
    """The name of the server that listens there; ours when none does, or when it is one of them."""
    names = [
        name
        for name, server in sorted(servers(config).items())
        if any(listens_on(text(entry), address, port) for entry in array(as_object(server).get("listen")))
    ]
    if not names or ours in names:
        return ours
    with_route = [name for name in names if any(map(is_ours, routes_of(config, name)))]
    return [*with_route, *names][0]


def _ports(base: Base) -> Object:
    """Caddy is told of ports that it would not take for those of HTTP and HTTPS by itself."""
    told: Object = {}
    if base.http_port != _HTTP_PORT:
        told["http_port"] = base.http_port
    if base.https_port != _HTTPS_PORT:
        told["https_port"] = base.https_port
    return told


def _tls_server(existing: Object, base: Base) -> Object:
    fallback: Object = {"@id": _FALLBACK_ID, "handle": [{"handler": "static_response", "status_code": 404}]}
    routes = _put(array(existing.get("routes")), _health_route(HEALTH_ID), first=True)
    if not any(map(is_ours, routes)):
        routes = [routes[0], caddy_config.render((), base.version), *routes[1:]]
    return {
        "listen": [f"{base.listen}:{base.https_port}"],
        "routes": _put(routes, fallback),
        "automatic_https": {"disable_redirects": True},
        "tls_connection_policies": [{}],
        "logs": {"default_logger_name": _LOG},
    }


def _redirect_server(existing: Object, base: Base) -> Object:
    """Caddy answers ACME's HTTP challenges there by itself, before any route."""
    port = "" if base.https_port == _HTTPS_PORT else f":{base.https_port}"
    location = f"https://{{http.request.host}}{port}{{http.request.uri}}"
    redirect: Object = {
        "@id": _REDIRECT_ID,
        "handle": [{"handler": "static_response", "status_code": 308, "headers": {"Location": [location]}}],
    }
    routes = _put(array(existing.get("routes")), _health_route(_PLAIN_HEALTH_ID), first=True)
    return {
        "listen": [f"{base.listen}:{base.http_port}"],
        "routes": _put(routes, redirect),
        "automatic_https": {"disable": True},
    }


def _health_route(identifier: str) -> Object:
    return {
        "@id": identifier,
        "match": [{"path": [HEALTH_PATH]}],
        "handle": [{"handler": "static_response", "status_code": 200, "body": "ok"}],
        "terminal": True,
    }


def automation(config: Object) -> Object:
    """How certificates are obtained."""
    return as_object(as_object(as_object(config.get("apps")).get("tls")).get("automation"))


def _automation(config: Object, base: Base) -> Object:
    """On-demand certificates for domains that we serve and the control plane allows; a person's policies stay in force.

    Without a domain there is no policy of ours, since one without subjects is for all names. Caddy takes a subject in one policy only.
    """
    policies = array(automation(config).get("policies"))
    others = [as_object(one) for one in policies if id_of(one) != _POLICY_ID]
    theirs = {text(subject) for one in others for subject in array(one.get("subjects"))}
    subjects: list[Json] = [*sorted(_served(config, base) - theirs)]
    on_demand = _on_demand(base)
    if not subjects or not all(one.get("subjects") for one in others):
        return {"policies": [*others], "on_demand": on_demand}
    policy: Object = {
        "@id": _POLICY_ID,
        "subjects": subjects,
        "issuers": [{"module": base.issuer}],
        "on_demand": True,
    }
    return {"policies": _put(policies, policy), "on_demand": on_demand}


def _served(config: Object, base: Base) -> set[str]:
    """The domains in our route."""
    ours = filter(is_ours, routes_of(config, TLS_SERVER))
    return {one.domain for route in ours for one in caddy_config.parse(route, base.version)} - {ALTERED.domain, ""}


def _on_demand(base: Base) -> Object:
    """Who is asked before a certificate is obtained. Caddy adds `?domain=` itself, and refuses the old and the new spelling together."""
    question = f"{base.control_plane.rstrip('/')}{CHECK_PATH}"
    if base.version >= _PERMISSION_SINCE:
        return {"permission": {"module": "http", "endpoint": question}, "ask": None}
    return {"ask": question, "permission": None}


def _logs(config: Object, base: Base) -> Object:
    """The access log, kept out of the default log, which would tell every request a second time."""
    default = as_object(as_object(as_object(config.get("logging")).get("logs")).get("default"))
    excluded = array(default.get("exclude"))
    wanted: Object = {"exclude": excluded if _ACCESS_LOGGER in excluded else [*excluded, _ACCESS_LOGGER]}
    if base.process_log is not None and "writer" not in default:
        wanted["writer"] = _file_writer(base.process_log)
    access: Object = {
        "writer": _file_writer(base.access_log),
        "encoder": {"format": "json"},
        "include": [_ACCESS_LOGGER],
    }
    return {"default": wanted, _LOG: access}


def _file_writer(path: str) -> Object:
    return {"output": "file", "filename": path, "roll_size_mb": _LOG_ROLL_MB, "roll_keep": _LOG_ROLL_KEEP}


def _put(values: list[Json], value: Object, *, first: bool = False) -> list[Json]:
    """The list with this value in the place of the one with its `@id`, or at an end when there is none."""
    index = next((index for index, one in enumerate(values) if id_of(one) == value["@id"]), None)
    if index is None:
        return [value, *values] if first else [*values, value]
    return [*values[:index], value, *values[index + 1 :]]
