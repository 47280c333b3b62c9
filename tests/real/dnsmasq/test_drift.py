"""What counts as drift of DNS on the real dnsmasq, and is put right."""

import os
import signal

import anyio
import pytest

from core import dnsmasq as texts
from core.dns import Record
from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings
from shell.failure import AdapterError
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.dnsmasq.server import (
    DATABASE,
    GATEWAY,
    LOOPBACK,
    OUTSIDE,
    RECORDS,
    UPSTREAMS,
    WEB,
    agents_limits,
    ask,
    ours,
    pid,
)

pytestmark = pytest.mark.real


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("edited", [(), (WEB,), (DATABASE, Record("evil.internal", ("10.9.9.9",)), WEB)])
def test_a_file_edited_by_hand_is_drift_and_put_right(
    adapter: Dnsmasq, settings: DnsmasqSettings, edited: tuple[Record, ...], loaded: bool
) -> None:
    """L4: whether or not dnsmasq has read it, and even when the edit is what is expected by now."""
    anyio.run(adapter.apply, RECORDS)
    before, path = pid(settings), settings.directory / "records"
    marker = path.read_text().split("\n")[1]
    path.write_text(marker + "\n" + "\n".join(f"{ip} {one.name}" for one in edited for ip in one.ips) + "\n")
    if loaded:
        os.kill(before, signal.SIGHUP)
        wait_for(lambda: all(ask(one.name)[1] == set(one.ips) for one in edited), PATIENCE_S, "the edit to be served")
    for reader in (adapter, Dnsmasq(settings)):
        found = anyio.run(reader.fetch)
        assert found not in (RECORDS, edited)
        assert set(edited) <= set(found)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    assert ask("evil.internal") == ("NXDOMAIN", set())
    assert pid(settings) == before


def test_an_edit_that_was_loaded_and_taken_back_is_seen(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """L4: the file is as it was written, and dnsmasq serves more than it says."""
    anyio.run(adapter.apply, RECORDS)
    path = settings.directory / "records"
    written = path.read_text()
    path.write_text(f"{written}10.9.9.9 evil.internal\n")
    os.kill(pid(settings), signal.SIGHUP)
    wait_for(lambda: ask("evil.internal")[0] == "NOERROR", PATIENCE_S, "the edit to be served")
    path.write_text(written)
    with pytest.raises(AdapterError, match="someone else"):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    assert ask("evil.internal") == ("NXDOMAIN", set())


def test_a_reload_that_never_came_is_seen(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """L4: an agent killed between writing and signalling leaves a good file that nobody has read."""
    anyio.run(adapter.apply, (WEB,))
    (settings.directory / "records").write_text(texts.render_hosts(RECORDS, (UPSTREAMS[0],), "later"))
    for reader in (adapter, Dnsmasq(settings)):
        with agents_limits(), pytest.raises(AdapterError, match="another version"):
            anyio.run(reader.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS


@pytest.mark.parametrize("gone", ["records", "upstreams", "dnsmasq.pid"])
def test_a_file_that_is_gone_is_seen_and_put_right(adapter: Dnsmasq, settings: DnsmasqSettings, gone: str) -> None:
    """L4: dnsmasq still serves, and would not after its next start; one whose pid file is lost is replaced, not doubled."""
    anyio.run(adapter.apply, RECORDS)
    (settings.directory / gone).unlink()
    with pytest.raises(AdapterError):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    assert ours(settings) == [pid(settings)]


def test_other_resolvers_of_the_server_are_followed_without_a_restart(
    adapter: Dnsmasq, settings: DnsmasqSettings
) -> None:
    """A changed resolv.conf is drift of DNS; our own addresses in it, which would be a loop, are left out."""
    anyio.run(adapter.apply, RECORDS)
    before = pid(settings)
    settings.resolv_conf.write_text(f"nameserver {LOOPBACK}\nnameserver {GATEWAY}\nnameserver {UPSTREAMS[1]}\n")
    with pytest.raises(AdapterError, match="other resolvers"):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    assert ask("www.example.org") == ("NOERROR", {OUTSIDE[UPSTREAMS[1]]})
    settings.resolv_conf.write_text(f"nameserver {LOOPBACK}\n")
    anyio.run(adapter.apply, RECORDS)
    assert ask("www.example.org") == ("REFUSED", set())
    assert ask("web.internal") == ("NOERROR", set(WEB.ips))
    assert ours(settings) == [before]


def test_with_resolved_in_front_its_own_servers_are_asked(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """Its stub would ask us back for everything; the administrator's file of our drop-in's name stays."""
    drop_in = settings.resolved_drop_ins / "techulus-internal.conf"
    settings.resolved_drop_ins.mkdir()
    drop_in.write_text("[Resolve]\n")
    settings.resolved.mkdir()
    settings.resolv_conf.write_text("nameserver 127.0.0.53\n")
    (settings.resolved / "resolv.conf").write_text(f"nameserver {UPSTREAMS[1]}\nnameserver {LOOPBACK}\n")
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    assert ask("www.example.org") == ("NOERROR", {OUTSIDE[UPSTREAMS[1]]})
    assert drop_in.read_text() == "[Resolve]\n"


def test_without_resolved_there_is_no_drop_in(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """And where it cannot be told, the failure is said and looks like one the next time."""
    anyio.run(adapter.apply, RECORDS)
    assert not settings.resolved_drop_ins.exists()
    settings.resolved.mkdir()
    for _ in range(2):  # there is no systemd here
        with pytest.raises(AdapterError, match="systemctl"):
            anyio.run(adapter.apply, RECORDS)
        with pytest.raises(AdapterError, match="does not ask it"):
            anyio.run(adapter.fetch)
    assert list(settings.resolved_drop_ins.iterdir()) == []
