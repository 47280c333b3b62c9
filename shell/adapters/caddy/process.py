"""The process: its version, found, started apart from the agent, ended. Knows nothing of routes.

A process is ours when its command line names our configuration file and it lives in our namespaces, so that neither a stale pid file nor
a reused number deceives, and an agent adopts what an earlier one has started.
"""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import psutil

from shell import children
from shell.adapters.caddy.admin import COMPONENT, UNIX
from shell.failure import AdapterError

_SYSTEMD: Final = Path("/run/systemd/system")
_UNIT: Final = "caddy.service"
_OWN_FOLDER: Final = Path("/run/techulus-caddy")  # of the admin socket, when no other is chosen
_SHOW_USER: Final = ("systemctl", "show", "--property=User", "--value", "--")
_UNIT_LIMIT_S: Final = 30.0
_COMMAND_LIMIT_S: Final = 5.0
_END_LIMIT_S: Final = (
    3.0  # Caddy ends within about a second, unless requests are under way; the agent itself must end within 10 s
)
_END_POLL_S: Final = 0.02
_LONGEST_WORDS: Final = 600
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def systemd_unit() -> str | None:
    """Caddy's own unit where systemd is process 1 (sd_booted(3)); None elsewhere: then Caddy is a child of the agent's."""
    return _UNIT if _SYSTEMD.is_dir() else None


async def version(binary: str) -> str:
    """What `caddy version` says; `AdapterError` when there is no Caddy or it says nothing in time."""
    return await _run((_found(binary), "version"), "ask for its version", _COMMAND_LIMIT_S, _environment(None))


async def start_unit(unit: str) -> None:
    """Let systemd start Caddy's unit; fine when it runs."""
    await _run(("systemctl", "start", "--", unit), f"start {unit}", _UNIT_LIMIT_S, None)


async def make_socket_folder(admin: str, unit: str | None) -> None:
    """Make the folder of an admin socket (`unix//path`): open to the user that runs Caddy, and to root, alone. Raises AdapterError.

    What everybody may reach through it is everything that Caddy may do. The agent's own folder is put right where it is another's or open;
    any other that is there already is its owner's, and may hold more than the socket (`/run`).
    """
    folder = Path(admin.removeprefix(UNIX)).parent
    if not admin.startswith(UNIX) or (folder != _OWN_FOLDER and folder.is_dir()):
        return
    try:
        user = "" if unit is None else await _run((*_SHOW_USER, unit), f"ask who runs {unit}", _COMMAND_LIMIT_S, None)
    except AdapterError:
        if folder.is_dir():  # most likely it is right, and a Caddy that runs needs no systemd for new routes
            return
        raise
    try:
        _make_private(folder, _uid(user.strip()))
    except (OSError, LookupError) as error:
        raise AdapterError(COMPONENT, f"make {folder}", str(error), "it is tried again") from error


def _uid(user: str) -> int:
    """Of a unit's user, who may be a number (systemd.exec(5)); without one it is root, as the agent. Raises LookupError."""
    if not user or user.isdecimal():
        return int(user or os.geteuid())
    return pwd.getpwnam(user).pw_uid


def _make_private(folder: Path, user: int) -> None:
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)  # Caddy's user has to pass, whatever the agent's umask is
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid != user:
        os.chown(folder, user, -1)
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


@dataclass(frozen=True, slots=True)
class Child:
    """A Caddy that is started with a configuration in `folder` and outlives the agent."""

    binary: str
    folder: Path

    @property
    def config(self) -> Path:
        """The configuration that it starts with; not read again after that."""
        return self.folder / "base.json"

    @property
    def _output(self) -> Path:
        return self.folder / "start.log"

    async def start(self, document: bytes) -> None:
        """Start it with this configuration. Whether it came up, its admin address tells."""
        command = (_found(self.binary), "run", "--config", str(self.config))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Read by the process started next and by nobody after that, so it need not survive a power cut.
            self.config.write_bytes(document)
            self.config.chmod(0o600)
            with self._output.open("wb") as output:
                # `--fork`: the process belongs to process 1 at once, whose task it is to bury it.
                arguments = ("setsid", "--fork", *command)
                await _run(arguments, "start it", _COMMAND_LIMIT_S, _environment(self.folder), output.fileno())
        except OSError as error:
            raise AdapterError(COMPONENT, "start it", f"{self.folder} cannot be written: {error}") from error

    def find(self) -> list[psutil.Process]:
        """The processes that were started so, by this agent or an earlier one."""
        return [one for one in psutil.process_iter() if self._is_ours(one)]

    def end(self) -> None:
        """End every one of them, by force after a while; `AdapterError` when one stays."""
        left = self.find()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for one in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(number)
                    one.send_signal(signal.SIGCONT)  # one that was halted hears nothing before it goes on
            deadline = time.monotonic() + _END_LIMIT_S
            while left and time.monotonic() < deadline:
                time.sleep(_END_POLL_S)
                left = [
                    one for one in left if self._is_ours(one)
                ]  # not asked for its number: that of a dead one may stay
            if not left:
                return
        raise AdapterError(COMPONENT, "end it", f"process {left[0].pid} does not end", "it is tried again")

    def last_words(self) -> str:
        """The end of what it wrote before it had its log file."""
        with contextlib.suppress(OSError):
            return " ".join(self._output.read_text(errors="replace").split())[-_LONGEST_WORDS:]
        return ""

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            command = process.cmdline()
            return command[1:] == ["run", "--config", str(self.config)] and children.is_beside(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            return False


def _found(binary: str) -> str:
    path = shutil.which(binary, path=os.pathsep.join((os.environ.get("PATH", ""), _PATH)))
    if path is None:
        raise AdapterError(COMPONENT, "run it", f"{binary} is not installed", "install Caddy; it is tried again")
    return path


def _environment(home: Path | None) -> dict[str, str]:
    return {"PATH": _PATH, **({} if home is None else {"HOME": str(home)})}


async def _run(
    command: Sequence[str], what: str, limit_s: float, env: Mapping[str, str] | None, output: int | None = None
) -> str:
    """Run a command to its end; `AdapterError` with its last words when it fails or takes too long."""
    sink = subprocess.PIPE if output is None else output
    try:
        with anyio.fail_after(limit_s):
            done = await anyio.run_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                check=False,
                env=env,
                start_new_session=True,
            )
    except TimeoutError as error:
        raise AdapterError(COMPONENT, what, f"not done after {limit_s:g} s", "it is tried again") from error
    except FileNotFoundError as error:
        raise AdapterError(COMPONENT, what, f"{command[0]} is not installed", "it is tried again") from error
    except OSError as error:  # no process, file or memory is free
        raise AdapterError(COMPONENT, what, error.strerror or str(error), "it is tried again") from error
    if done.returncode != 0:
        words = " ".join((done.stderr or b"").decode(errors="replace").split())[-_LONGEST_WORDS:]
        raise AdapterError(COMPONENT, what, words or f"exit status {done.returncode}", "it is tried again")
    return (done.stdout or b"").decode(errors="replace")
