"""Requests through the real Caddy, over verified TLS: balanced, retried, upgraded, and not lost while routes change."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import anyio
import anyio.to_thread
import pytest

from tests.lab.caddy_proxy import Proxy, proxy_to_be, route
from tests.lab.https_client import Reply
from tests.lab.ports import free_port
from tests.lab.process import run
from tests.lab.wait import PATIENCE_S, wait_for
from tests.lab.web import closed_port, web_server

pytestmark = pytest.mark.real

CLIENTS, REQUESTS_A_SECOND, UPDATES = 20, 200, 20
UPDATE_EVERY_S, REQUESTS_AN_UPDATE = 0.2, 40
NEWCOMERS, MANY_UPDATES = 8, 40
MIGRATION = Path("/proc/sys/net/ipv4/tcp_migrate_req")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """No Caddy yet; whatever is started is taken away."""
    with proxy_to_be(tmp_path) as made:
        yield made


def test_http_redirects_and_http_2_passes(proxy: Proxy) -> None:
    """Port 80 leads to TLS, which speaks HTTP/2."""
    base = proxy.settings.base
    with web_server("one") as backend:
        proxy.apply(route(backend.address))
        plain = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", "Host: app.test"]
        assert run([*plain, f"http://127.0.0.1:{base.http_port}/a?b"]) == f"308 https://app.test:{base.https_port}/a?b"
        assert run([*plain, f"http://127.0.0.1:{base.http_port}/__caddy_health__"]).strip() == "200"
        resolved = ["--resolve", f"app.test:{base.https_port}:127.0.0.1", f"https://app.test:{base.https_port}/"]
        with proxy.client() as client:
            assert client.get().body == "one", "the certificate is older than the clock of curl may be late"
        said = run(["curl", "-sS", "--http2", "-w", " %{http_version}", "--cacert", str(proxy.root), *resolved])
        assert said == "one 2"


def test_a_dead_upstream_costs_no_request(proxy: Proxy) -> None:
    """L23: another upstream is tried, and the dead one left out for a while."""
    with web_server("alive") as backend, closed_port() as dead, ExitStack() as clients:
        proxy.apply(route([backend.address, f"127.0.0.1:{dead}"]))
        for _ in range(10):
            client = clients.enter_context(proxy.client())
            assert [client.get().body for _ in range(5)] == ["alive"] * 5


def test_several_upstreams_take_turns(proxy: Proxy) -> None:
    """Replicas share the requests."""
    with web_server("a") as one, web_server("b") as two:
        proxy.apply(route([one.address, two.address]))
        with proxy.client() as client:
            assert {client.get().body for _ in range(10)} == {"a", "b"}


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_request_waits_for_upstreams_that_are_being_replaced(proxy: Proxy, replicas: int) -> None:
    """L18, L23: with no upstream there for a moment a request takes longer and does not fail."""
    ports = [free_port() for _ in range(replicas)]
    proxy.apply(route([f"127.0.0.1:{port}" for port in ports]))

    before = refused_connections()
    with ThreadPoolExecutor(1) as threads, proxy.client() as client, ExitStack() as back:
        reply = threads.submit(client.get)
        wait_for(lambda: refused_connections() >= before + replicas, PATIENCE_S, "a try at every upstream")
        for port in ports:
            back.enter_context(web_server("back", port))
        assert reply.result(PATIENCE_S) == Reply(200, "back")


def refused_connections() -> int:
    """How many connections were refused so far in this network."""
    names, values = (
        line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if "Tcp:" in line
    )
    return int(values[names.index("AttemptFails")])


def test_a_websocket_passes(proxy: Proxy) -> None:
    """An upgraded stream goes through in both directions."""
    with web_server() as backend:
        proxy.apply(route(backend.address))
        with proxy.client().upgraded() as stream:
            for words in (b"hello", b"again"):
                stream.sendall(words)
                assert stream.recv(100) == words


def test_no_request_is_lost_while_routes_change(proxy: Proxy) -> None:
    """L20: 200 requests a second during 20 updates; a kept connection that Caddy closes between two requests may be reopened."""
    with web_server("one") as backend:
        stays = route(backend.address)
        proxy.apply(stays)
        replies: list[str] = []

        async def ask(stop: anyio.Event) -> None:
            with proxy.client() as client:
                due = anyio.current_time()
                while not stop.is_set():
                    replies.append((await anyio.to_thread.run_sync(client.get)).body)
                    due += CLIENTS / REQUESTS_A_SECOND
                    await anyio.sleep_until(due)

        async def load() -> None:
            caddy, stop = proxy.caddy, anyio.Event()
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(ask, stop)
                for number in range(UPDATES):
                    await anyio.sleep(UPDATE_EVERY_S)
                    while len(replies) < number * REQUESTS_AN_UPDATE:  # noqa: ASYNC110  # the clients tell nobody
                        await anyio.sleep(0.01)
                    await caddy.apply((route(backend.address, "other.test"), stays) if number % 2 else (stays,))
                stop.set()

        proxy.apply(stays, route(backend.address, "other.test"))
        anyio.run(load)
    assert set(replies) == {"one"}


def test_no_new_connection_is_reset_while_routes_change(proxy: Proxy) -> None:
    """L69: one that waits to be accepted goes to the listener of the new configuration. Without that, one in ten updates reset one."""
    with web_server("one") as backend, ThreadPoolExecutor(NEWCOMERS) as threads:
        stays = route(backend.address)
        proxy.apply(stays)
        MIGRATION.write_text("0")  # as it is after a start of the server, and when somebody sets it so
        over = Event()

        def ask() -> set[str]:
            replies = set()
            while not over.is_set():
                with proxy.client() as client:
                    replies.add(client.get().body)
            return replies

        async def updates() -> None:
            for number in range(MANY_UPDATES):
                await proxy.caddy.apply((stays,) if number % 2 else (route(backend.address, "other.test"), stays))

        asked = [threads.submit(ask) for _ in range(NEWCOMERS)]
        try:
            anyio.run(updates)
        finally:
            over.set()
        assert set().union(*(one.result(PATIENCE_S) for one in asked)) == {"one"}
    assert MIGRATION.read_text() == "1\n"


def test_nothing_is_sent_without_a_difference(proxy: Proxy) -> None:
    """L20: every reload ends streams, so there is none for nothing."""
    with web_server() as backend:
        proxy.apply(route(backend.address))
        with proxy.client().upgraded() as stream:  # a reload would close it
            proxy.apply(route(backend.address))
            proxy.fetch()
            stream.sendall(b"still here")
            assert stream.recv(100) == b"still here"
