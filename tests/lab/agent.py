"""The agent and its control plane as a person runs them: the installed `agent` command in processes of their own.

Knows the command line; knows nothing of the code behind it, except that the plane's files are YAML, that its lab endpoints are JSON, and
what every test would else start a command for: a token, and the socket at which the agent tells its status.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from shell import status_socket
from shell.local_plane import serving
from tests.lab.ports import accepts, free_port
from tests.lab.process import Child, LabError
from tests.lab.wait import PATIENCE_S, wait_for

AGENT = Path(sys.executable).with_name("agent")
# One for all, since making one takes longer than asking; no connection is kept, since planes come and go.
_HTTP = httpx.Client(timeout=PATIENCE_S, limits=httpx.Limits(max_keepalive_connections=0))


class Plane:
    """`agent control-plane` with its state in `directory`, for agents that reach it at `host`."""

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.host, self.port = host, free_port(host)
        # Its lab endpoints answer on loopback only.
        self._listen = host if host.startswith("127.") else "0.0.0.0"
        self._lab = f"http://127.0.0.1:{self.port}/lab"
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """What an agent is given as --url."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Serve; returns when it answers."""
        argv = (str(AGENT), "control-plane", "--state", str(self.directory), "--listen", f"{self._listen}:{self.port}")
        child = self._child = Child(argv, self.directory / "plane.log")
        wait_for(
            lambda: accepts(self.host, self.port) or not child.running(), PATIENCE_S, "the control plane to answer"
        )
        if not child.running():
            raise LabError(f"the control plane did not start: {child.last_words()}")

    def stop(self) -> None:
        """End it; its state stays in the directory."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def token(self, name: str, subnet_id: int | None = None) -> str:
        """A registration token for a new server, with a subnet of the lab's choice: what `--new-token` does, without the command."""
        return serving.new_token(self.directory, name, subnet_id)

    def want(self, services: Mapping[str, Any], **more: Any) -> None:
        """Replace the file of services, as a person's editor would; `registry` for builds is beside them."""
        target = self.directory / "services.yaml"
        fresh = target.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({**more, "services": dict(services)}, sort_keys=True))
        fresh.rename(target)

    def lab(self, what: str) -> Any:
        """One of the plane's lab lists: servers, services, deployments, rollouts, work, builds, reports."""
        answer = _HTTP.get(f"{self._lab}/{what}")
        answer.raise_for_status()
        return answer.json()[what.partition("?")[0]]

    def lab_post(self, what: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask something of the plane that a user would ask in its web page."""
        answer = _HTTP.post(f"{self._lab}/{what}", json=dict(body or {}))
        answer.raise_for_status()
        return answer.json()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()


class Agent:
    """The agent with a data directory of its own. `options` are added to every command."""

    def __init__(self, data_dir: Path, url: str, options: tuple[str, ...] = ()) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._common = ("--url", url, "--data-dir", str(data_dir), *options)
        self._child: Child | None = None

    def signal(self, number: Signals) -> None:
        """Send the daemon a signal."""
        self._require().signal(number)

    def add_options(self, *options: str) -> None:
        """Give these with every command from now on."""
        self._common = (*self._common, *options)

    def start(self, token: str | None = None, env: Mapping[str, str] | None = None) -> None:
        """Start the daemon, with this added to its environment. Returns at once."""
        env = {
            **os.environ,
            **(env or {}),
            "TECHULUS_PUBLIC_IP_SERVICE": "none",
            **({"TECHULUS_TOKEN": token} if token else {}),
        }
        self._child = Child((str(AGENT), *self._common), self.log, env)

    def running(self) -> bool:
        """Whether the daemon runs."""
        return self._child is not None and self._child.running()

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self._require().pid

    def stop(self, limit_s: float = 30) -> int:
        """Ask it to end and give its exit status; LabError when it takes longer than `limit_s`."""
        import signal

        child = self._require()
        child.signal(signal.SIGTERM)
        status = child.wait(limit_s)
        self._child = None
        return status

    def kill(self) -> None:
        """End it with SIGKILL. Fine when it does not run."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def plan(self) -> dict[str, Any]:
        """The whole plan as the dry run prints it."""
        found: dict[str, Any] = json.loads(_output([str(AGENT), "plan", "--all", "--output", "json", *self._common]))
        return found

    def plan_text(self) -> str:
        """The whole plan as a person reads it."""
        return _output([str(AGENT), "plan", "--all", *self._common])

    def command(self, *words: str, timeout_s: float = 180) -> tuple[int, str]:
        """Exit status and output of another command of the agent with the same options."""
        argv = [str(AGENT), *words, *self._common]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
        return done.returncode, done.stdout + done.stderr

    def inspect(self, *words: str) -> tuple[int, str]:
        """Exit status and output of a command that needs the data directory only: status, pause, resume."""
        argv = [str(AGENT), *words, "--data-dir", str(self.data_dir)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        return done.returncode, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """What `agent status` says as JSON. Where an agent runs it is asked without the command, which is a third of a second's work."""
        with contextlib.suppress(OSError):
            told = status_socket.ask(self.data_dir)
            if told:
                running: dict[str, Any] = json.loads(told)
                return running
        code, text = self.inspect("status", "--output", "json")
        if code not in (0, 3):
            raise LabError(f"agent status ended with {code}: {text}")
        found: dict[str, Any] = json.loads(text)
        return found

    def wait_converged(self, timeout_s: float) -> None:
        """Until the dry run finds nothing to do."""
        wait_for(lambda: self.plan()["converged"], timeout_s, f"the agent to converge; {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def _require(self) -> Child:
        if self._child is None:
            raise LabError("the agent is not running")
        return self._child


def _output(argv: list[str], timeout_s: float = 60) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv[:2])} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
