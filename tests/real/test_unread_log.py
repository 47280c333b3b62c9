"""L56: an agent whose standard error nobody reads goes on reporting, and ends when it is told to."""

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.agent import AGENT, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

_STOP_S = 10  # L13


def test_a_pipe_that_is_full_from_the_start(
    plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """It registers, starts a container and reports it running; a stop ends it in time."""
    read, write = os.pipe()
    os.write(write, b"x" * fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096))
    unmanaged = [part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name)]
    argv = [str(AGENT), "run", "--url", plane.url, "--data-dir", str(tmp_path / "agent"), "--log-level", "debug"]
    argv += ["--podman-socket", str(store.socket_path), "--insecure-registry", registry.address, *unmanaged]
    told = {"TECHULUS_TOKEN": plane.token("one", store.subnet_id), "TECHULUS_PUBLIC_IP_SERVICE": "none"}
    plane.want({"web": {"image": registry.offer("web")}})
    agent = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=write, env={**os.environ, **told})
    try:
        wait_for(
            lambda: any(one["status"] == "running" for one in plane.lab("deployments")),
            PATIENCE_S,
            "the container to be reported",
        )
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(_STOP_S) == 0
    finally:
        agent.kill()
        agent.wait()
        os.close(read)
        os.close(write)
