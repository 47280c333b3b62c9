"""Routes in the real Caddy: what is applied is there, nothing else is disturbed, and what is taken away comes back."""

import json
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from core.caddy_config import Json
from shell.adapters.caddy import Caddy
from shell.adapters.caddy.admin import Admin
from shell.failure import AdapterError
from tests.caddy_documents import Person, answer, persons
from tests.core.test_caddy_change import foreign, servers_of
from tests.lab.caddy_proxy import ALLOWED, Proxy, proxy_to_be, route
from tests.lab.ports import accepts, free_port
from tests.lab.process import LabError, run
from tests.lab.wait import PATIENCE_S, wait_for
from tests.lab.web import closed_port, web_server

pytestmark = pytest.mark.real

PEOPLE = Person(https_port=1, other_port=2)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """No Caddy yet; whatever is started is taken away."""
    with proxy_to_be(tmp_path) as made:
        yield made


@pytest.fixture
def person(proxy: Proxy) -> Person:
    return Person(https_port=proxy.settings.base.https_port, other_port=free_port())


def test_a_bare_server_comes_to_serve(proxy: Proxy) -> None:
    """L4: no Caddy is not an empty one. L16: it is brought up, and a request over verified TLS reaches the backend."""
    with web_server("one") as backend:
        with pytest.raises(AdapterError, match="nothing listens"):
            proxy.fetch()
        proxy.apply(route(backend.address))
        assert proxy.fetch() == (route(backend.address),)
        with proxy.client() as client:
            assert client.get("/x").body == "one"
            assert client.get("/__caddy_health__").status == 200
        for name in ("unrouted.test", "stranger.test"):
            with proxy.client(name) as client, pytest.raises(ssl.SSLError):
                client.get()
    line = json.loads(Path(proxy.settings.base.access_log).read_text().splitlines()[0])
    assert (line["request"]["uri"], line["status"]) == ("/x", 200)
    assert anyio.run(proxy.caddy.version) == (2, 6)


@pytest.mark.parametrize("what", persons(PEOPLE))
def test_a_persons_configuration_is_not_disturbed(proxy: Proxy, person: Person, what: str) -> None:
    """L20: a server found by its listener, with odd or no routes, gets our route and keeps all else in its order."""
    proxy.start(persons(person)[what])
    before = proxy.admin("GET", "/config/")
    with web_server("ours") as backend:
        proxy.apply(route(backend.address))
        assert proxy.fetch() == (route(backend.address),)
        with proxy.client() as client:
            assert client.get().body == "ours"
    after = proxy.admin("GET", "/config/")
    for name, server in servers_of(before).items():
        assert foreign(servers_of(after)[name]) == foreign(server)  # type: ignore[arg-type]  # JSON of unknown shape
    del before["apps"]["http"]["servers"], after["apps"]["http"]["servers"]
    assert after == before


def test_a_persons_routes_still_answer(proxy: Proxy, person: Person) -> None:
    """L20: a host that is none of ours falls through to what a person made."""
    proxy.start(person.config(answer("a", "a.test"), answer("rest")))
    with closed_port() as port:
        proxy.apply(route(f"127.0.0.1:{port}"))
    for host, words in (("a.test", "a"), ("b.test", "rest")):
        with proxy.client(host) as client:
            assert client.get().body == words


def test_the_base_is_added_beside_a_persons_other_server(proxy: Proxy, person: Person) -> None:
    """L20: a missing TLS server is made; Debian's page on another port stays."""
    proxy.start(person.without_tls_server())
    with pytest.raises(AdapterError, match="incomplete"):
        proxy.fetch()
    with web_server("one") as backend:
        proxy.apply(route(backend.address))
        with proxy.client() as client:
            assert client.get().body == "one"
    assert run(["curl", "-sS", f"http://127.0.0.1:{person.other_port}/"]) == "other"


def emptied(proxy: Proxy) -> None:
    proxy.admin("POST", "/load", {"admin": {"listen": proxy.settings.admin, "config": {"persist": False}}})


def without_log(proxy: Proxy) -> None:
    proxy.admin("DELETE", "/config/logging/logs/techulus")


def without_certificates(proxy: Proxy) -> None:
    proxy.admin("DELETE", "/config/apps/tls")


def without_our_server(proxy: Proxy) -> None:
    proxy.admin("DELETE", "/config/apps/http/servers/techulus")


@pytest.mark.parametrize("harm", [emptied, Proxy.kill, without_log, without_certificates, without_our_server])
def test_what_is_taken_away_is_seen_and_put_back(proxy: Proxy, harm: Callable[[Proxy], None]) -> None:
    """L4: what is served now counts: an emptied or killed Caddy is drift, and converges."""
    with web_server("one") as backend:
        proxy.apply(route(backend.address))
        harm(proxy)
        with pytest.raises(AdapterError):
            proxy.fetch()
        proxy.apply(route(backend.address))
        assert proxy.fetch() == (route(backend.address),)
        with proxy.client() as client:
            assert client.get().body == "one"
    assert len(proxy.pids()) == 1


def test_certificates_come_back_without_the_control_plane(proxy: Proxy) -> None:
    """L29: after a reboot with the control plane away, domains that had a certificate are served."""
    with web_server("one") as backend:
        with web_server(allowed=ALLOWED) as control_plane:
            base = replace(proxy.settings.base, control_plane=f"http://{control_plane.address}")
            proxy = Proxy(replace(proxy.settings, base=base))
            proxy.apply(route(backend.address))
            with proxy.client() as client:
                assert client.get().body == "one"
        proxy.kill()
        proxy.apply(route(backend.address))
        with proxy.client() as client:
            assert client.get().body == "one"


@pytest.mark.parametrize("unix", [False, True])
def test_caddy_outlives_the_agent_and_is_adopted(proxy: Proxy, tmp_path: Path, *, unix: bool) -> None:
    """L20: a second agent finds the first one's Caddy and starts none; also by a socket in the file system."""
    admin = f"unix/{tmp_path}/admin.sock" if unix else proxy.settings.admin
    proxy = Proxy(replace(proxy.settings, admin=admin))
    proxy.apply(route("127.0.0.1:1"))
    pids = proxy.pids()
    assert proxy.fetch() == (route("127.0.0.1:1"),)
    proxy.apply(route("127.0.0.1:2"))
    assert proxy.fetch() == (route("127.0.0.1:2"),)
    assert proxy.pids() == pids


def test_a_caddy_at_another_admin_address_is_replaced(proxy: Proxy) -> None:
    """Two that share the ports would each get a part of the requests."""
    proxy.apply(route("127.0.0.1:1"))
    (first,) = proxy.pids()
    moved = Proxy(replace(proxy.settings, admin=f"127.0.0.1:{free_port()}"))
    moved.apply(route("127.0.0.1:1"))
    (second,) = moved.pids()
    assert first != second


def test_none_is_started_beside_somebody_elses(proxy: Proxy) -> None:
    """Caddy opens ports so that another one can share them without an error; then it is said, and nothing is started."""
    with web_server(port=proxy.settings.base.https_port), pytest.raises(AdapterError, match="something else listens"):
        proxy.apply(route("127.0.0.1:1"))
    assert proxy.pids() == []


def test_what_is_not_caddy_is_never_written_to(proxy: Proxy) -> None:
    """L20: on any read error nothing is written."""
    host, _, port = proxy.settings.admin.rpartition(":")
    assert host == "127.0.0.1"
    with web_server("null", int(port)) as stranger:
        with pytest.raises(AdapterError, match="not Caddy"):
            proxy.apply(route("127.0.0.1:1"))
        assert {one.split()[0] for one in stranger.seen} == {"GET"}


def test_somebody_elses_change_is_not_overwritten(proxy: Proxy) -> None:
    """L20: a change between our reading and our writing of the whole configuration makes us read again."""
    proxy.apply(route("127.0.0.1:1"))
    logs = [replace(proxy.settings.base, access_log=f"{proxy.settings.base.access_log}.{n}") for n in range(2)]
    agents = [Proxy(replace(proxy.settings, base=base)).caddy for base in logs]

    added: list[Json] = []

    async def rewrite() -> None:
        number = 0
        while number < 20 or len(added) <= 10:
            await until_applied(agents[number % 2])
            number += 1

    async def add() -> None:
        number = 0
        while number < 20 or len(added) <= 10:
            number += 1
            path, new = "/config/apps/http/servers/techulus/routes", answer(str(number), f"h{number}.test")
            with suppress(
                LabError
            ):  # Caddy breaks connections to its admin API while it loads; then nothing was promised
                await anyio.to_thread.run_sync(proxy.admin, "POST", path, new)
                added.append(new)

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rewrite)
            tasks.start_soon(add)

    anyio.run(both)
    routes = proxy.admin("GET", "/config/apps/http/servers/techulus/routes")
    assert [one for one in routes if one in added] == added


async def until_applied(caddy: Caddy) -> None:
    """As the agent does it: what failed is tried again."""
    for _ in range(10):
        try:
            return await caddy.apply((route("127.0.0.1:1"),))
        except AdapterError:
            continue
    raise AssertionError("never applied")


def test_an_outdated_write_is_refused(proxy: Proxy) -> None:
    """L20: Caddy itself holds the change against the configuration that it was made for."""
    proxy.apply(route("127.0.0.1:1"))

    async def race() -> bool:
        admin = Admin(proxy.settings.admin, timeout_s=10)
        etag = (await admin.get("/config/")).etag or ""
        proxy.admin("POST", "/config/apps/http/servers/techulus/routes", answer("x", "x.test"))
        return (await admin.send("PATCH", "/id/techulus", b"{}", etag)).is_outdated

    assert anyio.run(race)


def test_a_program_newer_than_the_running_caddy(proxy: Proxy, tmp_path: Path) -> None:
    """What the running one does not know is left out after its first refusal."""
    newer = tmp_path / "caddy-newer"
    newer.write_text("#!/bin/sh\necho v2.9.1 h1:x\n")
    newer.chmod(0o755)
    proxy.apply(route("127.0.0.1:1"))
    upgraded = Proxy(replace(proxy.settings, binary=str(newer)))
    upgraded.apply(route("127.0.0.1:2"))
    assert proxy.fetch() == (route("127.0.0.1:2"),)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"binary": "no-such-caddy"}, "not installed"), ({"unit": "no-such.service"}, "start no-such.service")],
)
def test_what_cannot_be_started_is_said(proxy: Proxy, changes: dict[str, Any], why: str) -> None:
    """L16: a missing Caddy is a failure of Caddy's part alone, with a reason."""
    with pytest.raises(AdapterError, match=why):
        Proxy(replace(proxy.settings, **changes)).apply(route("127.0.0.1:1"))


def test_a_configuration_that_caddy_refuses_is_said(proxy: Proxy) -> None:
    """L16: with Caddy's own words, and what runs goes on."""
    proxy.apply(route("127.0.0.1:1"))
    refused = replace(proxy.settings.base, listen="203.0.113.1")  # not an address of this network
    with pytest.raises(AdapterError, match="answered 500"):
        Proxy(replace(proxy.settings, base=refused)).apply(route("127.0.0.1:1"))
    assert proxy.fetch() == (route("127.0.0.1:1"),)


def test_certificates_are_asked_for_served_domains_only(proxy: Proxy) -> None:
    """L61: a control plane that allows every name gets no certificate by that; one that is served no longer gets none any more."""
    with (
        web_server("one") as backend,
        web_server(allowed=frozenset({"app.test", "a.wild.test", "unrouted.test"})) as plane,
    ):
        base = replace(proxy.settings.base, control_plane=f"http://{plane.address}")
        proxy = Proxy(replace(proxy.settings, base=base))
        proxy.apply(route(backend.address), route(backend.address, "*.wild.test"))
        for name in ("app.test", "a.wild.test"):
            with proxy.client(name) as client:
                assert client.get().body == "one"
        for name in ("unrouted.test", "localhost", "a.b.wild.test"):
            with proxy.client(name) as client, pytest.raises(ssl.SSLError):
                client.get()
        asked = [one.partition("domain=")[2] for one in plane.seen]
        assert set(asked) == {"app.test", "a.wild.test"}
        proxy.apply()
        with proxy.client("b.wild.test") as client, pytest.raises(ssl.SSLError):
            client.get()
        assert [one.partition("domain=")[2] for one in plane.seen] == asked


def moved_to(socket: Path, proxy: Proxy) -> Proxy:
    """The same proxy for an agent of today: its admin API belongs on a socket, and may still be where it was."""
    return Proxy(replace(proxy.settings, admin=f"unix/{socket}", elsewhere=(proxy.settings.admin,)))


def test_an_admin_api_that_anybody_could_reach_is_moved(proxy: Proxy, tmp_path: Path) -> None:
    """L61: onto a socket which only its user can open; the same Caddy goes on, and survives being killed with the socket left over."""
    socket = tmp_path / "admin/admin.sock"
    host, _, port = proxy.settings.admin.rpartition(":")
    proxy.apply(route("127.0.0.1:1"))
    pids = proxy.pids()
    now = moved_to(socket, proxy)
    with pytest.raises(AdapterError, match="incomplete"):
        now.fetch()
    assert anyio.run(now.caddy.fetch_admin)[0] == proxy.settings.admin
    now.apply(route("127.0.0.1:1"))
    assert now.fetch() == (route("127.0.0.1:1"),) and now.pids() == pids
    wait_for(lambda: not accepts(host, int(port)), PATIENCE_S, "the end of the old address")
    assert anyio.run(now.caddy.fetch_admin) == (now.settings.admin, ())
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700 and not stat.S_IMODE(socket.stat().st_mode) & 0o022
    now.kill()
    now.apply(route("127.0.0.1:2"))
    assert now.fetch() == (route("127.0.0.1:2"),) and not accepts(host, int(port))


@pytest.mark.parametrize("obstacle", ["admin", "admin/admin.sock/directory"])
def test_routes_do_not_wait_for_an_admin_api_that_cannot_be_moved(proxy: Proxy, tmp_path: Path, obstacle: str) -> None:
    """L16: no folder for the socket can be made, or Caddy refuses to listen there; a Caddy that served before goes on to be updated."""
    proxy.apply(route("127.0.0.1:1"))
    if obstacle == "admin":
        (tmp_path / obstacle).touch()
    else:
        (tmp_path / obstacle).mkdir(parents=True)
    caddy, pids = moved_to(tmp_path / "admin/admin.sock", proxy).caddy, proxy.pids()
    for wanted in (route("127.0.0.1:2"), route("127.0.0.1:2", "other.test")):
        anyio.run(caddy.apply, (wanted,))
        assert anyio.run(caddy.fetch) == (wanted,)
    assert anyio.run(caddy.fetch_admin)[0] == proxy.settings.admin and proxy.pids() == pids


def test_a_persons_admin_api_stays_where_it_is(proxy: Proxy, person: Person, tmp_path: Path) -> None:
    """L20: it is used there, and named by the doctor (L61)."""
    proxy.start(person.config(answer("a", "a.test")))
    now = moved_to(tmp_path / "admin/admin.sock", proxy)
    now.apply(route("127.0.0.1:1"))
    assert now.fetch() == (route("127.0.0.1:1"),)
    assert anyio.run(now.caddy.fetch_admin) == (proxy.settings.admin, ())


def test_what_was_planted_in_our_server_is_named(proxy: Proxy) -> None:
    """L20, L61: nobody can tell it from what the operator has added, so it stays, and is named."""
    proxy.apply(route("127.0.0.1:1"))
    planted: Json = {"match": [{"host": ["evil.test"]}], "handle": [{"handler": "file_server", "root": "/"}]}
    proxy.admin("POST", "/config/apps/http/servers/techulus/routes", planted)
    proxy.apply(route("127.0.0.1:1"), route("127.0.0.1:1", "other.test"))
    assert anyio.run(proxy.caddy.fetch_admin)[1] == ("evil.test by file_server in the server techulus",)
