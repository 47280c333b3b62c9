"""What a control plane or a build may send without end: the agent as a process answers, reports, serves the rest and ends (L55, L59).

A case is a row of `LOADS`. One server is given all of them, one after the other. Its agent is started with each: ended by SIGTERM in the
middle of it, started again, asked for its status all the time, and ended when the load has been taken.
"""

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from core import bounds
from core.saying import MOST_LINES
from core.state import Component, parse_expected
from shell import status_socket
from shell.log import MOST_WARNINGS, WINDOW_S
from tests.lab.agent import AGENT
from tests.lab.build_tools import BuildTools
from tests.lab.captured_server import NUMBER, CapturedServer, container
from tests.lab.git_server import GitServer
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

_PATIENCE_S: Final = 120
_ANSWER_S: Final = 5.0  # the command waits no longer
_REPORT_S: Final = 40.0  # the control plane wants one every 30 s
_END_S: Final = 30.0  # the product's own is ten
_ASK_EVERY_S: Final = 0.1
_STATUS_LINES: Final = 1_000
_BASE: Final = "/api/v1/agent"
_QUESTIONS: Final = {f"GET {_BASE}/{one}" for one in ("expected-state", "work-queue")}
_MANY: Final = 20_000
_LARGEST: Final = 16 * 1024**2  # of an answer

Lines = list[dict[str, Any]]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """How it is given to the agent, and whether it has been taken by what the status and the agent's log say.

    `is_ended` has the agent ended in the middle of it, too; a build that was ended is settled first, and asked for half a minute later.
    `component` may have taken it from an agent that was ended before it could say so.
    """

    give: Callable[[CapturedServer], None]
    is_taken: Callable[[dict[str, Any], Lines], bool]
    is_ended: bool = True
    component: Component | None = None

    def is_over(self, server: CapturedServer, status: dict[str, Any], lines: Lines) -> bool:
        """Whether it has been taken by this agent, or by the one before."""
        if self.is_taken(status, lines) or self.component is None:
            return self.is_taken(status, lines)
        wanted = parse_expected(_as_bytes(server.plane.document)).unwrap().digests[self.component]
        found = status["hashes"].get(self.component, {})
        return bool(found and found["expected"] == found["actual"] == wanted)


def listed(name: str, entry: Callable[[int], Entry], count: int) -> Callable[[CapturedServer], None]:
    """So many entries in a list of the document, after the honest service's."""

    def give(server: CapturedServer) -> None:
        server.plane.document = json.dumps(server.told(*((name, entry(n)) for n in range(count)))).encode()

    return give


def address(number: int) -> str:
    """One of many of containers."""
    return f"10.200.{number // 250 % 250}.{number % 250 + 2}"


def peer(number: int) -> Entry:
    """A good one."""
    key = base64.b64encode((number + 1).to_bytes(32, "big")).decode()
    return {"publicKey": key, "allowedIps": f"10.100.{number // 256}.{number % 256}/32", "endpoint": None}


def route(number: int) -> Entry:
    """A good one."""
    name = f"r{number}"
    return {"id": name, "domain": f"{name}.test", "upstreams": [f"10.200.{NUMBER}.9:80"], "serviceId": "s"}


def imageless(number: int) -> Entry:
    """One of a service's containers, whose image no registry has."""
    image = f"127.0.0.1:1/gone-{number}:1"
    return container(f"gone-{number}", image, None, 30_000, serviceId="gone", ports=[])


def planted(server: CapturedServer) -> None:
    """Into the file that the agent wrote for dnsmasq."""
    records = Path(f"/proc/{server.server.init}/root/run/techulus-agent/dns/records")
    with records.open("a") as file:
        file.writelines(f"{address(n)} many.internal\n" for n in range(_MANY))


def zeros(key: str, count: int) -> bytes:
    """A document whose list has so many of them."""
    return b'{"%b":[%b0]}' % (key.encode(), b"0," * (count - 1))


def work(count: int) -> Callable[[CapturedServer], None]:
    """A queue of so many items that are none."""

    def give(server: CapturedServer) -> None:
        server.plane.answers[f"GET {_BASE}/work-queue"] = zeros("items", count)

    return give


def state_of_zeros(server: CapturedServer) -> None:
    """As large as an answer may be."""
    server.plane.document = zeros("containers", _LARGEST // 2 - 20)


def build(server: CapturedServer) -> None:
    """A build whose output begins a title again and again, and ends none."""
    with GitServer(server.server.directory / "git") as git:  # its folder is cloned
        commit = git.commit("site", {"Dockerfile": "FROM scratch\n"})
    url = f"file://{git.directory}/site.git"
    offer = {"id": "b1", "commitSha": commit, "branch": "main", "serviceId": "s"}
    claim = {"cloneUrl": url, "imageUri": f"{server.registry.address}/lab/site:1", "secrets": {}}
    server.plane.answers[f"GET {_BASE}/pending-builds"] = json.dumps({"build": offer}).encode()
    server.plane.answers[f"POST {_BASE}/builds/b1/claim"] = json.dumps(
        {"build": {**offer, "projectId": "p"}, **claim}
    ).encode()


def rejected(count: int) -> Callable[[dict[str, Any], Lines], bool]:
    """So many entries."""
    return lambda status, lines: len(status["rejected"]) == count


def said(event: str, **facts: str) -> Callable[[dict[str, Any], Lines], bool]:
    """A line of the log."""
    return lambda status, lines: any(one["event"] == event and facts.items() <= one.items() for one in lines)


_UPDATED: Final = partial(said, "applied")
LOADS: Final[dict[str, Load]] = {
    "20,000 records of one name": Load(
        listed("dns.records", lambda n: {"name": "many.internal", "ips": [address(n)]}, _MANY), rejected(_MANY)
    ),
    "100,000 records": Load(
        listed("dns.records", lambda n: {"name": f"n{n}.internal", "ips": [address(n)]}, 100_000),
        _UPDATED(kind="update_dns"),
        component="dns",
    ),
    "20,000 of one name in dnsmasq's file": Load(planted, _UPDATED(kind="update_dns")),
    "65,536 peers": Load(listed("wireguard.peers", peer, 65_536), _UPDATED(kind="update_wireguard")),
    "a work queue of zeros": Load(work(_LARGEST // 2 - 20), said("work queue not read")),
    "a work queue of as many as are read": Load(work(bounds.VALUES - 10), said("work item passed over")),
    "a state of zeros": Load(state_of_zeros, said("expected state not fetched")),
    "20,000 rejected containers": Load(
        listed("containers", lambda n: container(f"bad-{n}", "localhost/nothing:1", None, 22), _MANY), rejected(_MANY)
    ),
    "20,000 missing images": Load(
        listed("containers", imageless, _MANY), lambda status, lines: len(status["drift"]) >= _MANY
    ),
    "a build's output without end": Load(build, said("build ended", outcome="failed"), is_ended=False),
    "20,000 routes": Load(
        listed("caddy.routes", route, bounds.ROUTE_UPSTREAMS - 1), _UPDATED(kind="update_caddy"), component="caddy"
    ),  # last: Caddy takes them away slowly
}


def _as_bytes(document: dict[str, Any] | bytes) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


class Watch:
    """Asks the agent for its status again and again while it is entered; `slowest_s` is the longest that an answer took.

    `silent_s` is the longest time between two of the agent's reports, `last` the last answer.
    """

    def __init__(self, server: CapturedServer) -> None:
        self._server, self._left = server, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failures: list[str] = []
        self.slowest_s = self.silent_s = 0.0
        self.last = b""

    def _run(self) -> None:
        reports, heard_at = len(self._server.plane.reports), time.monotonic()
        while not self._left.wait(_ASK_EVERY_S):
            asked_at = time.monotonic()
            try:
                found = status_socket.ask(self._server.data_dir)
            except OSError as error:
                self.failures.append(repr(error))
                continue
            now = time.monotonic()
            if found is not None:
                self.slowest_s, self.last = max(self.slowest_s, now - asked_at), found
            elif self.last:
                self.failures.append("it does not listen any more")
            self.silent_s = max(self.silent_s, now - heard_at)
            if len(self._server.plane.reports) > reports:
                reports, heard_at = len(self._server.plane.reports), now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._left.set()
        self._thread.join()


@pytest.fixture(scope="module")
def captured(private_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapturedServer]:
    """A server that can build, and whose agent does not run."""
    folder = tmp_path_factory.mktemp("captured")
    tools = BuildTools(folder / "tools", "")
    tools.tell(says=["\x1b]" * 2_000_000], status=1)
    options = ("--builder", "buildkit", "--build-allow-scheme", "file")
    with CapturedServer(folder, options, tools.environment) as server:
        assert server.stop_agent(_END_S) == 0
        yield server


@pytest.mark.parametrize("what", LOADS)
def test_nothing_waits_for_what_has_no_end(captured: CapturedServer, what: str, request: pytest.FixtureRequest) -> None:
    """L55, L59: heartbeat, status, SIGTERM and the honest service; and who reads the log or the status has few lines to read."""
    load, plane = LOADS[what], captured.plane
    plane.document = captured.honest()
    plane.answers.clear()
    load.give(captured)
    begun_at = time.monotonic()
    begun, asked, reports = captured.log.stat().st_size, len(plane.requests), len(plane.reports)

    def lines() -> Lines:
        found = captured.log.read_bytes()[begun:].decode().splitlines(keepends=True)
        return [json.loads(line) for line in found if line.startswith("{") and line.endswith("\n")]

    request.addfinalizer(captured.kill_agent)
    if load.is_ended:
        captured.start_agent()
        wait_for(lambda: {*plane.requests[asked:]} >= _QUESTIONS, _PATIENCE_S, "the first questions")
        assert captured.stop_agent(_END_S) == 0, captured.words()
    captured.start_agent()
    with Watch(captured) as watch:
        wait_for(lambda: watch.last or not captured.is_running(), _PATIENCE_S, f"a status; {captured.words()}")
        wait_for(
            lambda: load.is_over(captured, json.loads(watch.last), lines()), _PATIENCE_S, f"{what}; {captured.words()}"
        )
        wait_for(lambda: len(plane.reports) > reports, _REPORT_S, "a report")
        wait_for(captured.is_served, _PATIENCE_S, "the honest service")
        words = ("status", "--data-dir", str(captured.data_dir))
        told = captured.server.run((str(AGENT), *words)).splitlines()
    assert captured.stop_agent(_END_S) == 0, captured.words()
    assert not watch.failures and watch.slowest_s < _ANSWER_S and watch.silent_s < _REPORT_S, watch.__dict__
    assert len(told) < _STATUS_LINES
    about = [one for one in lines() if one["event"] in ("entry rejected", "work item passed over")]
    assert len(about) <= MOST_LINES
    kinds = Counter(one["event"] for one in lines() if one["level"] in ("warning", "error"))
    windows = 2 + (time.monotonic() - begun_at) / WINDOW_S
    assert all(count <= (MOST_WARNINGS + 1) * windows for count in kinds.values()), kinds
