"""`shell.metrics`: what is served is what is documented, and what the alerts and the dashboard ask for exists."""

import json
import re
import select
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from core.action import Deploy, NoContainer
from core.events import FetchFailed, Note, Perform, Tick
from core.machine import start, step
from core.memory import Memory
from core.state import ExpectedState, NodeType
from shell import metrics
from shell.figures import Figures
from shell.watching import Watching
from tests.builders import an_expected_container
from tests.lab.ports import free_port
from tests.lab.wait import PATIENCE_S, wait_for

ROOT = Path(__file__).parent.parent.parent
OVERVIEW: dict[str, Any] = {
    "agent": {"version": "0.1.0", "nodeType": "proxy"},
    "state": "PROCESSING",
    "paused": None,
    "poll": {"ok": True},
    "report": None,
    "drift": [{"kind": "start"}, {"kind": "start"}, {"kind": "deploy"}],
    "retries": [{}],
    "rejected": [],
    "builds": [{}],
    "failing": [{"part": "logs"}],
    "containers": [{"state": "running", "health": "none"}] * 3,
    "logs": {"read": 9, "sent": 5, "spooled": 4, "dropped": 1, "refused": 0, "repeated": 2}
    | {"errors": 2, "waiting": 3, "followed": 1, "nulBytes": 512},
}


def scraped(
    figures: Figures, overview: dict[str, Any] = OVERVIEW
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, as Prometheus reads it."""
    port = free_port()
    metrics.listen(f"127.0.0.1:{port}", figures, lambda: overview)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy() -> Figures:
    """Something of everything."""
    figures = Figures()
    figures.add("techulus_polls", outcome="ok")
    figures.add("techulus_polls", outcome="ok")
    figures.add("techulus_actions", kind="start", outcome="applied")
    figures.add("techulus_reports", outcome="ok")
    figures.add("techulus_work_items", type="restart", outcome="completed")
    figures.add("techulus_builds", outcome="failed")
    figures.add("techulus_part_failures", 0, part="logs")
    figures.add("techulus_loop_slow_turns")
    figures.took("techulus_action_duration_seconds", 0.7, kind="start")
    figures.took("techulus_action_duration_seconds", 400.0, kind="start")
    return figures


def test_what_is_served() -> None:
    """Counters, durations, and the state of the moment."""
    found = scraped(busy())
    assert found["techulus_polls_total", (("outcome", "ok"),)] == 2
    assert found["techulus_work_items_total", (("outcome", "completed"), ("type", "restart"))] == 1
    assert found["techulus_action_duration_seconds_bucket", (("kind", "start"), ("le", "1.0"))] == 1
    assert found["techulus_action_duration_seconds_bucket", (("kind", "start"), ("le", "+Inf"))] == 2
    assert found["techulus_action_duration_seconds_sum", (("kind", "start"),)] == 400.7
    assert found["techulus_agent_info", (("node_type", "proxy"), ("version", "0.1.0"))] == 1
    assert (found["techulus_processing", ()], found["techulus_paused", ()], found["techulus_last_report_ok", ()]) == (
        1,
        0,
        0,
    )
    assert found["techulus_drift", (("kind", "start"),)] == 2
    assert found["techulus_containers", (("health", "none"), ("state", "running"))] == 3
    assert found["techulus_log_lines_total", (("stage", "dropped"),)] == 1
    assert found["techulus_log_nul_bytes_total", ()] == 512
    assert found["techulus_part_failures_total", (("part", "logs"),)] == 0, "counters begin at 0"
    assert found["techulus_failing", (("part", "logs"),)] == 1


def test_without_a_log_store() -> None:
    """Nothing about logs."""
    assert not any("log" in name for name, _ in scraped(Figures(), OVERVIEW | {"logs": None}))


def test_an_address_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """L29: one of the tunnel's comes after a boot. Said once, and tried until it is there; nothing else waits for it."""
    monkeypatch.setattr(metrics, "_AGAIN_S", 0.05)
    with socket.create_server(("127.0.0.1", free_port())) as taken, capture_logs() as said:
        port = taken.getsockname()[1]

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(metrics.serve, f"127.0.0.1:{port}", Figures(), lambda: OVERVIEW)
                await anyio.to_thread.run_sync(lambda: wait_for(lambda: said, PATIENCE_S, "the first try"))
                taken.close()

        anyio.run(main)
    assert [one["event"] for one in said] == ["metrics not served", "metrics served"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        assert answer.status == 200


def test_readers_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """L46: eight at once; whoever comes beside them is sent away."""
    monkeypatch.setattr(metrics, "_PATIENCE_S", 10 * PATIENCE_S)
    with _silent_readers() as (_, readers):
        wait_for(lambda: len(_sent_away(readers)) == 4, PATIENCE_S, "four of twelve to be sent away")


def test_readers_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """L46: then the next reader is served."""
    monkeypatch.setattr(metrics, "_PATIENCE_S", 0.5)
    with _silent_readers() as (url, _):

        def served() -> bool:
            with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return bool(answer.status == 200)
            return False

        wait_for(served, PATIENCE_S, "a reader that asks")


def test_readers_that_ask_a_byte_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """L56: each byte is not a new patience."""
    monkeypatch.setattr(metrics, "_PATIENCE_S", 2.0)
    with _silent_readers() as (url, readers):

        def served() -> bool:
            for one in readers:
                with suppress(OSError):
                    one.send(b"G")
            with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return bool(answer.status == 200)
            return False

        wait_for(served, PATIENCE_S, "a reader that asks")


@contextmanager
def _silent_readers() -> Iterator[tuple[str, list[socket.socket]]]:
    """Where metrics are served, and twelve connections on which nothing is asked."""
    port = free_port()
    metrics.listen(f"127.0.0.1:{port}", Figures(), lambda: OVERVIEW)
    with ExitStack() as stack:
        connect = partial(socket.create_connection, ("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}/metrics", [stack.enter_context(connect()) for _ in range(12)]


def _sent_away(readers: list[socket.socket]) -> list[socket.socket]:
    """Those whose connection the server has closed: nothing but its end can be read there."""
    return select.select(readers, [], [], 0)[0]


def documented() -> dict[str, set[str]]:
    """The table of docs/metrics.md: names with their labels."""
    rows = re.findall(r"^\| `(techulus_\w+)` \| \w+ \| (.*?) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", labels))) for name, labels in rows}


def test_the_table_is_true() -> None:
    """Every metric with its labels stands there, and nothing else does."""
    served: dict[str, set[str]] = {}
    for name, labels in scraped(busy()):
        plain = re.sub(r"(_bucket|_sum|_count|_created)$", "", name)
        served.setdefault(plain, set()).update(label for label, _ in labels if label != "le")
    assert served == documented()


def test_alerts_and_dashboard_ask_for_what_exists() -> None:
    """A metric that is renamed must not leave a silent alert behind."""
    rules = yaml.safe_load((ROOT / "deploy/monitoring/alerts.yml").read_text())
    dashboard = json.loads((ROOT / "deploy/monitoring/dashboard.json").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for text in asked:
        for name in re.findall(r"techulus_\w+", text):
            assert re.sub(r"_bucket$", "", name) in documented(), text


def test_changes_and_polls_are_counted() -> None:
    """From what the state machine asks for and says; a poll with its own outcome, as soon as it has one."""
    figures, clock = Figures(), iter([10.0, 12.5, 20.0, 21.0])
    watching = Watching(figures, lambda: next(clock))
    state, _ = start(Memory(NodeType.WORKER), 0.0)
    asking, effects = step(state, Tick(), 0.0)
    watching(asking, effects)
    assert ("techulus_polls", (("outcome", "failed"),)) not in figures.counts
    state, _ = step(asking, FetchFailed("it is away"), 0.1)
    watching(state, ())
    deploy = Perform(Deploy(an_expected_container(), NoContainer()), ExpectedState())
    watching(state, (deploy,))
    watching(state, (Note("info", "applied"),))
    watching(state, (deploy,))
    watching(state, (Note("error", "failed"), Note("info", "applied")))
    assert figures.counts == {
        ("techulus_polls", (("outcome", "failed"),)): 1,
        ("techulus_actions", (("kind", "deploy"), ("outcome", "applied"))): 1,
        ("techulus_actions", (("kind", "deploy"), ("outcome", "failed"))): 1,
    }
    assert figures.durations["techulus_action_duration_seconds", (("kind", "deploy"),)][-2:] == [2, 3.5]
