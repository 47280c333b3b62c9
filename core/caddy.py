"""Routes from public domains to containers: checked, brought into one form, compared.

A domain is in lower case and in its IDNA form, upstreams are a set of `address:port` in one spelling, and a route without an upstream is
no route. A route leads from a public name, which is none of the server's own, to containers and nowhere else: not to the server itself, not
to its network. What Caddy's configuration looks like is rendered in `core.caddy_config`.
"""

from collections.abc import Iterable, Sequence

import msgspec

from core import address, bounds
from core.digest import Plain, canonical_order
from core.local_rules import NO_RULES, LocalRules
from core.rejection import Fault, Sifted, has_control, shown, sift
from core.wire import MisshapenRoute, WireRoute

_WILDCARD = "*."


class Route(msgspec.Struct, frozen=True, gc=False):
    """A domain (its first label may be `*`) and the sorted upstreams that answer for it, at least one."""

    id: str
    domain: str
    service_id: str
    upstreams: tuple[str, ...]


def normalise_expected(
    entries: Sequence[WireRoute | MisshapenRoute], subnet_id: int | None = None, rules: LocalRules = NO_RULES
) -> Sifted[Route]:
    """The routes in canonical order, the held ids and the rejected entries.

    On a server (its subnet is known) an upstream must be an address that a container may have, and not only one of their network.
    """

    def parse(entry: WireRoute | MisshapenRoute) -> Route | Fault:
        found = _parse(entry)
        if isinstance(found, Fault) or subnet_id is None:
            return found
        if rules.keeps(found.domain):
            return Fault("domain", f"{shown(found.domain)} is a name of this server's own")
        other = next((one for one in found.upstreams if not address.is_container(one)), None)
        return found if other is None else Fault("upstreams", f"{other} is a server's own address, or none")

    sizes = [1 if isinstance(one, MisshapenRoute) else max(1, len(one.upstreams)) for one in entries]
    sifted = sift("caddy.routes", entries, _key, parse, bounds.ROUTE_UPSTREAMS, sizes)
    return Sifted(canonical_routes(sifted.values), sifted.held, sifted.rejected)


def normalise_actual(entries: list[WireRoute]) -> tuple[Route, ...]:
    """What is served, in the same form; what cannot be parsed stays visible as it is, so that it counts as drift."""
    return canonical_routes(
        Route(
            entry.id,
            _ascii_domain(entry.domain) or entry.domain,
            entry.service_id,
            tuple(sorted({address.endpoint(text) or text for text in entry.upstreams})),
        )
        for entry in entries
    )


def canonical_routes(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Distinct routes that have an upstream, in canonical order."""
    return canonical_order((route for route in routes if route.upstreams), plain)


def plain(route: Route) -> Plain:
    """The canonical form of one route."""
    return (route.id, route.domain, route.service_id, route.upstreams)


def route_id(route: Route) -> str:
    """The key of a route."""
    return route.id


def could_be_expected(route: Route, rules: LocalRules = NO_RULES) -> bool:
    """Whether some expected state may have this route; one that is served and could not has come by another way, or before this rule."""
    host = route.domain.removeprefix(_WILDCARD)
    is_services = address.is_host_name(host) and address.is_public_name(host) and not rules.keeps(route.domain)
    return is_services and all(map(address.is_container, route.upstreams))


def _key(entry: WireRoute | MisshapenRoute) -> str:
    return entry.id


def _parse(entry: WireRoute | MisshapenRoute) -> Route | Fault:
    if isinstance(entry, MisshapenRoute):
        return entry.fault
    if not entry.id or has_control(entry.id):
        return Fault("id", "is empty or has a control character")
    if has_control(entry.service_id):
        return Fault("serviceId", "has a control character")
    if fault := _bound_fault(entry):
        return fault
    domain = _ascii_domain(entry.domain)
    if domain is None:
        return Fault("domain", f"{shown(entry.domain)} is not a host name")
    if not address.is_public_name(domain.removeprefix(_WILDCARD)):
        return Fault("domain", f"{shown(entry.domain)} is not a public host name")
    upstreams = [address.endpoint(text) for text in entry.upstreams]
    for number, found in enumerate(upstreams):
        if found is None:
            return Fault(f"upstreams[{number}]", f"{shown(entry.upstreams[number])} is not address:port")
        if not address.is_in_container_network(found):
            return Fault(f"upstreams[{number}]", f"{shown(entry.upstreams[number])} is not in the containers' network")
    return Route(entry.id, domain, entry.service_id, tuple(sorted({up for up in upstreams if up})))


def _bound_fault(entry: WireRoute) -> Fault | None:
    for field, text in (("id", entry.id), ("serviceId", entry.service_id)):
        if why := bounds.too_long(text, bounds.ID):
            return Fault(field, why)
    return None


def _ascii_domain(text: str) -> str | None:
    """Lower case and IDNA form of a domain, with a leading `*.` kept; None when it is not a host name."""
    if bounds.too_long(text, bounds.DOMAIN):
        return None
    wildcard = _WILDCARD if text.startswith(_WILDCARD) else ""
    host = text[len(wildcard) :].lower()
    if not host.isascii():
        import idna  # its tables are large, and hardly any domain needs them

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    return wildcard + host if address.is_host_name(host) else None
