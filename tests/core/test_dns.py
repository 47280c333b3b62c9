"""`core.dns`: records under `.internal`."""

from typing import Any

import pytest

from core import dns
from core.dns import Record
from core.local_rules import LocalRules
from core.wire import WireRecord
from tests.builders import a_record_entry, actual_of, an_actual_document, an_expected_document, expected_of


def sifted(*entries: dict[str, Any]) -> tuple[tuple[Record, ...], set[str], list[tuple[str, str]]]:
    """Good records, held names, and path and key of what is rejected."""
    found = expected_of(an_expected_document(records=list(entries)))
    return found.dns, set(found.held.dns), [(one.path, one.key) for one in found.rejected]


@pytest.mark.parametrize(
    "name",
    ["", "internal", ".internal", "web", "web.example", "web.internal.example", "a..internal", "-a.internal", "a_b.internal",
     "web.internal..", "web internal.internal", "é.internal", "we\u212a.internal", "web\n.internal", "*.internal", "x" * 64 + ".internal"],
)  # fmt: skip
def test_a_name_that_is_no_host_name_under_internal(name: str) -> None:
    """Rejected alone, and held; nothing else than `.internal` is ever served (L7, L34)."""
    good, held, rejected = sifted(a_record_entry(name="good.internal"), a_record_entry(name=name))
    key = (name.lower() if name.isascii() else name).removesuffix(".")
    assert ([one.name for one in good], held, rejected) == (["good.internal"], {key}, [("dns.records[1].name", key)])


@pytest.mark.parametrize(
    "name",
    ["metadata.google.internal", "Metadata.Google.Internal.", "google.internal", "host.containers.internal", "host.docker.internal",
     "ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.eu-west-1.compute.internal", "vm.us-central1-a.c.project.internal", "ec2.internal",
     "compute.internal", "containers.internal", "docker.internal", "c.project.internal", "kubernetes.docker.internal",
     "host.lima.internal", "gateway.containers.internal"],
)  # fmt: skip
def test_a_name_that_belongs_to_others(name: str) -> None:
    """L62: a cloud's machines and metadata, what a container engine calls itself and the machine that it runs on."""
    good, held, rejected = sifted(a_record_entry(name="web.internal"), a_record_entry(name=name))
    key = name.lower().removesuffix(".")
    assert ([one.name for one in good], held, rejected) == (["web.internal"], {key}, [("dns.records[1].name", key)])
    assert not dns.could_be_expected(Record(key, ("10.200.1.2",)))


@pytest.mark.parametrize(
    "name",
    [
        "web.internal",
        "google-ads.internal",
        "internal.internal",
        "localhost.internal",
        "0.internal",
        "a.x.internal",
        "host.internal",
        "c.internal",
        "my-google.shop.internal",
    ],
)
def test_a_services_name(name: str) -> None:
    """Its host name, which may have several labels, or the slug of its name; and the zone."""
    assert dns.could_be_expected(Record(name, ("10.200.1.2",)))
    assert not dns.could_be_expected(Record(name, ("x",)))
    assert [one.name for one in sifted(a_record_entry(name=name))[0]] == [name]


@pytest.mark.parametrize("ip", ["", "10.200.1", "fd00::1", "10.200.1.2/24", "010.200.1.2", "a", "10.200.1.2\n"])
def test_an_address_that_is_not_ipv4(ip: str) -> None:
    """The path says which one."""
    assert sifted(a_record_entry(ips=["10.200.1.2", ip])) == (
        (),
        {"web-api.internal"},
        [("dns.records[0].ips[1]", "web-api.internal")],
    )


def test_one_bad_entry_of_a_name_holds_the_name() -> None:
    """Otherwise half a record would be served; the spelling of the name does not matter."""
    entries = [a_record_entry(), a_record_entry(name="WEB-API.internal.", ips=["x"])]
    assert sifted(*entries) == ((), {"web-api.internal"}, [("dns.records[1].ips[0]", "web-api.internal")])


def test_names_and_addresses_have_one_form() -> None:
    """Lower case, no trailing dot, the union of addresses without repetition, no empty record."""
    entries = [
        a_record_entry(name="B.Internal", ips=["10.200.2.2", "10.200.1.1", "10.200.2.2"]),
        a_record_entry(name="b.internal.", ips=["10.200.1.3"]),
        a_record_entry(name="c.internal", ips=[]),
        a_record_entry(name="a-x.internal", ips=["10.200.1.1"]),
    ]
    records = (
        Record("a-x.internal", ("10.200.1.1",)),
        Record("b.internal", ("10.200.1.1", "10.200.1.3", "10.200.2.2")),
    )
    assert sifted(*entries) == (records, set(), [])
    assert actual_of(an_actual_document(records=entries)).dns == records


def test_what_is_served_under_an_odd_name_stays_visible() -> None:
    """A record made by hand counts as drift; it is not hidden by being odd (L4)."""
    entries = [a_record_entry(name="Odd_Name.example", ips=["x"])]
    assert actual_of(an_actual_document(records=entries)).dns == (Record("odd_name.example", ("x",)),)


def test_union_is_idempotent() -> None:
    """One form stays as it is."""
    once = dns.union([Record("a", ("2", "1")), Record("a", ("1",)), Record("b", ())])
    assert once == (Record("a", ("1", "2")),)
    assert dns.union(once) == once


def test_a_name_with_a_letter_that_only_looks_like_another() -> None:
    """The Kelvin sign becomes a k when it is lowered; it holds nobody's name (L7)."""
    good, held, _ = sifted(a_record_entry(name="k.internal"), a_record_entry(name="\u212a.internal"))
    assert ([one.name for one in good], held) == (["k.internal"], {"\u212a.internal"})


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("project.internal", False),
        ("box.internal", False),
        ("web.internal", True),
        ("c.internal", True),
        ("corp.internal", False),
        ("db.corp.internal", False),
        ("corp.shop.internal", True),
    ],
)
def test_a_name_among_those_of_this_servers_network(name: str, *, good: bool) -> None:
    """L62: with systemd-resolved, whatever lies below a name that is served is asked of us."""
    rules = LocalRules(
        names=frozenset({"box.internal"}),
        searched=frozenset({"zone.c.project.internal", "internal", "corp.internal", "web.example"}),
    )
    found = dns.normalise_expected([WireRecord(name, ("10.200.1.2",))], rules)
    assert bool(found.values) is good and (found.held == frozenset()) is good
