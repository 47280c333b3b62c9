"""What the real dnsmasq answers with our files, where, and while they change.

Every test process has a network of its own, so that port 53 and the addresses are those of a real server.
"""

import socket
import threading
import time
from functools import partial

import anyio
import dns.message
import dns.rcode
import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis

from core import bounds
from core.dns import Record
from core.dnsmasq import render_hosts
from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings, files
from shell.failure import AdapterError
from tests.core.test_dnsmasq import TABLES
from tests.lab.process import Child, run
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.dnsmasq.server import (
    GATEWAY,
    LOOPBACK,
    OUTSIDE,
    RECORDS,
    UPSTREAMS,
    WEB,
    agents_limits,
    answers,
    ask,
    pid,
)

pytestmark = pytest.mark.real


def test_names_are_answered_with_all_their_addresses(adapter: Dnsmasq) -> None:
    """L5, L22: read back as they were applied; other types of a name that exists are NODATA."""
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    for _ in range(3):  # the order of the addresses changes with every answer
        assert ask("web.internal") == ("NOERROR", set(WEB.ips))
    assert ask("WEB.Internal") == ("NOERROR", set(WEB.ips))
    for other in ("AAAA", "TXT", "MX", "HTTPS"):
        assert ask("web.internal", other) == ("NOERROR", set())


def test_names_with_as_many_addresses_as_are_taken(adapter: Dnsmasq) -> None:
    """L55: dnsmasq compares each address of a name with those before it, and answers nobody meanwhile."""
    ips = tuple(sorted(f"10.200.{n // 250}.{n % 250 + 1}" for n in range(bounds.NAME_ADDRESSES)))
    records = tuple(Record(f"n{n}.internal", ips) for n in range(10, 30))
    anyio.run(adapter.apply, records)  # which has asked for each of them
    assert anyio.run(adapter.fetch) == records


def test_all_records_that_are_taken_fit_into_what_is_read_of_their_file() -> None:
    """Names as long as names may be: what is cut off would read as somebody else's file, for ever."""
    longest = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 52}.internal"
    assert len(longest) == 253
    line = render_hosts([Record(longest, ("10.200.255.254",))]).splitlines(keepends=True)[-1]
    assert bounds.RECORD_ADDRESSES * len(line.replace("10.200.255.254", "255.255.255.255")) < files.MOST_BYTES - 4096


def test_what_is_not_known_here_is_asked_outside_except_under_our_zone(
    adapter: Dnsmasq, upstreams: dict[str, Child]
) -> None:
    """L22: unknown names of ours are NXDOMAIN, sub-domains of a record too, and neither ever leaves the server."""
    anyio.run(adapter.apply, RECORDS)
    for name in ("no.internal", "sub.web.internal", "a.b.c.internal"):
        for kind in ("A", "AAAA", "TXT", "SRV"):
            assert ask(name, kind) == ("NXDOMAIN", set())
    assert ask("internal")[1] == set()
    assert ask("plain")[1] == set()
    assert ask("9.9.200.10.in-addr.arpa", "PTR") == ("NXDOMAIN", set())
    assert ask("www.example.org") == ("NOERROR", {OUTSIDE[UPSTREAMS[0]]})
    log = upstreams[UPSTREAMS[0]].log
    wait_for(lambda: "www.example.org" in log.read_text(), PATIENCE_S, "the question in the resolver's log")
    asked = [line.split("] ")[1].split(" ")[0] for line in log.read_text().splitlines() if ": query[" in line]
    assert set(asked) == {"ready.example", "www.example.org"}


@pytest.mark.parametrize("count", [0, 1, 200, 3000])
def test_any_number_of_records_and_addresses(adapter: Dnsmasq, count: int) -> None:
    """L5: none, many; and a name with so many addresses that the answer goes over TCP."""
    many = Record("many.internal", tuple(sorted(f"10.200.{n // 250}.{n % 250 + 1}" for n in range(min(count, 200)))))
    records = tuple(sorted([Record(f"s{n}.internal", ("10.200.1.2",)) for n in range(count)] + [many] * bool(count)))
    anyio.run(adapter.apply, records)
    assert anyio.run(adapter.fetch) == records
    if count:
        assert ask("many.internal", tcp=True) == ("NOERROR", set(many.ips))


@settings_of_hypothesis(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES)
def test_any_records_are_read_back_from_what_is_served(adapter: Dnsmasq, records: tuple[Record, ...]) -> None:
    """L5: the same tables as for the rendering alone, here through dnsmasq; and each name is asked for."""
    anyio.run(adapter.apply, records)
    assert anyio.run(adapter.fetch) == records
    for record in records:
        assert ask(record.name) == ("NOERROR", set(record.ips))


def test_names_at_the_edge_of_what_is_allowed_are_served(adapter: Dnsmasq) -> None:
    """L5, L34: whatever our check lets through, dnsmasq takes."""
    longest = ".".join(["a" * 63] * 3 + ["b" * 52, "internal"])
    names = [
        "0.internal",
        "1.2.3.4.internal",
        "a--b.internal",
        "xn--.internal",
        "xn--zz--.a.internal".replace("--.", "-0."),
    ]
    names += ["xn--bcher-kva.internal", "internal.internal", "localhost.internal", f"{'x' * 63}.internal", longest]
    records = tuple(sorted(Record(name, ("0.0.0.0", "255.255.255.255")) for name in names))
    anyio.run(adapter.apply, records)
    assert anyio.run(adapter.fetch) == records
    for record in records:
        assert ask(record.name) == ("NOERROR", set(record.ips))


def test_the_gateway_is_served_whenever_it_is_there(adapter: Dnsmasq, bridge: str) -> None:
    """The containers' bridge comes after dnsmasq, goes with the last container and comes again."""
    anyio.run(adapter.apply, RECORDS)
    assert adapter.resolver_for_containers() == GATEWAY
    for _ in range(2):
        run(("ip", "link", "add", "name", bridge, "type", "bridge"))
        run(("ip", "address", "add", f"{GATEWAY}/24", "dev", bridge))
        run(("ip", "link", "set", bridge, "up"))
        assert anyio.run(adapter.fetch) == RECORDS
        assert ask("web.internal", server=GATEWAY) == ("NOERROR", set(WEB.ips))
        run(("ip", "link", "delete", bridge))
        assert anyio.run(adapter.fetch) == RECORDS


def test_a_gateway_that_another_server_holds_is_said(adapter: Dnsmasq, bridge: str) -> None:
    """L4: answers on loopback alone are not what containers are served."""
    run(("ip", "link", "add", "name", bridge, "type", "bridge"))
    run(("ip", "address", "add", f"{GATEWAY}/24", "dev", bridge))
    run(("ip", "link", "set", bridge, "up"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((GATEWAY, 53))
        with agents_limits(), pytest.raises(AdapterError, match=GATEWAY):
            anyio.run(adapter.apply, RECORDS)


def test_nothing_listens_where_the_world_could_ask(adapter: Dnsmasq, settings: DnsmasqSettings, bridge: str) -> None:
    """L22: with another address on the server, queries there find no resolver; neither does the usual loopback."""
    run(("ip", "link", "add", "name", bridge, "type", "bridge"))
    run(("ip", "address", "add", "198.51.100.7/24", "dev", bridge))
    run(("ip", "link", "set", bridge, "up"))
    anyio.run(adapter.apply, RECORDS)
    listening = {one.laddr.ip for one in psutil.Process(pid(settings)).net_connections() if one.laddr.port == 53}
    assert listening == {LOOPBACK}
    assert not answers("198.51.100.7", "web.internal")
    assert not answers("127.0.0.1", "web.internal")


class Asker:
    """A client that asks for one name at a steady pace, catching up when it was held up, and keeps every answer."""

    def __init__(self, per_second: float) -> None:
        self.answers: list[bytes | None] = []
        self._pace_s = 1 / per_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        query = dns.message.make_query("web.internal", "A").to_wire()
        started = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((LOOPBACK, 53))
            client.settimeout(PATIENCE_S)
            while not self._over.wait(max(0.0, started + len(self.answers) * self._pace_s - time.monotonic())):
                client.send(query)
                try:
                    self.answers.append(client.recv(4096))
                except TimeoutError:
                    self.answers.append(None)


def test_no_query_is_lost_while_records_change(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """L20: 500 queries a second during 20 updates of 100 other records; none lost, none wrongly NXDOMAIN."""
    anyio.run(adapter.apply, RECORDS)
    before, askers = pid(settings), [Asker(125) for _ in range(4)]
    started = time.monotonic()
    for asker in askers:
        asker.start()
    try:
        for number in range(20):
            wait_for(partial(_asked, askers, 125 * (number + 1)), PATIENCE_S, "the next 125 queries")
            others = [Record(f"s{n}.internal", (f"10.200.{number}.2",)) for n in range(number, number + 100)]
            anyio.run(adapter.apply, tuple(sorted([*others, WEB])))
        wait_for(lambda: _asked(askers, round(450 * (time.monotonic() - started))), PATIENCE_S, "450 queries a second")
    finally:
        for asker in askers:
            asker.stop()
    replies = [reply for asker in askers for reply in asker.answers]
    assert {_meaning(reply) for reply in replies} == {("NOERROR", WEB.ips)}
    assert pid(settings) == before


def _asked(askers: list[Asker], count: int) -> bool:
    return sum(len(asker.answers) for asker in askers) >= count


def _meaning(reply: bytes | None) -> tuple[str, tuple[str, ...]]:
    if reply is None:
        return "lost", ()
    answer = dns.message.from_wire(reply)
    return dns.rcode.to_text(answer.rcode()), tuple(sorted(data.to_text() for rows in answer.answer for data in rows))
