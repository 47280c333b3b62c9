"""The base configuration: complete on a bare Caddy, added around what a person has, left alone where a person has set Caddy up."""

from dataclasses import replace

import pytest

from core.caddy import Route
from core.caddy_base import Base, listens_on, tls_server, with_base
from core.caddy_change import with_routes
from core.caddy_config import Json, Object, array, as_object, id_of
from tests.caddy_documents import Person, answer, persons

BASE = Base("https://cp.test/", issuer="internal")
APP = (Route("app.example", "app.example", "s", ("10.200.1.2:80",)),)
WILD = (Route("w", "*.wild.example", "s", ("10.200.1.2:80",)),)
PERSON = Person(https_port=443, other_port=8080)


def at(config: Json, *path: str) -> Json:
    """The value at a path of names; None where there is none."""
    for name in path:
        config = as_object(config).get(name)
    return config


@pytest.mark.parametrize(
    "base", [BASE, Base("https://cp.test"), replace(BASE, version=(2, 8)), replace(BASE, https_port=8443)]
)
def test_a_complete_base_is_left_as_it_is(base: Base) -> None:
    """L5: applying it twice changes nothing."""
    once = with_base({}, base)
    assert with_base(once, base) == once


def test_a_bare_caddy_gets_all_of_it() -> None:
    """TLS on 443 asking the control plane, redirect on 80, access log, health path, 404 at the end; admin and storage stay."""
    config = with_base({"admin": {"listen": "unix//x.sock"}, "storage": {"module": "x"}}, replace(BASE, storage="/s"))
    server = as_object(at(config, "apps", "http", "servers", "techulus"))
    assert config["admin"] == {"listen": "unix//x.sock"}
    assert config["storage"] == {"module": "x"}
    assert server["listen"] == [":443"]
    assert [id_of(one) for one in array(server["routes"])] == ["techulus-health", "techulus", "techulus-fallback"]
    assert at(config, "apps", "http", "servers", "techulus-redirect", "listen") == [":80"]
    assert at(config, "apps", "tls", "automation", "on_demand") == {"ask": "https://cp.test/api/v1/caddy/check"}
    assert at(config, "apps", "pki", "certificate_authorities", "local", "install_trust") is False
    assert at(config, "logging", "logs", "techulus", "writer", "filename") == "/var/log/caddy/techulus.log"
    assert at(config, "logging", "logs", "techulus", "include") == ["http.log.access.techulus"]
    assert at(config, "logging", "logs", "default", "exclude") == ["http.log.access.techulus"]


def test_newer_caddy_asks_by_a_module() -> None:
    """From 2.8 on, and never both spellings at once, which Caddy refuses: an upgrade takes the old one away."""
    upgraded = with_base(with_base({}, BASE), replace(BASE, version=(2, 8)))
    assert at(upgraded, "apps", "tls", "automation", "on_demand") == {
        "permission": {"module": "http", "endpoint": "https://cp.test/api/v1/caddy/check"}
    }


@pytest.mark.parametrize("what", persons(PERSON))
def test_a_person_with_a_tls_server_is_left_alone(what: str) -> None:
    """L20: nothing but our own route is ours there."""
    config = persons(PERSON)[what]
    assert with_base(config, BASE) == config
    assert tls_server(config, BASE) == "shop"


@pytest.mark.parametrize("there", [{}, {"admin": {"listen": "localhost:2019", "config": {"persist": False}}}])
def test_the_admin_api_is_moved_where_the_base_is_ours(there: Object) -> None:
    """L61: from wherever it listens; what else is said of it stays. A person's own Caddy keeps its own."""
    base = replace(BASE, admin="unix//run/x/admin.sock")
    admin = as_object(with_base(there, base)["admin"])
    assert admin == {**as_object(there.get("admin")), "listen": "unix//run/x/admin.sock"}
    theirs = persons(PERSON)["two routes"] | there
    assert with_base(theirs, base) == theirs


def policies(config: Object) -> list[Json]:
    """How certificates are obtained."""
    return array(at(config, "apps", "tls", "automation", "policies"))


def test_certificates_are_asked_for_served_domains_only() -> None:
    """L61: with none served there is no policy, since one without subjects is for every name that somebody asks for."""
    bare = with_base({}, BASE)
    assert policies(bare) == []
    (policy,) = policies(with_routes(bare, (*APP, *WILD), BASE))
    assert as_object(policy)["subjects"] == ["*.wild.example", "app.example"] and as_object(policy)["on_demand"] is True
    assert policies(with_routes(with_routes(bare, APP, BASE), (), BASE)) == []


def test_a_persons_policy_for_a_domain_counts() -> None:
    """L20: Caddy refuses two policies for one name."""
    theirs: Json = {"subjects": ["app.example"], "issuers": [{"module": "acme"}]}
    config: Object = {"apps": {"tls": {"automation": {"policies": [theirs]}}}}
    found = policies(with_routes(with_base(config, BASE), (*APP, *WILD), BASE))
    assert found[0] == theirs and as_object(found[1])["subjects"] == ["*.wild.example"]


def test_servers_of_a_person_stay() -> None:
    """L20: ours are added beside a server on another port, and none is added where a person answers on 80 already."""
    config = Person(https_port=443, other_port=80).without_tls_server()
    servers = as_object(at(with_base(config, BASE), "apps", "http", "servers"))
    assert sorted(servers) == ["other", "techulus"]
    assert servers["other"] == at(config, "apps", "http", "servers", "other")


def test_a_policy_for_all_names_stays_in_force() -> None:
    """L20: a person's way of obtaining certificates is not overruled."""
    policies: list[Json] = [{"issuers": [{"module": "acme"}], "on_demand": True}]
    config: Object = {"apps": {"tls": {"automation": {"policies": policies}}}}
    assert at(with_base(config, BASE), "apps", "tls", "automation", "policies") == policies


def test_routes_of_a_person_in_our_server_stay() -> None:
    """L20: also after a piece of ours was taken away and is put back."""
    config = with_base({}, BASE)
    server = as_object(at(config, "apps", "http", "servers", "techulus"))
    health, ours, _ = array(server["routes"])
    server["routes"] = [answer("mine", "a.test"), health, ours, answer("more", "b.test")]
    routes = array(at(with_base(config, BASE), "apps", "http", "servers", "techulus", "routes"))
    assert routes[:4] == server["routes"]
    assert id_of(routes[4]) == "techulus-fallback"


@pytest.mark.parametrize(
    "path",
    [
        ("apps", "tls"),
        ("apps", "http", "servers", "techulus-redirect"),
        ("apps", "http", "servers", "techulus", "logs"),
        ("apps", "pki"),
        ("logging", "logs", "techulus"),
        ("logging",),
    ],
)
def test_a_missing_piece_is_seen_and_put_back(path: tuple[str, ...]) -> None:
    """L4: TLS, log or redirect taken away behind the agent's back."""
    whole, config = with_base({}, BASE), with_base({}, BASE)
    del as_object(at(config, *path[:-1]))[path[-1]]
    assert with_base(config, BASE) == whole != config


@pytest.mark.parametrize(
    "changed",
    [
        replace(BASE, control_plane="https://b.test"),
        replace(BASE, access_log="/x.log"),
        replace(BASE, issuer="acme"),
        replace(BASE, admin="unix//run/x/admin.sock"),
    ],
)
def test_changed_options_are_seen(changed: Base) -> None:
    """The base follows the agent's options."""
    config = with_routes(with_base({}, BASE), APP, BASE)
    assert with_base(config, changed) != config
    assert with_base(with_base(config, changed), changed) == with_base(config, changed)


@pytest.mark.parametrize(
    ("entry", "address", "port", "takes"),
    [
        (":443", "", 443, True),
        (":443", "10.0.0.1", 443, True),
        ("10.0.0.1:443", "", 443, True),
        ("10.0.0.1:443", "10.0.0.2", 443, False),
        ("0.0.0.0:443", "10.0.0.1", 443, True),
        ("[::]:443", "10.0.0.1", 443, True),
        ("[fd00::1]:443", "[fd00::1]", 443, True),
        ("tcp/:443", "", 443, True),
        ("tcp6/[::]:443", "", 443, True),
        ("udp/:443", "", 443, False),
        ("unix//run/x.sock", "", 443, False),
        (":440-450", "", 443, True),
        (":444-450", "", 443, False),
        (":80", "", 443, False),
        ("443", "", 443, False),
        (":{env.PORT}", "", 443, False),
        ("", "", 443, False),
    ],
)
def test_a_server_is_found_by_its_listener(entry: str, address: str, port: int, *, takes: bool) -> None:
    """L20: by what it listens on, whatever its name."""
    assert listens_on(entry, address, port) is takes
