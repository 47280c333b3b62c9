"""`shell.beside` in the daemon: what is large is taken apart in a thread (L55)."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from core import caddy, caddy_config, dns, state, work_queue
from core.caddy_base import Base
from core.dns import Record
from shell.adapters.caddy import Caddy, CaddySettings
from shell.daemon import Daemon
from shell.ledger import Ledger
from tests.shell import virtual_time
from tests.shell.listening import listening
from tests.shell.scenery import Scenery, wanting


@pytest.fixture
def on_loop(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[bool]]:
    """Notes of each call of a module's function whether it was on the loop's thread, which is the test's."""

    def watch(module: Any, name: str) -> list[bool]:
        called: list[bool] = []
        before = getattr(module, name)

        def noted(*args: Any) -> Any:
            called.append(threading.current_thread() is threading.main_thread())
            return before(*args)

        monkeypatch.setattr(module, name, noted)
        return called

    return watch


@pytest.mark.parametrize("is_large", [True, False])
def test_documents_and_what_is_served(
    tmp_path: Path, on_loop: Callable[[Any, str], list[bool]], is_large: bool
) -> None:
    """Heartbeat, status and signals have their turns meanwhile; what is small costs no thread."""
    document = wanting("a") | ({"more": "x" * 262_144} if is_large else {})
    scenery = Scenery(tmp_path, document)
    items = [{"id": "w", "type": "deploy", "payload": "x" * (262_144 if is_large else 1), "createdAt": ""}]

    async def fetch_work() -> bytes:
        await anyio.lowlevel.checkpoint()
        return json.dumps({"items": items}).encode()

    scenery.plane.fetch_work = fetch_work  # type: ignore[method-assign]  # a stand-in's
    number = 1_001 if is_large else 2
    scenery.stage.dns.now = tuple(Record(f"n{one:05}.internal", ("10.200.1.2",)) for one in range(number))
    watched = [on_loop(state, "parse_expected_after"), on_loop(work_queue, "parse"), on_loop(dns, "could_be_expected")]

    async def main() -> None:
        daemon = Daemon(scenery.node, ledger=Ledger(tmp_path))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon.run)
            await anyio.sleep(15)
            await daemon.reconcile.stop()

    virtual_time.run(main)
    assert [set(one) for one in watched] == [{not is_large}] * 3


@pytest.mark.parametrize("is_large", [True, False])
def test_caddys_configuration(tmp_path: Path, on_loop: Callable[[Any, str], list[bool]], is_large: bool) -> None:
    """As it is read, and as it is sent."""
    body = json.dumps({"x": "x" * (262_144 if is_large else 1)}).encode()
    watched = [on_loop(caddy_config, "decode"), on_loop(caddy_config, "encode")]

    async def serve(stream: SocketStream) -> None:
        async with stream:
            asked = await stream.receive()
            answer = body if asked.startswith(b"GET") else b""
            status = b"200 OK" if asked.startswith(b"GET") else b"500 No"
            head = b'HTTP/1.1 %s\r\nContent-Length: %d\r\nEtag: "e"\r\n\r\n' % (status, len(answer))
            await stream.send(head + answer)

    async def main() -> None:
        async with listening(serve) as there:
            adapter = Caddy(CaddySettings(Base("http://127.0.0.1:1"), folder=tmp_path, admin=there))
            with pytest.raises(Exception, match="500"):
                await adapter.apply((caddy.Route("r", "app.example.org", "s", ("10.200.1.2:80",)),))

    anyio.run(main)
    assert [set(one) for one in watched] == [{not is_large}] * 2
