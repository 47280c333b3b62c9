"""DNS records under `.internal`: checked, brought into one form, compared.

A name stands once, in lower case without a trailing dot, with its addresses as a set; a name listed twice is the union, and a name
without an address is no record.

The zone is shared with others: clouds (`metadata.google.internal`, `ip-10-0-0-1.ec2.internal`, `vm.zone.c.project.internal`) and container
engines (`host.containers.internal`, `host.docker.internal`). Their names are never a service's.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from core import address, bounds
from core.digest import Plain
from core.local_rules import NO_RULES, LocalRules
from core.rejection import Fault, Sifted, shown, split
from core.wire import MisshapenRecord, WireRecord

ZONE = "internal"
_UNDER_ZONE = f".{ZONE}"
# Amazon's and Google's machines and metadata; what engines and desktops call themselves and the machine that a container runs on.
_OTHERS = re.compile(r"(?:.+\.)?(?:compute|containers|docker|ec2|google)|(?:.+\.)?c\.[^.]+|(?:gateway|host)\.[^.]+")


class Record(msgspec.Struct, frozen=True, order=True, gc=False):
    """A name and its sorted IPv4 addresses, at least one."""

    name: str
    ips: tuple[str, ...]


def normalise_expected(entries: Sequence[WireRecord | MisshapenRecord], rules: LocalRules = NO_RULES) -> Sifted[Record]:
    """The records in canonical order, the held names and the rejected entries."""

    keys = [*map(_key, entries)]
    sizes = [1 if isinstance(one, MisshapenRecord) else max(1, len(one.ips)) for one in entries]
    totals: dict[str, int] = {}
    for key, size in zip(keys, sizes, strict=True):
        totals[key] = totals.get(key, 0) + size

    def parse(key: str, entry: WireRecord | MisshapenRecord) -> Record | Fault:
        if totals[key] > bounds.NAME_ADDRESSES:
            reason = f"the name has {totals[key]} addresses in all, and at most {bounds.NAME_ADDRESSES} are taken"
            return Fault("ips", reason)
        found = _parse(entry)
        if isinstance(found, Record) and rules.is_of_this_network(found.name):
            return Fault("name", f"{shown(entry.name)} is among the names of this server or of its network")
        return found

    found = [*map(parse, keys, entries)]
    sifted = split("dns.records", keys, found, bounds.RECORD_ADDRESSES, unique=False, weights=sizes)
    return Sifted(union(sifted.values), sifted.held, sifted.rejected)


def normalise_actual(entries: list[WireRecord]) -> tuple[Record, ...]:
    """What is served, in the same form; odd names stay visible as they are, so that they count as drift."""
    return union(Record(_key(entry), tuple(sorted(set(entry.ips)))) for entry in entries)


def union(records: Iterable[Record]) -> tuple[Record, ...]:
    """One record a name, in order, with the union of its addresses; names without an address are left out."""
    found: dict[str, Record] = {}
    repeated: dict[str, set[str]] = {}
    for record in records:
        before = found.setdefault(record.name, record)
        if before is not record:
            repeated.setdefault(record.name, {*before.ips}).update(record.ips)
    found |= {name: Record(name, tuple(sorted(ips))) for name, ips in repeated.items()}
    return tuple(found[name] for name in sorted(found) if found[name].ips)


def could_be_expected(record: Record, rules: LocalRules = NO_RULES) -> bool:
    """Whether some expected state may have this record; one that is served and could not has come by another way, or before this rule."""
    is_services = not _is_others(record.name) and not rules.is_of_this_network(record.name)
    are_addresses = len(record.ips) <= bounds.NAME_ADDRESSES and all(map(address.is_ipv4, record.ips))
    return _is_under_zone(record.name) and is_services and are_addresses


def plain(record: Record) -> Plain:
    """The canonical form of one record."""
    return (record.name, record.ips)


def _key(entry: WireRecord | MisshapenRecord) -> str:
    lower = entry.name.lower() if entry.name.isascii() else entry.name  # a name that is none holds nobody else's
    return lower[:-1] if lower.endswith(".") else lower


def _parse(entry: WireRecord | MisshapenRecord) -> Record | Fault:
    if isinstance(entry, MisshapenRecord):
        return entry.fault
    name = _key(entry)
    if not entry.name.isascii() or not _is_under_zone(name):
        return Fault("name", f"{shown(entry.name)} is not a host name under .{ZONE}")
    if _is_others(name):
        return Fault(
            "name",
            f"{shown(entry.name)} is a name of a cloud's or a container engine's",
        )
    for number, text in enumerate(entry.ips):
        if not address.is_ipv4(text):
            return Fault(f"ips[{number}]", f"{shown(text)} is not an IPv4 address")
    return Record(name, tuple(sorted(set(entry.ips))))


def _is_under_zone(name: str) -> bool:
    return name.endswith(_UNDER_ZONE) and address.is_host_name(name)


def _is_others(name: str) -> bool:
    return _OTHERS.fullmatch(name.removesuffix(_UNDER_ZONE)) is not None
