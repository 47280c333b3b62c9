"""The agent as a service manager sees it: ready after its first look, alive while it moves, reloaded, stopped. And its unit."""

import re
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

UNIT = Path(__file__).parent.parent.parent / "deploy" / "techulus-agent.service"
_PATIENCE_S = 60


def test_from_start_to_stop(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, tmp_path: Path) -> None:
    """READY only when Podman could be looked at; STATUS in words; pings; a reload; STOPPING."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        def said(text: str) -> bool:
            try:
                while True:
                    heard.append(listener.recv(4096).decode())
            except BlockingIOError:
                return any(text in one for one in heard)

        (tmp_path / "env").write_text("TECHULUS_LOG_LEVEL=debug\n")
        plane.want({"web": {"image": registry.offer("web")}})
        store.kill()
        env = {
            "NOTIFY_SOCKET": listener.getsockname(),
            "WATCHDOG_USEC": "3000000",
            "TECHULUS_ENV_FILE": str(tmp_path / "env"),
        }
        agent.start(plane.token("one", store.subnet_id), env)
        wait_for(lambda: said("WATCHDOG=1"), _PATIENCE_S, "a ping")
        wait_for(lambda: "containers not listed" in agent.log.read_text(), _PATIENCE_S, "a look that fails")
        assert not said("READY=1")
        wait_for(lambda: said("EXTEND_TIMEOUT_USEC=300000000"), _PATIENCE_S, "leave to go on")
        store.start()
        wait_for(lambda: said("READY=1"), _PATIENCE_S, "readiness")
        wait_for(
            lambda: said("STATUS=IDLE: waiting for the next poll; 1 containers"), _PATIENCE_S, "the state in words"
        )
        agent.signal(signal.SIGHUP)
        wait_for(lambda: said("RELOADING=1"), _PATIENCE_S, "the reload")
        wait_for(lambda: "log_level=debug" in agent.log.read_text(), _PATIENCE_S, "the new level")
        assert agent.stop() == 0
        wait_for(lambda: said("STOPPING=1"), _PATIENCE_S, "the end")
    assert len(store.cli("ps", "-q").split()) == 1, "containers outlive the agent"


def test_a_wedged_agent_sends_no_pings(plane: Plane, agent: Agent, store: PodmanStore, tmp_path: Path) -> None:
    """Stopped in its tracks, as a blocked event loop would be: silence, which is what the watchdog acts on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(PATIENCE_S)
        agent.start(
            plane.token("one", store.subnet_id), {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "1500000"}
        )
        while "WATCHDOG=1" not in listener.recv(4096).decode():
            pass
        agent.signal(signal.SIGSTOP)
        stopped = psutil.Process(agent.pid)
        wait_for(lambda: stopped.status() == psutil.STATUS_STOPPED, PATIENCE_S, "the agent to stand still")
        listener.settimeout(0)
        try:
            while listener.recv(4096):
                pass
        except BlockingIOError:
            pass
        listener.settimeout(2)
        with pytest.raises(TimeoutError):
            listener.recv(4096)
        agent.signal(signal.SIGCONT)


def test_the_unit_is_sound(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, and the exposure is what docs/systemd.md says."""
    text = UNIT.read_text()
    copy = tmp_path / UNIT.name
    copy.write_text(
        re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", text, flags=re.MULTILINE).replace(
            "Documentation=man:agent(1)\n", ""
        )
    )
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    scored = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(copy)], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", scored)
    assert found is not None
    documented = re.search(r"exposure level is ([0-9.]+)", (UNIT.parent.parent / "docs/systemd.md").read_text())
    assert documented is not None
    assert float(found[1]) <= float(documented[1])
