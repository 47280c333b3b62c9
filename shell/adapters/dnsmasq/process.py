"""The process: found, started apart from the agent, reloaded, ended. Knows nothing of records.

A process is ours when its command line is exactly the one that we start, whatever number a pid file has; so neither a stale pid file nor
a reused number deceives, and an agent adopts what an earlier one has started.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from core import dnsmasq
from shell import children
from shell.adapters.dnsmasq import files
from shell.failure import AdapterError

COMPONENT: Final = "dnsmasq"
# dnsmasq starts in 10 ms and ends as quickly; together with the adapter's other waits an update stays below the 10 s
# within which the agent must end.
_COMMAND_LIMIT_S: Final = 2.0
_END_LIMIT_S: Final = 1.0
_SYSTEMCTL_LIMIT_S: Final = 5.0
_PAUSE_S: Final = 0.002
_LONGEST_WORDS: Final = 400
_PACKAGES: Final = {"dnsmasq": "dnsmasq-base", "ip": "iproute2", "systemctl": "systemd"}
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEMD: Final = Path("/run/systemd/system")
UNIT: Final = "techulus-dnsmasq.service"


class Starter(Protocol):
    """How a process comes to run apart from the agent."""

    def start(self, command: Sequence[str]) -> None:
        """Returns when dnsmasq serves."""

    def stop(self) -> None:
        """Leaves nothing that would start it again."""


@dataclass(frozen=True, slots=True)
class Detached:
    """Without systemd: dnsmasq leaves our session and becomes a child of process 1 by itself."""

    def start(self, command: Sequence[str]) -> None:
        """Its own exit status tells whether it serves."""
        run(command, "start it", _COMMAND_LIMIT_S)

    def stop(self) -> None:
        """Nothing would start it again."""


@dataclass(frozen=True, slots=True)
class Unit:
    """With systemd: a unit of ours, since a process started by the agent's own unit would end with it.

    The unit lies under /run and is not enabled: like everything it needs, it is made anew after a reboot, and an agent that was removed
    leaves nothing behind.
    """

    pid_file: str
    directory: Path = _SYSTEMD

    def start(self, command: Sequence[str]) -> None:
        """Write the unit, and start it (again)."""
        files.make_folder(self.directory)
        files.write(self.directory / UNIT, dnsmasq.render_unit(command, self.pid_file))
        systemctl("daemon-reload")
        systemctl("restart", UNIT)

    def stop(self) -> None:
        """Stop and forget the unit."""
        if (self.directory / UNIT).exists():
            systemctl("stop", UNIT)
            (self.directory / UNIT).unlink()
            systemctl("daemon-reload")


def systemd_runs() -> bool:
    """Whether systemd is this server's process 1 (sd_booted(3))."""
    return _SYSTEMD.is_dir()


def systemctl(*arguments: str) -> None:
    """Run systemctl; `AdapterError` when it fails."""
    run(("systemctl", *arguments), f"run systemctl {' '.join(arguments)}", _SYSTEMCTL_LIMIT_S)


def check(command: Sequence[str]) -> None:
    """Let dnsmasq read its configuration without starting; `AdapterError` with what is wrong in it."""
    run((*command, "--test"), "check its configuration", _COMMAND_LIMIT_S)


def find(pid_file: Path, command: Sequence[str]) -> psutil.Process | None:
    """The process of this pid file, when it runs this very command."""
    try:
        process = psutil.Process(int((files.read(pid_file) or "").strip()))
        return process if process.cmdline() == list(command) else None
    except (ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def end_all(binary: str, configuration_prefix: str) -> None:
    """End every dnsmasq that has one of our configurations, known to the pid file or not; `AdapterError` when one stays."""
    ours = [one for one in psutil.process_iter() if _is_ours(one, binary, configuration_prefix)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        deadline = time.monotonic() + _END_LIMIT_S
        while (ours := [one for one in ours if _lives(one)]) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        if not ours:
            return
    raise AdapterError(COMPONENT, "end it", f"process {ours[0].pid} does not end", "it is tried again")


def run(command: Sequence[str], what: str, limit_s: float) -> None:
    """Run a command in a group of its own, killed as a whole at the limit; `AdapterError` with its last words when it fails."""
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell; paths from our settings and words of our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": _PATH, "LC_ALL": "C"},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        package = _PACKAGES.get(Path(command[0]).name, "dnsmasq-base")
        then = f"install the package {package}; it is tried again"
        raise AdapterError(COMPONENT, what, f"{command[0]} is not installed", then) from error
    with child:
        try:
            output, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise AdapterError(COMPONENT, what, f"not done after {limit_s:g} s", "it is tried again") from error
    if child.returncode != 0:
        words = " ".join(output.decode(errors="replace").split())[-_LONGEST_WORDS:]
        raise AdapterError(COMPONENT, what, words or f"exit status {child.returncode}", "it is tried again")


def _lives(process: psutil.Process) -> bool:
    # psutil's own waiting counts a dead process until process 1 has taken notice, which may take it a second.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_ours(process: psutil.Process, binary: str, configuration_prefix: str) -> bool:
    try:
        command = process.cmdline()
        wanted = dnsmasq.command(binary, configuration_prefix)
        return (
            len(command) == len(wanted)
            and command[0] == wanted[0]
            and command[1].startswith(wanted[1])
            and children.is_beside(process.pid)
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False
