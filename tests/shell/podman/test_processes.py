"""`shell.adapters.podman.processes`: what cannot be looked at has not ended, and what need not be read is not."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from core.containers import ContainerId
from shell.adapters.podman import processes
from shell.adapters.podman.processes import Processes
from shell.failure import AdapterError

ID = ContainerId("a" * 64)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def a_process(proc: Path, pid: int, comm: str, cmdline: bytes = b"") -> Path:
    """A process of the container below a /proc of the test's own."""
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "comm").write_text(f"{comm}\n")
    (folder / "cgroup").write_text(f"0::/libpod-{ID}\n")
    (folder / "stat").write_text(f"{pid} ({comm}) S 1 {pid} {pid} " + "0 " * 20)
    (folder / "cmdline").write_bytes(cmdline)
    return folder


@pytest.mark.anyio
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_process_that_cannot_be_looked_at_has_not_ended(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L47: with no descriptor free, "no process is left" would be said of one that lives, and another started beside it."""
    a_process(tmp_path, 7, "app")
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    view = Processes(tmp_path / "socket")
    assert [one.pid for one in await view.of(ID)] == [7]

    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    for look in (lambda: view.of(ID), lambda: view.living([ID]), lambda: view.not_there({ID: 7})):
        with pytest.raises(AdapterError, match="could not look at the processes of containers"):
            await look()


@pytest.mark.anyio
async def test_command_lines_of_other_programs_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L12: a process that hangs on a disk with its memory locked would make who reads its command line hang, too."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    hanging = a_process(tmp_path, 7, "app") / "cmdline"
    words = ("/usr/bin/conmon", "-c", ID, "-u", ID, "-n", "web", "-b", "/store/web")
    a_process(tmp_path, 8, "conmon", "\0".join(words).encode())
    read = processes._read_bytes

    def read_bytes(path: str) -> bytes:
        assert path != str(hanging)
        return read(path)

    monkeypatch.setattr(processes, "_read_bytes", read_bytes)
    view = Processes(tmp_path / "socket")
    assert list(await view.monitors()) == [ID]
    assert await view.commands_in(ID) == {}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("comm", "words", "stops"),
    [
        ("podman", ("podman", "stop", "--time", "300", "db"), True),
        ("podman-remote", ("podman-remote", "stop", "db"), True),
        ("docker", ("/usr/bin/docker", "stop", "-t", "300", "db"), True),
        ("docker-compose", ("docker-compose", "stop", "-t", "300"), True),
        ("podman", ("podman", "logs", "--follow", "db"), False),
        ("sleep", ("stop",), False),
    ],
)
async def test_who_stops_containers_by_a_command(
    comm: str, words: tuple[str, ...], stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L47: a slow stop is waited for by whatever client a person has begun it."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    monkeypatch.setattr(processes, "_view", lambda path: processes.View(str(tmp_path), "/", "here"))
    monkeypatch.setattr(processes, "_space", lambda pid: "here")
    a_process(tmp_path, 7, comm, "\0".join(words).encode())
    assert await Processes(tmp_path / "socket").is_somebody_stopping() is stops


@pytest.mark.anyio
async def test_a_look_that_hangs_ends_with_its_callers_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L12, L13: a file system that hangs holds up neither the look's time limit nor the end of the agent."""
    a_process(tmp_path, 7, "app")
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    again, ended = threading.Event(), []

    def hang(path: str) -> bytes:
        ended.append(again.wait(30))
        return b""

    monkeypatch.setattr(processes, "_read_bytes", hang)
    try:
        with anyio.move_on_after(0.1) as scope:
            await Processes(tmp_path / "socket").of(ID)
        assert scope.cancelled_caught and not ended
    finally:
        again.set()


_SERVE = """import socket, sys
served = socket.create_server(sys.argv[1], family=socket.AF_UNIX)
print(flush=True)
one = served.accept()
sys.stdin.read()
"""


@pytest.mark.parametrize(("options", "is_seen"), [(("--mount-proc",), True), ((), False)])
def test_a_service_whose_own_numbers_cannot_be_read(options: tuple[str, ...], is_seen: bool, tmp_path: Path) -> None:
    """L48: in a PID namespace with another's /proc, its number 7 would be looked up as somebody else's, and a container taken for dead."""
    path = tmp_path / "podman.sock"
    argv = ("unshare", "--pid", "--fork", "--kill-child", *options, sys.executable, "-c", _SERVE, str(path))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as served:
        assert served.stdin is not None and served.stdout is not None
        served.stdout.readline()
        view = processes._view(path)
        served.stdin.close()
    assert (view is not None) == is_seen
