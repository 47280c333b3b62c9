"""The processes of containers as the kernel has them, and the ways in which a machine loses them: for tests of what Podman does not see.

Numbers are those of the calling process's namespace.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.podman_machine import PodmanMachine
from tests.lab.process import Child
from tests.lab.wait import PATIENCE_S, wait_for


def processes_of(container_id: str) -> list[int]:
    """Those whose control group is the container's; without those that have ended and are not yet waited for."""
    return [pid for pid in _numbers() if f"/libpod-{container_id}" in _read(pid, "cgroup") and not _is_zombie(pid)]


def commands_of(container_id: str) -> list[str]:
    """What the container's processes run, in order."""
    return sorted(_read(pid, "cmdline").replace("\0", " ").strip() for pid in processes_of(container_id))


def monitor_of(container_id: str) -> int:
    """The conmon of a container."""
    (found,) = [
        pid
        for pid in _numbers()
        if f"conmon\0--api-version\x001\0-c\0{container_id}\0-u\0{container_id}\0" in _read(pid, "cmdline")
    ]
    return found


def kill_unseen(container_id: str) -> None:
    """End a container's monitor and then its processes, so that Podman hears nothing of it."""
    os.kill(monitor_of(container_id), signal.SIGKILL)
    kill_processes(container_id)


def kill_processes(container_id: str) -> None:
    """End a container's processes and see them gone. With the first one the kernel ends the others, maybe before their turn."""
    for pid in processes_of(container_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not processes_of(container_id), PATIENCE_S, "the processes to end")


@contextmanager
def a_persons_stop(store: PodmanMachine, container: str, grace_s: int, log: Path) -> Iterator[Child]:
    """`podman stop` under way, as a person types it; killed at the end."""
    command = store.spawn(("podman", "stop", "--time", str(grace_s), container), log)
    try:
        wait_for(
            lambda: "topping" in store.cli("inspect", "--format", "{{.State.Status}}", container),
            PATIENCE_S,
            "the stop to begin",
        )
        yield command
    finally:
        command.kill()


def _numbers() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def _is_zombie(pid: int) -> bool:
    return _read(pid, "stat").rpartition(")")[2].split()[:1] in ([], ["Z"], ["X"])


def _read(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""
