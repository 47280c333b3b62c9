"""The agent's figures in Prometheus' format, over HTTP, when `--metrics-listen` asks for it. Values are read when they are asked for."""

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from core.render import Json
from shell.failure import CommandError
from shell.figures import BUCKETS, Figures

COUNTERS: Final = {
    "techulus_polls": ("Polls of the expected state.", ("outcome",)),
    "techulus_actions": ("Changes that were tried.", ("kind", "outcome")),
    "techulus_reports": ("Status reports.", ("outcome",)),
    "techulus_work_items": ("Work items that were done or refused.", ("outcome", "type")),
    "techulus_builds": ("Builds that have ended here.", ("outcome",)),
}
GAUGES: Final = {
    "techulus_agent_info": "1, with the version and the kind of node.",
    "techulus_processing": "1 while changes are made, 0 while idle.",
    "techulus_paused": "1 while the agent is paused.",
    "techulus_last_poll_ok": "1 when the last poll worked.",
    "techulus_last_report_ok": "1 when the last report was taken.",
    "techulus_containers": "Containers of ours by state and health.",
    "techulus_drift": "Changes that are to be made, by kind.",
    "techulus_retries": "Changes that were tried, did not last, and will be tried again.",
    "techulus_rejected_entries": "Entries of the expected state that make no sense.",
    "techulus_builds_running": "Builds that go on here.",
    "techulus_log_waiting_lines": "Log lines that wait on disk.",
    "techulus_logs_followed": "Log files that are followed.",
}
LOG_LINES: Final = "techulus_log_lines"
LOG_STAGES: Final = ("read", "sent", "spooled", "dropped", "refused")
LOG_ERRORS: Final = "techulus_log_send_errors"
DURATIONS: Final = {"techulus_action_duration_seconds": ("How long changes took.", ("kind",))}


def listen(where: str, figures: Figures, overview: Callable[[], dict[str, Json]]) -> None:
    """Serve at `host:port` from a thread of its own, for as long as the process lives. Raises CommandError."""
    host, _, port = where.rpartition(":")
    registry = CollectorRegistry()
    registry.register(_Collector(figures, overview))
    try:
        start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise CommandError(f"--metrics-listen {where}: {error.strerror or error}") from error


class _Collector(Collector):
    def __init__(self, figures: Figures, overview: Callable[[], dict[str, Json]]) -> None:
        self._figures = figures
        self._overview = overview

    def describe(self) -> list[Metric]:
        """Nothing at the start: the agent is not yet whole."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        now = cast("dict[str, Any]", self._overview())
        yield from self._counters()
        yield from self._durations()
        yield from _gauges(now)
        yield from _logs(now.get("logs") or {})

    def _counters(self) -> Iterator[Metric]:
        for name, (text, labels) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=labels)
            for (counted, values), amount in [*self._figures.counts.items()]:
                if counted == name:
                    family.add_metric([value for _, value in values], amount)
            yield family

    def _durations(self) -> Iterator[Metric]:
        for name, (text, labels) in DURATIONS.items():
            family = HistogramMetricFamily(name, text, labels=labels)
            for (timed, values), found in [*self._figures.durations.items()]:
                if timed == name:
                    buckets = [(str(limit), count) for limit, count in zip(BUCKETS, found, strict=False)]
                    family.add_metric([value for _, value in values], [*buckets, ("+Inf", found[-2])], found[-1])
            yield family


def _gauges(now: dict[str, Any]) -> Iterator[Metric]:
    agent = now["agent"]
    info = GaugeMetricFamily("techulus_agent_info", GAUGES["techulus_agent_info"], labels=["version", "node_type"])
    info.add_metric([agent["version"], agent["nodeType"]], 1)
    yield info
    plain = {
        "techulus_processing": now["state"] == "PROCESSING",
        "techulus_paused": now["paused"] is not None,
        "techulus_last_poll_ok": bool(now["poll"] and now["poll"]["ok"]),
        "techulus_last_report_ok": bool(now["report"] and now["report"]["ok"]),
        "techulus_retries": len(now["retries"]),
        "techulus_rejected_entries": len(now["rejected"]),
        "techulus_builds_running": len(now["builds"]),
    }
    for name, value in plain.items():
        yield GaugeMetricFamily(name, GAUGES[name], value=float(value))
    yield _counted("techulus_containers", ("state", "health"), now["containers"])
    yield _counted("techulus_drift", ("kind",), now["drift"])


def _counted(name: str, labels: tuple[str, ...], rows: list[dict[str, Any]]) -> Metric:
    family = GaugeMetricFamily(name, GAUGES[name], labels=labels)
    found = [tuple(str(row[label]) for label in labels) for row in rows]
    for values in sorted(set(found)):
        family.add_metric(list(values), found.count(values))
    return family


def _logs(figures: dict[str, int]) -> Iterator[Metric]:
    if not figures:
        return
    lines = CounterMetricFamily(LOG_LINES, "Log lines by what became of them.", labels=["stage"])
    for stage in LOG_STAGES:
        lines.add_metric([stage], figures[stage])
    yield lines
    yield CounterMetricFamily(LOG_ERRORS, "Requests to the log store that failed.", value=figures["errors"])
    yield GaugeMetricFamily(
        "techulus_log_waiting_lines", GAUGES["techulus_log_waiting_lines"], value=figures["waiting"]
    )
    yield GaugeMetricFamily("techulus_logs_followed", GAUGES["techulus_logs_followed"], value=figures["followed"])
