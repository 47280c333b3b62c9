"""Container logs end to end: real containers that print numbered lines, the agent as a process, a log store that checks."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.log_store import LogStore
from tests.lab.podman_store import PodmanStore
from tests.lab.ports import free_port
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

_PATIENCE_S = 240


@pytest.fixture
def logs(private_network: None) -> Iterator[LogStore]:
    """Where the lines go."""
    with LogStore() as store:
        yield store


@dataclass
class Bench:
    """A plane, and an agent that ships."""

    plane: Plane
    agent: Agent
    store: PodmanStore
    registry: Registry
    logs: LogStore

    def start(self, lines: int, delay_s: int = 0) -> None:
        """One service that prints so many lines on each stream."""
        env = {"LINES": lines, "DELAY": delay_s}
        self.plane.want({"noisy": {"image": self.registry.offer("noisy"), "env": env}})
        self.agent.start(self.plane.token("one", self.store.subnet_id))

    def counted(self) -> Counter[tuple[str, str]]:
        """How often each line has arrived, by stream and text."""
        return Counter((one["stream"], one["_msg"]) for one in self.logs.of("container"))

    def wanted(self, lines: int) -> set[tuple[str, str]]:
        """Every line that the container prints."""
        numbered = {(f"std{kind}", f"{kind} {number}") for number in range(1, lines + 1) for kind in ("out", "err")}
        return numbered | {("stdout", "partial rest")}

    def all_here(self, lines: int) -> Callable[[], bool]:
        """Whether every line has arrived."""
        wanted = self.wanted(lines)
        return lambda: len(self.logs.distinct) >= len(wanted) and self.logs.distinct >= wanted


@pytest.fixture
def bench(plane: Plane, store: PodmanStore, registry: Registry, logs: LogStore, tmp_path: Path) -> Iterator[Bench]:
    """Not started yet."""
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    lab = ("--no-builds", "--logs-endpoint", logs.url)
    options = ("--podman-socket", str(store.socket_path), "--insecure-registry", registry.address, *unmanaged, *lab)
    agent = Agent(tmp_path / "agent", plane.url, options)
    yield Bench(plane, agent, store, registry, logs)
    agent.kill()


def test_every_line_exactly_once(bench: Bench) -> None:
    """L28, L45: 100,000 lines on both streams, in order per stream, with increasing times."""
    port = free_port()
    bench.agent.add_options("--metrics-listen", f"127.0.0.1:{port}")
    bench.start(100_000)
    wait_for(bench.all_here(100_000), _PATIENCE_S, "every line")
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'techulus_actions_total{kind="deploy",outcome="applied"} 1.0' in metrics
    assert 'techulus_log_lines_total{stage="dropped"} 0.0' in metrics
    assert set(bench.counted().values()) == {1}
    assert bench.counted().keys() == bench.wanted(100_000)
    assert (bench.logs.faults, bench.logs.out_of_order("container")) == ([], [])
    for kind in ("out", "err"):
        numbers = [
            int(one["_msg"].split()[1]) for one in bench.logs.of("container") if one["_msg"].startswith(f"{kind} ")
        ]
        assert numbers == sorted(numbers)
    (row,) = bench.plane.lab("deployments")
    assert {(one["deployment_id"], one["service_id"]) for one in bench.logs.of("container")} == {
        (row["id"], row["serviceId"])
    }
    wait_for(lambda: _of_logs(bench, "waiting") == 0, _PATIENCE_S, "the agent's own lines to go, too")
    assert bench.agent.stop() == 0
    own = bench.logs.of("agent")
    assert any(one["_msg"].startswith("applied ") for one in own)
    assert {one["level"] for one in own} <= {"info", "warn", "error"}


def test_rotation_in_the_middle(bench: Bench) -> None:
    """L45: Podman replaces the file when it is full; what is in the old one is read to its end."""
    bench.agent.add_options("--container-log-mib", "4")
    bench.start(60_000, delay_s=10)  # by then the first file is followed; half of the lines fill it
    wait_for(bench.all_here(60_000), _PATIENCE_S, "every line")
    assert set(bench.counted().values()) == {1}
    assert bench.logs.out_of_order("container") == []
    (container,) = bench.store.cli("ps", "-q").split()
    path = bench.store.cli("inspect", "--format", "{{.HostConfig.LogConfig.Path}}", container).strip()
    assert Path(path).stat().st_size < 4_200_000


def test_a_store_that_is_away_broken_and_slow(bench: Bench) -> None:
    """Lines wait on disk; nothing is lost or repeated, and the containers come up meanwhile."""
    bench.logs.away = True
    bench.start(30_000)
    wait_for(
        lambda: [one["status"] for one in bench.plane.lab("deployments")] == ["running"], _PATIENCE_S, "the rollout"
    )
    wait_for(lambda: _of_logs(bench, "waiting") > 45_000, _PATIENCE_S, "lines to wait")
    wait_for(lambda: "logs not sent" in bench.agent.log.read_text(), _PATIENCE_S, "the agent to say so")
    bench.logs.failing, bench.logs.delay_s = 0.25, 0.05
    bench.logs.away = False
    wait_for(bench.all_here(30_000), _PATIENCE_S, "every line")
    assert bench.logs.statuses[503] > 0
    assert set(bench.counted().values()) == {1}
    assert (bench.logs.faults, bench.logs.out_of_order("container")) == ([], [])
    assert bench.agent.log.read_text().count("logs not sent") <= 3, "said once for each reason"


def test_killed_five_times(bench: Bench) -> None:
    """L28: SIGKILL at any moment loses nothing, and what comes twice has the same times."""
    chance = Random(7)
    bench.logs.delay_s = 0.2
    bench.start(50_000)
    for _ in range(5):
        _wait_for_some(bench, chance.random())
        bench.agent.kill()
        bench.agent.start()
    bench.logs.delay_s = 0
    wait_for(bench.all_here(50_000), _PATIENCE_S, "every line")
    found = bench.counted()
    assert found.keys() == bench.wanted(50_000)
    assert len({(one["stream"], one["_msg"], one["_time"]) for one in bench.logs.of("container")}) == len(found)
    assert bench.logs.faults == []


def test_a_store_that_is_killed(bench: Bench) -> None:
    """It forgets what it acknowledged in its last seconds: seen, said, counted and sent again; nothing is lost."""
    bench.start(30_000)
    wait_for(lambda: len(bench.logs.distinct) > 10_000, _PATIENCE_S, "the first lines")
    assert bench.logs.crash() > 0
    bench.logs.start()
    wait_for(bench.all_here(30_000), _PATIENCE_S, "every line")
    wait_for(lambda: "log store restarted" in bench.agent.log.read_text(), _PATIENCE_S, "the agent to say so")
    assert _of_logs(bench, "repeated") > 0
    assert bench.agent.stop() == 0


def _wait_for_some(bench: Bench, share: float) -> None:
    """Until a random share of what is still to come has come."""
    wanted = len(bench.logs.distinct) + share * (100_001 - len(bench.logs.distinct)) / 5
    wait_for(lambda: len(bench.logs.distinct) >= wanted, _PATIENCE_S, "more lines")


def test_the_last_lines_of_a_container_that_goes(bench: Bench) -> None:
    """Read and sent, though the container is removed right after them."""
    bench.start(500)
    wait_for(
        lambda: [one["status"] for one in bench.plane.lab("deployments")] == ["running"], _PATIENCE_S, "the rollout"
    )
    (container,) = bench.store.cli("ps", "-q").split()
    bench.store.cli(
        "exec", "-d", container, "sh", "-c", "trap '' TERM; while :; do echo last >/proc/1/fd/1; sleep 0.05; done"
    )
    wait_for(lambda: bench.counted()[("stdout", "last")], _PATIENCE_S, "the first of the last")
    bench.plane.want({})
    wait_for(lambda: not bench.store.cli("ps", "-aq").split(), _PATIENCE_S, "the container to go")
    assert bench.agent.stop() == 0
    assert bench.counted().keys() >= bench.wanted(500)


def test_a_store_that_is_not_there_holds_nothing_up(bench: Bench) -> None:
    """An address at which nobody answers, and more lines than the spool takes: the oldest go, said and counted."""
    bench.agent.add_options("--log-spool-mib", "1")
    bench.logs.away = True
    bench.start(200_000)  # compressed they take a twentieth
    wait_for(lambda: _of_logs(bench, "dropped") > 0, _PATIENCE_S, "drops")
    wait_for(lambda: "log lines dropped" in bench.agent.log.read_text(), _PATIENCE_S, "the agent to say so")
    assert _size_bytes(bench.agent.data_dir / "logs" / "spool") < 3 * 1024**2
    wait_for(
        lambda: [one["status"] for one in bench.plane.lab("deployments")] == ["running"], _PATIENCE_S, "the rollout"
    )
    assert bench.agent.stop() == 0


def _of_logs(bench: Bench, name: str) -> int:
    """A figure of the agent's logs as `agent status` has it; -1 while no agent answers."""
    return int((bench.agent.status().get("logs") or {}).get(name, -1))


def _size_bytes(folder: Path) -> int:
    """Of the files that are there while they come and go."""
    size = 0
    for one in folder.iterdir():
        with suppress(FileNotFoundError):
            size += one.stat().st_size
    return size
