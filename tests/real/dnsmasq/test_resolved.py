"""With the real systemd-resolved in front, on a server of a cloud whose own names are under `.internal`, too."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import dns.exception
import pytest

from core.dns import Record
from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings, process
from shell.failure import AdapterError
from tests.lab.process import Child, run
from tests.lab.resolved import STUB, SystemdResolved
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.dnsmasq.server import RECORDS, WEB, answers, ask

pytestmark = pytest.mark.real

_CLOUD = "198.51.100.9"
_METADATA, _VM = "metadata.google.internal", "vm.zone.c.project.internal"
_KNOWN = {_METADATA: "169.254.169.254", _VM: "192.0.2.7", "www.example.org": "203.0.113.5"}
_CONFIGURATION = f"""\
port=53
listen-address={_CLOUD}
bind-interfaces
no-resolv
no-hosts
user=root
log-queries
log-facility=-
pid-file=
local=/internal/
{"".join(f"host-record={name},{address}{chr(10)}" for name, address in _KNOWN.items())}"""


@pytest.fixture
def cloud(folder: Path) -> Iterator[Child]:
    """The resolver of a cloud, on a link of this server."""
    for command in ("link add cloud0 type bridge", f"address add {_CLOUD}/24 dev cloud0", "link set cloud0 up"):
        run(("ip", *command.split()))
    # Without a port that is up, a bridge has no carrier, and systemd-resolved no use for it.
    for command in (
        "link add port0 type veth peer name port1",
        "link set port0 master cloud0",
        "link set port0 up",
        "link set port1 up",
    ):
        run(("ip", *command.split()))
    (folder / "cloud.conf").write_text(_CONFIGURATION)
    child = Child(
        ("/usr/sbin/dnsmasq", "--keep-in-foreground", f"--conf-file={folder}/cloud.conf"), folder / "cloud.log"
    )
    wait_for(partial(answers, _CLOUD, _METADATA), PATIENCE_S, "the cloud's resolver")
    yield child
    child.stop()
    run(("ip", "link", "delete", "port0"))
    run(("ip", "link", "delete", "cloud0"))


@pytest.fixture
def front(folder: Path, cloud: Child, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemdResolved]:
    """systemd-resolved, which the adapter restarts as systemd would."""
    with SystemdResolved(folder / "front", "cloud0", _CLOUD) as running:

        def systemctl(verb: str, unit: str) -> None:
            assert (verb, unit) == ("try-reload-or-restart", "systemd-resolved.service") or verb == "try-restart"
            running.restart()

        monkeypatch.setattr(process, "systemctl", systemctl)
        wait_for(lambda: resolves(_METADATA) == {_KNOWN[_METADATA]}, PATIENCE_S, "the server as it was before")
        yield running


@pytest.fixture
def server(settings: DnsmasqSettings, front: SystemdResolved) -> Iterator[Dnsmasq]:
    """The adapter on that server."""
    settings.resolv_conf.write_text(f"nameserver {STUB}\n")
    adapter = Dnsmasq(replace(settings, resolved=front.directory, resolved_drop_ins=front.drop_ins))
    yield adapter
    anyio.run(adapter.stop)


def resolves(name: str) -> set[str]:
    """What a program on the server comes to; it asks again, as resolvers do, when its first question is lost."""
    with contextlib.suppress(OSError, dns.exception.DNSException):
        return ask(name, server=STUB)[1]
    return set()


def test_a_clouds_names_answer_as_before(server: Dnsmasq, front: SystemdResolved, cloud: Child) -> None:
    """L62: names of others are asked of the server's own servers; what is served here is asked here, and nowhere else."""
    anyio.run(server.apply, RECORDS)
    assert anyio.run(server.fetch) == RECORDS
    for name, address in _KNOWN.items():
        assert resolves(name) == {address}
    for record in RECORDS:
        assert resolves(record.name) == set(record.ips)
    assert resolves("no.internal") == set()
    asked = [line.split("] ")[1].split(" ")[0] for line in cloud.log.read_text().splitlines() if ": query[" in line]
    assert _VM in asked and not {record.name for record in RECORDS} & set(asked), "L22"
    anyio.run(server.stop)
    assert resolves(_METADATA) == {_KNOWN[_METADATA]} and list(front.drop_ins.iterdir()) == []


def test_with_nothing_served_nothing_changes(server: Dnsmasq) -> None:
    """L62."""
    anyio.run(server.apply, ())
    assert anyio.run(server.fetch) == ()
    assert {name: resolves(name) for name in _KNOWN} == {name: {address} for name, address in _KNOWN.items()}


def test_more_names_than_it_takes(server: Dnsmasq, front: SystemdResolved) -> None:
    """All of them are answered, the cloud's too, and it has nothing to warn of."""
    records = tuple(sorted(Record(f"s{number}.internal", ("10.200.1.2",)) for number in range(400)))
    anyio.run(server.apply, records)
    assert [resolves(record.name) for record in (records[0], records[-1])] == [{"10.200.1.2"}] * 2
    assert resolves(_METADATA) == {_KNOWN[_METADATA]}
    assert "ignoring" not in front.log


def test_names_that_come_and_go_do_not_restart_it_without_end(server: Dnsmasq, front: SystemdResolved) -> None:
    """L62: a restart is a moment without a resolver, and systemd allows few; until the next one new names are answered all the same."""
    before = front.starts
    for number in range(10):
        anyio.run(server.apply, (Record(f"n{number}.internal", ("10.200.1.2",)),))
    assert front.starts == before + 1
    assert resolves("n9.internal") == {"10.200.1.2"}
    assert anyio.run(server.fetch) == (Record("n9.internal", ("10.200.1.2",)),)
    server._resolved._rests_until = 0
    with pytest.raises(AdapterError, match="does not ask it"):
        anyio.run(server.fetch)
    anyio.run(server.apply, (WEB,))
    assert front.starts == before + 2 and resolves("web.internal") == set(WEB.ips)


def test_a_drop_in_of_an_older_agent_is_replaced(server: Dnsmasq, front: SystemdResolved) -> None:
    """L62: which took the whole zone."""
    anyio.run(server.apply, RECORDS)
    (drop_in,) = front.drop_ins.iterdir()
    drop_in.write_text(f"{drop_in.read_text().splitlines()[0]}\n[Resolve]\nDNS=127.0.0.153\nDomains=~internal\n")
    front.restart()
    assert resolves(_METADATA) == set(), "as it was"
    server._resolved._rests_until = 0  # another agent
    with pytest.raises(AdapterError, match="does not ask it"):
        anyio.run(server.fetch)
    anyio.run(server.apply, RECORDS)
    assert resolves(_METADATA) == {_KNOWN[_METADATA]}
