"""What dnsmasq is told and what its files say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import address, dns, dnsmasq
from core.dns import Record
from core.dnsmasq import Place

PLACE = Place("/run/agent/dns", "127.0.0.153", "10.200.7.1", 53, "dnsmasq")
WEB = Record("web.internal", ("10.200.1.2", "10.200.2.2"))
DATABASE = Record("database.internal", ("10.200.1.3",))

_LABELS = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
_NAMES = st.lists(_LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "internal"]))
_ADDRESSES = st.one_of(st.sampled_from(["10.200.1.2", "10.200.2.2"]), st.ip_addresses(v=4).map(str))
_RECORDS = st.builds(lambda name, ips: Record(name, tuple(sorted(ips))), _NAMES, st.sets(_ADDRESSES, max_size=5))
TABLES = st.lists(_RECORDS, max_size=20).map(dns.union)
SERVERS = st.lists(st.ip_addresses().map(str), max_size=3, unique=True)
EDITIONS = st.from_regex(r"[0-9a-z]{1,29}", fullmatch=True)


@given(TABLES, SERVERS, EDITIONS)
def test_what_is_written_is_read_back(records: tuple[Record, ...], servers: list[str], edition: str) -> None:
    """L5: for duplicates, empty lists and any order that normalising leaves; the file is then as it was written."""
    read = dnsmasq.parse_hosts(dnsmasq.render_hosts(records, servers, edition), servers)
    assert read == dnsmasq.HostsFile(records, dnsmasq.marker_name(records, servers, edition))


@given(TABLES, TABLES, SERVERS)
def test_records_changed_by_hand_are_drift_whatever_is_expected(
    written: tuple[Record, ...], edited: tuple[Record, ...], servers: list[str]
) -> None:
    """L4: even when the new records are the expected ones, since it is not known whether they are loaded."""
    text = dnsmasq.render_hosts(written, servers).replace(_lines(written), _lines(edited), 1)
    read = dnsmasq.parse_hosts(text, servers)
    assert (read.marker is None) == (written != edited)
    assert (read.records == edited) == (written == edited)
    assert set(edited) <= set(read.records)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    """A file that is not ours at all is drift, not a fault."""
    read = dnsmasq.parse_hosts(text)
    assert read.marker is None
    assert read.records == dns.union(read.records) != ()


def test_a_marker_is_a_name_that_no_record_can_have_and_that_fits_in_a_label() -> None:
    """Its label is the longest that DNS allows with the longest edition."""
    marker = dnsmasq.marker_name((WEB,), ("192.0.2.53",), "z" * 29)
    assert not address.is_host_name(marker)
    assert marker.endswith(".internal") and len(marker.partition(".")[0]) == 63


def test_every_edition_and_every_server_has_its_own_marker() -> None:
    """A marker proves one writing: the records, the upstream servers, and when."""
    markers = {dnsmasq.marker_name((WEB,), servers, edition) for servers in ((), ("192.0.2.1",)) for edition in "12"}
    assert len(markers) == 4


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: "", id="emptied"),
        pytest.param(lambda text: re.sub(".*_techulus.*\n", "", text), id="without its marker"),
        pytest.param(lambda text: text + dnsmasq.render_hosts(()), id="with two markers"),
        pytest.param(lambda text: text.replace("10.200.1.2", "10.200.1.9"), id="another address"),
        pytest.param(lambda text: text + "fd00::1 web.internal\n", id="an IPv6 address"),
        pytest.param(lambda text: text.replace("web", "# web"), id="an entry commented out"),
    ],
)
def test_a_spoiled_file_is_not_as_it_was_written(spoil: object) -> None:
    """L4: and shows a record that nobody expects, also when nothing at all is expected."""
    assert callable(spoil)
    read = dnsmasq.parse_hosts(spoil(dnsmasq.render_hosts((WEB,))))
    assert read.marker is None
    assert any("_techulus" in record.name for record in read.records)


def test_comments_spaces_and_capitals_are_no_drift() -> None:
    """The file says the same, and so would dnsmasq."""
    text = dnsmasq.render_hosts((DATABASE, WEB)).replace(" web", "\t  WEB") + "\n# by hand\n   \n"
    assert dnsmasq.parse_hosts(text) == dnsmasq.parse_hosts(dnsmasq.render_hosts((DATABASE, WEB)))


def test_a_resolv_conf_is_read_for_its_servers_alone() -> None:
    """In order, each once; comments, options and nonsense left out, and nothing that would be an option of dnsmasq."""
    text = (
        "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.53\n nameserver\tfe80::1%eth0  # x\n"
        "nameserver 192.0.2.53\nnameserver\nnameserver 1.2.3\nnameserver 192.0.2.54/x\nnameserver fe80::1%a/b#c\n"
        "nameserver 2001:db8::53\noptions ndots:1\nnameserver 192.0.2.1%eth0\n"
    )
    assert dnsmasq.parse_resolv_conf(text) == ("192.0.2.53", "fe80::1%eth0", "2001:db8::53")


def test_nobody_is_asked_who_would_ask_back() -> None:
    """Our own addresses and systemd-resolved's stubs are left out; the order of the others stays."""
    servers = ("127.0.0.53", "192.0.2.2", "127.0.0.153", "10.200.7.1", "192.0.2.1", "127.0.0.54")
    assert dnsmasq.upstreams(servers, ("127.0.0.153", "10.200.7.1")) == ("192.0.2.2", "192.0.2.1")
    assert dnsmasq.asks_resolved(servers)
    assert not dnsmasq.asks_resolved(("192.0.2.1",))


def test_the_configuration_is_open_to_nobody_else_and_keeps_the_zone_here() -> None:
    """L22: two addresses and no other; L20: nothing of the administrator's is read."""
    lines = dnsmasq.render_configuration(PLACE).splitlines()
    assert [line for line in lines if line.startswith(("listen-address", "interface"))] == [
        "listen-address=127.0.0.153",
        "listen-address=10.200.7.1",
    ]
    assert {"bind-dynamic", "no-hosts", "no-resolv", "local=/internal/", "domain-needed", "bogus-priv"} <= set(lines)
    assert not any(line.startswith(("conf-file", "conf-dir", "address=")) for line in lines)


def test_another_configuration_has_another_path() -> None:
    """So that a command line tells which one a process was started with."""
    text = dnsmasq.render_configuration(PLACE)
    path = dnsmasq.configuration_path(PLACE, text)
    assert path.startswith(PLACE.configuration_prefix)
    assert path != dnsmasq.configuration_path(PLACE, text + "no-negcache\n")


def test_resolved_is_told_the_port_when_it_is_not_the_usual_one() -> None:
    """L62: and to ask for what is served only; with nothing served it still is not asked for everything."""
    text = dnsmasq.render_resolved("127.0.0.153", 53, (Record("web.internal", ("10.200.1.2",)),))
    assert "DNS=127.0.0.153\nDomains=~_techulus.internal\nDomains=~web.internal\n" in text
    assert dnsmasq.render_resolved("127.0.0.153", 5353, ()).endswith(
        "DNS=127.0.0.153:5353\nDomains=~_techulus.internal\n"
    )


def test_resolved_is_not_told_more_than_it_takes() -> None:
    """It warns of what is beyond its limit."""
    records = tuple(Record(f"s{number:03}.internal", ("10.200.1.2",)) for number in range(300))
    assert dnsmasq.render_resolved("127.0.0.153", 53, records).count("Domains=") == 256


def _lines(records: tuple[Record, ...]) -> str:
    """Everything in the hosts file after its marker."""
    return dnsmasq.render_hosts(records).split("\n", 2)[2]
