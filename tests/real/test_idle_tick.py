"""What an idle tick costs: one request for the state, one to Podman, one report, and no process."""

import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from core.events import Effect, Fetch, Report
from core.phases import Idle, State, Waiting
from shell.daemon import Daemon
from shell.loops import reports
from shell.opening import registered_now
from shell.options import Options
from tests.lab.agent import Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

_SPAWNS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec")
_seen: Counter[str] | None = None
_REPLICAS = 5


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is None:
        return
    if event in _SPAWNS:
        _seen["processes"] += 1
    elif event == "http.client.connect" or event == "http.client.send":
        _seen[event] += 1


def test_an_idle_tick(
    plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With containers that run as expected, seen by the interpreter's own audit events and by the control plane."""
    # Its look is none of a tick's, and falls into one that takes seconds.
    monkeypatch.setattr(reports, "HEARTBEAT_S", 3600.0)
    plane.want({"web": {"image": registry.offer("web"), "replicas": _REPLICAS}})
    options = Options(
        url=plane.url,
        data_dir=tmp_path / "agent",
        podman_socket=store.socket_path,
        insecure_registry=(registry.address,),
        unmanaged=("dns", "caddy", "wireguard"),
    )
    token = plane.token("one", store.subnet_id)
    sys.addaudithook(_hook)
    counts = anyio.run(_measure, options, token)
    assert counts == {"Fetch": 1, "Report": 1, "http.client.send": 1}, counts
    wait_for(lambda: all(one["status"] == "running" for one in plane.lab("deployments")), PATIENCE_S, "all to run")


async def _measure(options: Options, token: str) -> dict[str, int]:
    """Run the agent until it has been idle for two ticks; what the second did.

    Before the first one containers may only just have been started: the agent looks again when they count as up.
    """
    global _seen
    ticks: list[Counter[str]] = []
    at_rest = anyio.Event()

    def observe(state: State, effects: tuple[Effect, ...]) -> None:
        global _seen
        idle = isinstance(state, Idle)
        if any(isinstance(effect, Fetch) for effect in effects):
            _seen = Counter()
        if not idle:
            _seen = None
            ticks.clear()
        if _seen is None:
            return
        _seen.update(type(effect).__name__ for effect in effects if isinstance(effect, Fetch | Report))
        calm = isinstance(state, Idle) and isinstance(state.phase, Waiting) and state.phase.look_at is None
        if calm and state.memory.in_force is not None and not state.memory.drift and state.memory.polls > 1:
            ticks.append(_seen)
            _seen = None
            if len(ticks) == 2:
                at_rest.set()

    daemon = Daemon(await registered_now(options, token), observe)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(daemon.run)
        with anyio.fail_after(4 * PATIENCE_S):
            await at_rest.wait()
        await daemon.reconcile.stop()
    return dict(ticks[-1])
