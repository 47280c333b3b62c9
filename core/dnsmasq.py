"""What dnsmasq is told and what it holds, as text: its configuration, its hosts file, its upstream servers, and who is asked.

The hosts file carries a *marker*: one name of our own, made of the digest of everything that a reload reads (records and upstream
servers) and of an edition that differs for every writing. A reload takes all of the files or nothing, so one query for the marker proves
which writing is loaded; and a file whose marker does not fit its records was changed by someone else. Such a marker stays visible as a
record, which nobody expects, so that the file is written anew.

Refuses to know where files are and whether anything runs.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from itertools import islice
from typing import Final

from core import address, dns
from core.digest import digest
from core.dns import ZONE, Record

# Free on the systems at hand: 127.0.0.53 and .54 are systemd-resolved's, 127.0.0.1 any other resolver's, 127.0.1.1 NetworkManager's.
LOOPBACK: Final = "127.0.0.153"
RESOLVED_STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})
HEADER: Final = "# Written by the Techulus agent; changes made by hand are overwritten.\n"

# An underscore is in no host name, so no record from outside can be one of these.
_MARKER_ZONE: Final = f"_techulus.{ZONE}"
_UNMARKED: Final = f"_unmarked.{_MARKER_ZONE}"
_MARKER = re.compile(rf"_([0-9a-f]{{32}})-[0-9a-z]+\.{re.escape(_MARKER_ZONE)}")
_MARKER_ADDRESS: Final = "192.0.2.1"  # TEST-NET-1: nobody has it, so that its reverse name is nobody's either
_DIGEST_DIGITS: Final = 32
_MOST_SERVERS: Final = 64  # a resolver's own bound is three
_NAME_DIGITS: Final = 16
_MOST_ROUTED: Final = (
    256  # MANAGER_SEARCH_DOMAINS_MAX of systemd-resolved; what is beyond it is left out with a warning
)
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # an interface's name


@dataclass(frozen=True, slots=True)
class Place:
    """Where our dnsmasq has its files, where it listens, and the user that it becomes. `gateway` may not exist yet."""

    directory: str
    loopback: str
    gateway: str
    port: int
    user: str

    @property
    def records_file(self) -> str:
        """The hosts file."""
        return f"{self.directory}/records"

    @property
    def upstreams_file(self) -> str:
        """The servers that everything else is forwarded to."""
        return f"{self.directory}/upstreams"

    @property
    def pid_file(self) -> str:
        """Written by dnsmasq."""
        return f"{self.directory}/dnsmasq.pid"

    @property
    def log_file(self) -> str:
        """Written by dnsmasq."""
        return f"{self.directory}/dnsmasq.log"

    @property
    def configuration_prefix(self) -> str:
        """What the path of every configuration of ours in this place begins with."""
        return f"{self.directory}/dnsmasq-"


@dataclass(frozen=True, slots=True)
class HostsFile:
    """What a hosts file says. `marker` is the name that proves that it is loaded; None when the file is not as it was written."""

    records: tuple[Record, ...]
    marker: str | None


def render_configuration(place: Place) -> str:
    """The main configuration. It names neither records nor upstream servers, which change without a restart."""
    return HEADER + "\n".join(
        (
            f"port={place.port}",
            # Never the wildcard address: no resolver open to the world, and no quarrel with another one on this server.
            f"listen-address={place.loopback}",
            f"listen-address={place.gateway}",
            # The gateway exists only while a container runs; this binds it when it comes, also when it comes again.
            "bind-dynamic",
            "no-hosts",
            f"addn-hosts={place.records_file}",
            f"local=/{ZONE}/",
            "domain-needed",
            "bogus-priv",
            "local-ttl=0",
            # Not resolv-file: dnsmasq forwards to itself when that lists its own loopback address, as systemd-resolved's file does.
            "no-resolv",
            f"servers-file={place.upstreams_file}",
            # The defaults, 150 each, are for a home; beyond the second one, queries are refused while an upstream is slow.
            "cache-size=1000",
            "dns-forward-max=1000",
            f"user={place.user}",
            f"pid-file={place.pid_file}",
            f"log-facility={place.log_file}",
            "",
        )
    )


def configuration_path(place: Place, text: str) -> str:
    """A path that no other configuration has, so that a process's command line tells which one it was started with."""
    return f"{place.configuration_prefix}{digest([text])[:_NAME_DIGITS]}.conf"


def command(binary: str, configuration: str) -> tuple[str, ...]:
    """The command that starts dnsmasq: it detaches itself, and ends with status 0 when it serves."""
    return (binary, f"--conf-file={configuration}")


def marker_name(records: Sequence[Record], upstreams: Sequence[str], edition: str) -> str:
    """The marker of one writing. `edition` has digits and lower-case letters only, at most 29 of them."""
    return f"_{_digest(records, upstreams)}-{edition}.{_MARKER_ZONE}"


def render_hosts(records: Sequence[Record], upstreams: Sequence[str] = (), edition: str = "0") -> str:
    """The hosts file for records in canonical order, with its marker first."""
    lines = [f"{_MARKER_ADDRESS} {marker_name(records, upstreams, edition)}"]
    lines += [f"{ip} {record.name}" for record in records for ip in record.ips]
    return HEADER + "\n".join(lines) + "\n"


def parse_hosts(text: str, upstreams: Sequence[str] = ()) -> HostsFile:
    """What a hosts file says, whoever wrote it; `parse_hosts(render_hosts(r, u), u).records == r` for canonical records."""
    found = dns.union(_lines(text))
    records = tuple(record for record in found if not record.name.endswith(f".{_MARKER_ZONE}"))
    markers = [record.name for record in found if record.name.endswith(f".{_MARKER_ZONE}")]
    matched = _MARKER.fullmatch(markers[0]) if len(markers) == 1 else None
    if matched is not None and matched[1] == _digest(records, upstreams):
        return HostsFile(records, markers[0])
    odd = found if markers else (*found, Record(_UNMARKED, (_MARKER_ADDRESS,)))
    return HostsFile(dns.union(odd), None)


def parse_resolv_conf(text: str) -> tuple[str, ...]:
    """The distinct name servers of a resolv.conf(5), in its order; what is not an address is left out."""
    words = (line.split() for line in text.split("\n"))
    named = (line[1] for line in words if len(line) > 1 and line[0] == "nameserver")
    return tuple(islice(dict.fromkeys(server for server in named if _is_server(server)), _MOST_SERVERS))


def asks_resolved(servers: Iterable[str]) -> bool:
    """Whether systemd-resolved's stub is among the servers, whose own servers then stand in a file of its own."""
    return not RESOLVED_STUBS.isdisjoint(servers)


def upstreams(servers: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """The servers to forward to: without our own addresses, and without the stub, which would ask us back."""
    left_out = RESOLVED_STUBS.union(own)
    return tuple(server for server in servers if server not in left_out)


def render_upstreams(servers: Iterable[str]) -> str:
    """The file of upstream servers. Empty, everything but our own names is refused, as the server itself cannot resolve it."""
    return HEADER + "".join(f"server={server}\n" for server in servers)


def render_resolved(loopback: str, port: int, records: Sequence[Record]) -> str:
    """systemd-resolved's drop-in: it asks us alone for the names that we serve, and the server's own servers for all others, as before.

    Not for the whole zone, which has names of others. Those that are too many for resolved it asks everybody for, us too, and takes the
    answer that has an address. The marker's zone is there also when nothing is served: without any, it would ask us for everything.
    """
    server = loopback if port == 53 else f"{loopback}:{port}"
    names = (_MARKER_ZONE, *(record.name for record in records[: _MOST_ROUTED - 1]))
    return f"{HEADER}[Resolve]\nDNS={server}\n" + "".join(f"Domains=~{name}\n" for name in names)


def render_unit(command_line: Sequence[str], pid_file: str) -> str:
    """The systemd unit. `forking`, since dnsmasq detaches itself once it serves; not bound to the agent, which it outlives."""
    return (
        f"{HEADER}[Unit]\nDescription=DNS of the Techulus agent\nAfter=network.target\nStartLimitIntervalSec=0\n\n"
        f"[Service]\nType=forking\nPIDFile={pid_file}\nExecStart={' '.join(command_line)}\n"
        "ExecReload=/bin/kill -HUP $MAINPID\nRestart=always\nRestartSec=1\nTimeoutStopSec=5\n"
    )


def _lines(text: str) -> Iterable[Record]:
    for line in text.split("\n"):
        ip, *names = line.partition("#")[0].split() or ("",)
        for name in names:
            yield Record(name.lower().removesuffix("."), (ip,))


def _digest(records: Sequence[Record], upstreams: Sequence[str]) -> str:
    return digest((tuple(map(dns.plain, records)), tuple(upstreams)))[:_DIGEST_DIGITS]


def _is_server(text: str) -> bool:
    bare, percent, scope = text.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        return False
    if address.is_ipv4(text):
        return True
    try:
        IPv6Address(bare)
    except AddressValueError:
        return False
    return True
