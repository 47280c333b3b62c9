"""A server with DNS of ours on it, as its clients and its process list see it."""

import contextlib
from collections.abc import Iterator

import dns.exception
import dns.message
import dns.query
import dns.rcode
import psutil
import pytest

from core import dnsmasq
from core.dns import Record
from shell.adapters.dnsmasq import DnsmasqSettings, adapter, listening, process
from tests.lab.wait import PATIENCE_S

GATEWAY = "10.200.77.1"
LOOPBACK = dnsmasq.LOOPBACK
UPSTREAMS = ("127.0.0.201", "127.0.0.202")
OUTSIDE = {"127.0.0.201": "203.0.113.1", "127.0.0.202": "203.0.113.2"}
WEB = Record("web.internal", ("10.200.1.2", "10.200.2.2", "10.200.3.2"))
DATABASE = Record("database.internal", ("10.200.1.3",))
RECORDS = (DATABASE, WEB)
LIMITS = (
    (adapter, "_QUERY_LIMIT_S"),
    (adapter, "_RELOAD_LIMIT_S"),
    (process, "_COMMAND_LIMIT_S"),
    (process, "_END_LIMIT_S"),
    (listening, "_LIMIT_S"),
)
_OF_THE_AGENT = tuple((module, name, getattr(module, name)) for module, name in LIMITS)


@contextlib.contextmanager
def agents_limits() -> Iterator[None]:
    """The limits that the agent has, for as long as the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, limit_s in _OF_THE_AGENT:
            patch.setattr(module, name, limit_s)
        yield


def ask(
    name: str, kind: str = "A", server: str = LOOPBACK, timeout_s: float = PATIENCE_S, tcp: bool = False
) -> tuple[str, set[str]]:
    """Response code and addresses (or other data)."""
    query = dns.message.make_query(name, kind)
    ask = dns.query.tcp if tcp else dns.query.udp
    answer = ask(query, server, timeout=timeout_s)
    return dns.rcode.to_text(answer.rcode()), {data.to_text() for rows in answer.answer for data in rows}


def answers(server: str, name: str) -> bool:
    with contextlib.suppress(OSError, dns.exception.DNSException):
        return ask(name, server=server, timeout_s=0.3)[0] == "NOERROR"
    return False


def pid(settings: DnsmasqSettings) -> int:
    return int((settings.directory / "dnsmasq.pid").read_text())


def ours(settings: DnsmasqSettings) -> list[int]:
    """Every process, known to the pid file or not, that has a configuration in this place."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(f"{settings.directory}/dnsmasq-" in argument for argument in one.cmdline()):
                found.append(one.pid)
    return found
