"""DNS of this server: reads what dnsmasq serves, and makes it serve these records.

What is served is what dnsmasq has loaded: a process of ours that runs with our configuration, whose hosts file is as it was written, and
which answers the marker of that very writing (`core.dnsmasq`) on every address where it should. Anything less is a failure to read, and
the next update brings it up.

Records come by an additional hosts file and SIGHUP. Against a `hostsdir`: a signal says when a reload is due and a marker when it was
done, a stray file in a folder is never served, and 5,000 names are there after 3 ms instead of 70.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from anyio import to_thread

from core import dnsmasq
from core.dns import Record
from core.dnsmasq import HostsFile, Place
from shell.adapters.dnsmasq import files, listening, process
from shell.adapters.dnsmasq.files import Identity
from shell.adapters.dnsmasq.process import COMPONENT, Detached, Starter, Unit
from shell.adapters.dnsmasq.queries import QueryError, addresses
from shell.adapters.dnsmasq.resolved import Resolved
from shell.failure import AdapterError

# Answers take less than a millisecond. Where the first one is awaited, a query may be lost before dnsmasq listens, and is
# repeated soon; after that, a second without an answer is silence.
_QUERY_LIMIT_S: Final = 1.0
_FIRST_QUERY_LIMIT_S: Final = 0.25
_RELOAD_LIMIT_S: Final = 2.0
_RELOAD_LIMIT_PER_ADDRESS_S: Final = 4e-5  # four times what it takes on a machine with nothing else to do
_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.05
# The marker proves the whole file; these prove that the file means what we think, and 64 take 20 ms.
_SAMPLE: Final = 64
_SHOWN: Final = 4  # addresses in a message, of each side
_LARGEST_LOG_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DnsmasqSettings:
    """`gateway` is the address that containers reach, 10.200.<subnet>.1; the rest fits a server.

    `directory` must be open to `user` all the way up, since dnsmasq rereads its files after it has become that user: not below a data
    directory of mode 0700. Two agents on one machine need different ones. `systemd` makes it a unit; see `systemd_runs`.
    """

    gateway: str
    directory: Path = Path("/run/techulus-agent/dns")
    loopback: str = dnsmasq.LOOPBACK
    port: int = 53
    user: str = "dnsmasq"
    binary: Path = Path("/usr/sbin/dnsmasq")
    systemd: bool = False
    resolv_conf: Path = Path("/etc/resolv.conf")
    resolved: Path = Path("/run/systemd/resolve")
    resolved_drop_ins: Path = Path("/run/systemd/resolved.conf.d")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What dnsmasq should be running with now."""

    configuration: str
    path: Path
    command: tuple[str, ...]
    upstreams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    """A file that was read, and with which upstream servers."""

    identity: Identity
    upstreams: tuple[str, ...]
    file: HostsFile


class Dnsmasq:
    """One dnsmasq of ours. Its methods run one at a time, in worker threads, since reading /proc and waiting for a process block.

    Each wait in them has its limit: `fetch` ends within 4 s and `apply` within 10 s whatever hangs, systemctl aside, which has 5 s a call.
    """

    def __init__(self, settings: DnsmasqSettings) -> None:
        self._settings = settings
        self._place = Place(str(settings.directory), settings.loopback, settings.gateway, settings.port, settings.user)
        self._starter: Starter = Unit(self._place.pid_file) if settings.systemd else Detached()
        self._resolved = Resolved(settings.resolved, settings.resolved_drop_ins)
        self._turn = threading.Lock()
        self._look: _Look | None = None
        self._verified: tuple[psutil.Process, Identity] | None = None

    async def fetch(self) -> tuple[Record, ...]:
        """The records that are served now, in canonical order; `AdapterError` when that is not known. Changes nothing.

        With nothing new this costs one query on each address, and a look at /proc and four files.
        """
        return await to_thread.run_sync(self._fetch)

    async def apply(self, records: tuple[Record, ...]) -> None:
        """Serve exactly these records, which are in canonical order, and bring dnsmasq up when it is not; `AdapterError` otherwise."""
        await to_thread.run_sync(self._apply, records)

    async def stop(self) -> None:
        """End dnsmasq and take back the unit and the drop-in. For taking a lab down and for uninstalling; agents leave it running."""
        await to_thread.run_sync(self._stop)

    def resolver_for_containers(self) -> str:
        """The address that containers are created with."""
        return self._settings.gateway

    def _fetch(self) -> tuple[Record, ...]:
        with self._turn, _failures("read what is served"):
            wanted = self._wanted()
            running = self._running(wanted)
            if running is None:
                raise _unread("it does not run with our configuration")
            self._check_surroundings(wanted)
            look = self._read(wanted)
            if look.file.marker is None:
                return look.file.records
            if self._resolved.lacks_drop_in(self._drop_in(look.file.records)):
                raise _unread("systemd-resolved does not ask it for what is served")
            self._await_answer(look.file.marker)
            self._verify(running, look)
            return look.file.records

    def _apply(self, records: tuple[Record, ...]) -> None:
        with self._turn, _failures(f"serve {len(records)} records"):
            self._verified = None
            wanted = self._wanted()
            edition = f"{time.time_ns():x}"
            files.make_folder(self._settings.directory)
            self._bound_log()
            # Before a start as before a reload, so that dnsmasq is never up with less than it should serve.
            files.write(Path(self._place.upstreams_file), dnsmasq.render_upstreams(wanted.upstreams))
            files.write(Path(self._place.records_file), dnsmasq.render_hosts(records, wanted.upstreams, edition))
            listening.assign(self._settings.loopback)
            written = files.identity(Path(self._place.records_file))
            running = self._reload(wanted)
            limit_s = _RELOAD_LIMIT_S + _RELOAD_LIMIT_PER_ADDRESS_S * sum(len(one.ips) for one in records)
            self._await_answer(dnsmasq.marker_name(records, wanted.upstreams, edition), limit_s)
            self._sample(records)
            self._verified = (running, written)
            self._resolved.ensure_drop_in(self._drop_in(records))

    def _drop_in(self, records: tuple[Record, ...]) -> str:
        return dnsmasq.render_resolved(self._settings.loopback, self._settings.port, records)

    def _stop(self) -> None:
        with self._turn, _failures("stop it"):
            self._starter.stop()
            process.end_all(str(self._settings.binary), self._place.configuration_prefix)
            listening.release(self._settings.loopback)
            self._resolved.remove_drop_in()

    def _wanted(self) -> _Wanted:
        text = dnsmasq.render_configuration(self._place)
        path = dnsmasq.configuration_path(self._place, text)
        servers = dnsmasq.parse_resolv_conf(files.read(self._settings.resolv_conf) or "")
        if dnsmasq.asks_resolved(servers):
            servers = (*servers, *self._resolved.servers())
        upstreams = dnsmasq.upstreams(servers, (self._settings.loopback, self._settings.gateway))
        return _Wanted(text, Path(path), dnsmasq.command(str(self._settings.binary), path), upstreams)

    def _running(self, wanted: _Wanted) -> psutil.Process | None:
        """Our process, when it has this configuration; a configuration changed by hand since then is another one."""
        if files.read(wanted.path) != wanted.configuration:
            return None
        return process.find(Path(self._place.pid_file), wanted.command)

    def _check_surroundings(self, wanted: _Wanted) -> None:
        if files.read(Path(self._place.upstreams_file)) != dnsmasq.render_upstreams(wanted.upstreams):
            raise _unread("it forwards to other resolvers than this server's")
        if not listening.is_up(self._settings.loopback):
            raise _unread(f"no interface has its address {self._settings.loopback}")

    def _read(self, wanted: _Wanted) -> _Look:
        path = Path(self._place.records_file)
        before = files.identity(path)  # first, so that a change in between shows at the next look
        look = self._look
        if look is None or (look.identity, look.upstreams) != (before, wanted.upstreams):
            file = dnsmasq.parse_hosts(files.read(path) or "", wanted.upstreams)
            look = self._look = _Look(before, wanted.upstreams, file)
        return look

    def _reload(self, wanted: _Wanted) -> psutil.Process:
        """Let it read its records again, or start it where it does not run with this configuration; the process that serves."""
        running = self._running(wanted)
        if running is not None:
            running.send_signal(signal.SIGHUP)
            return running
        self._replace(wanted)
        running = self._running(wanted)
        if running is None:
            raise _unread(f"it ended right after its start (its log ends: {self._last_words()})")
        return running

    def _replace(self, wanted: _Wanted) -> None:
        """End what runs and start it with this configuration, which is checked while the old one still serves."""
        files.write(wanted.path, wanted.configuration)
        process.check(wanted.command)
        process.end_all(str(self._settings.binary), self._place.configuration_prefix)
        self._starter.start(wanted.command)
        for old in self._settings.directory.glob("dnsmasq-*.conf"):
            if old != wanted.path:
                old.unlink()

    def _await_answer(self, marker: str, limit_s: float = _RELOAD_LIMIT_S) -> None:
        """Returns when the marker is answered everywhere; asks again for a while, as a reload or a new bridge takes a moment."""
        deadline = time.monotonic() + limit_s
        pause_s = _FIRST_PAUSE_S
        while (fault := self._silence(marker)) is not None:
            if time.monotonic() > deadline:
                raise _unread(f"{fault} (its log ends: {self._last_words()})")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _silence(self, marker: str) -> str | None:
        for server in self._addresses():
            try:
                if not addresses(marker, server, self._settings.port, _FIRST_QUERY_LIMIT_S):
                    return f"{server}:{self._settings.port} serves another version of the records than the file has"
            except QueryError as error:
                return str(error)
        return None

    def _addresses(self) -> tuple[str, ...]:
        """Where it should answer now: the gateway belongs to a bridge that is there only while a container runs."""
        gateway, loopback = self._settings.gateway, self._settings.loopback
        return (loopback, gateway) if listening.is_up(gateway) else (loopback,)

    def _verify(self, running: psutil.Process, look: _Look) -> None:
        """Look closer at what this agent has not seen yet: after its own start, and after a restart of dnsmasq."""
        if self._verified == (running, look.identity):
            return
        if self._verified is not None and self._verified[0] == running:
            # Edited, reloaded and edited back, it has the right marker, and dnsmasq may serve more than the file says.
            raise _unread("its records were written by someone else since they were loaded")
        self._sample(look.file.records)
        self._verified = (running, look.identity)

    def _sample(self, records: tuple[Record, ...]) -> None:
        for record in records[:: max(1, len(records) // _SAMPLE)]:
            found = addresses(record.name, self._settings.loopback, self._settings.port, _QUERY_LIMIT_S)
            if found != set(record.ips):
                raise _unread(f"it answers {_few(found)} for {record.name}, and its file has {_few(record.ips)}")

    def _last_words(self) -> str:
        return files.last_line(Path(self._place.log_file))

    def _bound_log(self) -> None:
        """Every reload adds half a kilobyte for ever; dnsmasq appends, so that cutting its file is safe."""
        log = Path(self._place.log_file)
        if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
            with log.open("wb"):
                pass


def _few(found: Collection[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(sorted(found)[:_SHOWN]) or "nothing") + more


def _unread(why: str) -> AdapterError:
    return AdapterError(COMPONENT, "read what is served", why, "the next update brings it up")


@contextlib.contextmanager
def _failures(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, QueryError, psutil.Error) as error:
        raise AdapterError(COMPONENT, what, str(error), "it is tried again") from error
