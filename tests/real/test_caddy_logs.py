"""The access log of a real Caddy, followed through its own rotation."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from core.access_log import AccessLog
from shell.adapters.victorialogs import VictoriaLogs
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops.logs import Access
from tests.lab.caddy_proxy import Proxy, proxy_to_be, route
from tests.lab.log_store import LogStore
from tests.lab.wait import PATIENCE_S, wait_for
from tests.lab.web import web_server

pytestmark = pytest.mark.real

_REQUESTS = 2500
_AHEAD = 300  # less than half of what fills the log


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """No Caddy yet; whatever is started is taken away."""
    with proxy_to_be(tmp_path) as made:
        yield made


def test_every_request_once_through_a_rotation(proxy: Proxy, tmp_path: Path) -> None:
    """L45: Caddy renames its log when it is full; each request arrives once, with its service and figures."""
    log = tmp_path / "small.log"
    with web_server("one") as backend, LogStore() as store:
        wanted = route(backend.address)
        proxy.apply(wanted)
        (name,) = [one for one in proxy.admin("GET", "/config/logging/logs") if one != "default"]
        # Another file, since Caddy keeps the limits of one that it has open.
        proxy.admin(
            "PATCH", f"/config/logging/logs/{name}/writer", {"output": "file", "filename": str(log), "roll_size_mb": 1}
        )

        padding = "h" * 500  # so that the log is full soon

        def ask() -> None:
            with proxy.client() as client:
                for number in range(_REQUESTS):
                    assert client.get(f"/{number}?secret={padding}").status == 200
                    # A log that small must not be full twice before it is looked at again: one of two would be gone.
                    if number % _AHEAD == 0:
                        here = partial(_arrived, store, number + 1)
                        wait_for(here, PATIENCE_S, f"the requests up to {number}")

        async def main() -> None:
            endpoint = VictoriaLogs(store.url)
            pump = Pump(Sender(endpoint, Spool(tmp_path / "spool", 1024**2)), Positions(tmp_path / "positions.json"))
            pump.follow("access", log, lambda last_ns, _: Access(AccessLog(last_ns), lambda: (wanted,)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pump.sender.run)
                tasks.start_soon(pump.run, anyio.lowlevel.checkpoint)
                await anyio.to_thread.run_sync(ask)
                await anyio.to_thread.run_sync(
                    lambda: wait_for(partial(_arrived, store, _REQUESTS), PATIENCE_S, "every request")
                )
                tasks.cancel_scope.cancel()
            await endpoint.aclose()

        anyio.run(main)
        found = store.of("http")
        assert Counter(one["path"] for one in found) == Counter(f"/{number}" for number in range(_REQUESTS))
        assert {(one["service_id"], one["host"].partition(":")[0], one["method"], one["status"]) for one in found} == {
            (wanted.service_id, "app.test", "GET", 200)
        }
        assert all(one["client_ip"] == "127.0.0.1" and one["duration_ms"] > 0 for one in found)
        assert (store.faults, store.out_of_order("http")) == ([], [])
    assert len(list(tmp_path.glob("small*.log*"))) > 1, "it was rotated"


def _arrived(store: LogStore, count: int) -> bool:
    return len(store.of("http")) >= count
