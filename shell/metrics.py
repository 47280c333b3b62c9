"""The agent's figures in Prometheus' format, over HTTP, when `--metrics-listen` asks for it. Values are read when they are asked for.

A reader that says nothing is let go after a while, and no more than a few are heard at once: whoever can reach the port can take no more
of the server than that.
"""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any, Final, cast

import anyio
import anyio.to_thread
from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from core.render import Json
from shell.figures import BUCKETS, Figures
from shell.log import logger

COUNTERS: Final = {
    "techulus_polls": ("Polls of the expected state.", ("outcome",)),
    "techulus_actions": ("Changes that were tried.", ("kind", "outcome")),
    "techulus_reports": ("Status reports.", ("outcome",)),
    "techulus_work_items": ("Work items that were done or refused.", ("outcome", "type")),
    "techulus_builds": ("Builds that have ended here.", ("outcome",)),
    "techulus_stderr_lines_left_out": ("Lines of the agent's own log of a kind that came too often.", ()),
    "techulus_stderr_lines_lost": ("Lines of the agent's own log that standard error did not take.", ()),
    "techulus_loop_slow_turns": (
        "Turns of the event loop, and waits for others, that took more than half a second.",
        (),
    ),
    "techulus_part_failures": ("Turns of a part of the agent that ended with an unforeseen failure.", ("part",)),
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
    "techulus_failing": "Things that a part of the agent fails at now, by part.",
    "techulus_log_waiting_lines": "Log lines that wait on disk.",
    "techulus_logs_followed": "Log files that are followed.",
}
LOG_LINES: Final = "techulus_log_lines"
LOG_STAGES: Final = ("read", "sent", "spooled", "dropped", "refused", "repeated")
LOG_ERRORS: Final = "techulus_log_send_errors"
LOG_NULS: Final = "techulus_log_nul_bytes"
DURATIONS: Final = {"techulus_action_duration_seconds": ("How long changes took.", ("kind",))}


_PATIENCE_S: Final = 10.0
_AT_ONCE: Final = 8
_AGAIN_S: Final = 10.0


async def serve(where: str, figures: Figures, overview: Callable[[], dict[str, Json]]) -> None:
    """Begin to serve as soon as the address is there: one of the tunnel's comes with the first changes after a boot."""
    complaint: str | None = None
    while True:
        try:
            await anyio.to_thread.run_sync(listen, where, figures, overview)
            logger().info("metrics served", at=f"http://{where}/metrics")
            return
        except OSError as error:
            why = error.strerror or str(error)
            if why != complaint:
                complaint = why
                logger().warning("metrics not served", at=where, why=why, then=f"tried again every {_AGAIN_S:.0f} s")
        await anyio.sleep(_AGAIN_S)


def listen(where: str, figures: Figures, overview: Callable[[], dict[str, Json]]) -> None:
    """Serve at `host:port` from a thread of its own, for as long as the process lives. Raises OSError."""
    host, _, port = where.rpartition(":")
    registry = CollectorRegistry()
    registry.register(_Collector(figures, overview))
    family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    server_class = type("_ServerOfFamily", (_Server,), {"address_family": family})
    handler_class = type("_PatientHandler", (MetricsHandler,), {"registry": registry, "timeout": _PATIENCE_S})
    server = server_class(address[:2], handler_class)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *where: Any) -> None:
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*where)

    def server_bind(self) -> None:
        """Without the name that HTTPServer asks DNS for."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, unless there are many already."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """And make room, also when the reader asks or reads a byte at a time."""
        end = threading.Timer(_PATIENCE_S, _hang_up, (request,))
        end.daemon = True
        try:
            end.start()
            super().process_request_thread(request, client_address)
        except RuntimeError:  # no thread can be started
            self.shutdown_request(request)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is its own affair."""


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


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
            if not labels and (name, ()) not in self._figures.counts:
                family.add_metric([], 0)
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
    yield _counted("techulus_failing", ("part",), now["failing"])


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
    yield CounterMetricFamily(LOG_NULS, "NUL bytes that were left out of logs.", value=figures["nulBytes"])
    yield GaugeMetricFamily(
        "techulus_log_waiting_lines", GAUGES["techulus_log_waiting_lines"], value=figures["waiting"]
    )
    yield GaugeMetricFamily("techulus_logs_followed", GAUGES["techulus_logs_followed"], value=figures["followed"])
