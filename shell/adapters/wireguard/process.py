"""The process of the userspace implementation: found, started apart from the agent, ended. Knows nothing of peers.

It is ours when its command line is exactly the one that we start and it lives in our namespaces, whatever number was remembered; so an
agent adopts what an earlier one has started.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

import psutil

from shell import children
from shell.adapters.wireguard.failures import COMPONENT
from shell.adapters.wireguard.userspace import SOCKETS, listens
from shell.failure import AdapterError
from shell.log import logger

_START_S: Final = 5.0
_END_S: Final = 3.0
_PAUSE_S: Final = 0.01
_LONGEST_WORDS: Final = 400


def find(binary: str, interface: str) -> list[psutil.Process]:
    """Our processes for this interface."""
    return [one for one in psutil.process_iter() if _is_ours(one, binary, interface)]


def start(binary: str, interface: str, log: Path) -> None:
    """Start it in a session of its own; returns when its socket answers. Raises AdapterError."""
    what = f"start {binary} for {interface}"
    path = shutil.which(binary)
    if path is None:
        then = "install the package wireguard-go, or a kernel that has WireGuard"
        raise AdapterError(COMPONENT, what, "it is not installed, and the kernel has no WireGuard", then)
    (SOCKETS / f"{interface}.sock").unlink(missing_ok=True)  # left over from one that was killed
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - no shell; a path that was found and a checked interface name
            (path, "-f", interface),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"},
            start_new_session=True,
        )
    # Whoever waits for it keeps it from staying behind as a zombie when it ends before the agent does.
    threading.Thread(target=child.wait, name=f"end of {binary}", daemon=True).start()
    deadline = time.monotonic() + _START_S
    while not listens(interface):
        if child.poll() is not None or time.monotonic() > deadline:
            words = " ".join(log.read_text(errors="replace").split())[-_LONGEST_WORDS:]
            raise AdapterError(COMPONENT, what, words or "it ended at once", "tried again")
        time.sleep(_PAUSE_S)
    logger().info("wireguard-go started", interface=interface, pid=child.pid, why="the kernel has no WireGuard")


def end(binary: str, interface: str) -> None:
    """End our processes for this interface; the interface goes with them. Fine when there is none."""
    ours = find(binary, interface)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        deadline = time.monotonic() + _END_S
        while (ours := [one for one in ours if _lives(one)]) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_ours(process: psutil.Process, binary: str, interface: str) -> bool:
    try:
        command = process.cmdline()
        matches = len(command) == 3 and Path(command[0]).name == Path(binary).name and command[1:] == ["-f", interface]
        return matches and children.is_beside(process.pid)
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False
