"""Child processes: each in a group of its own that ends as a whole, with bounded output, a time limit and a clean environment.

Decides nothing of what is run. A child gets no more of this process's environment than tools need.
"""

import math
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Final

import anyio
import anyio.abc

from shell.failure import AdapterError

_PASSED_ON: Final = ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_RUNTIME_DIR")
_PASSED_ON_PREFIXES: Final = ("BUILDAH_", "CONTAINERS_")
_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")
_POLITE_S: Final = 5.0
_LAST_WORDS_S: Final = 2.0
_SMALL: Final = 64 * 1024
_SYSTEMD: Final = Path("/run/systemd/system")


@dataclass(frozen=True, slots=True)
class Child:
    """What is run: the words, the folder, what is added to the environment, and how long it may take.

    `given` is what it reads first. Its standard input then stays open for as long as it is wanted, and is closed when it is to end.
    """

    argv: tuple[str, ...]
    folder: Path
    env: Mapping[str, str]
    limit_s: float
    given: bytes | None = None


Output = Callable[[bytes], Awaitable[None]]


def environment(added: Mapping[str, str]) -> dict[str, str]:
    """A child's environment: what tools need of this process's, and what is added."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.lower() in _PROXIES or name.startswith(_PASSED_ON_PREFIXES)
    }
    return {"LC_ALL": "C.UTF-8", **passed, **added}


def outside(*argv: str) -> tuple[str, ...]:
    """The command that runs this one free of the bounds of the agent's unit: where systemd runs, as a unit of its own (systemd-run(1))."""
    if not _SYSTEMD.is_dir():
        return argv
    variables = (f"--setenv={name}={value}" for name, value in os.environ.items() if name.startswith("CONTAINERS_"))
    return ("systemd-run", "--quiet", "--collect", "--pipe", "--wait", "--service-type=exec", *variables, "--", *argv)


def is_beside(pid: int) -> bool:
    """Whether a process has this one's network and root folder; if not, it is a container's, or a simulated server's, with equal paths.

    Mount namespaces are not compared: each start of a hardened service gets another, of the same files. Raises OSError when it has ended.
    """
    return _surroundings(f"{pid}") == _surroundings("thread-self")


async def run(child: Child, output: Output) -> int:
    """Run to the end and give the exit status (negative: the signal). Both streams go to `output`, in their order.

    What `output` raises ends the command.

    However this is left (an end, a time limit, a cancellation), nothing of the group is left running. Raises AdapterError when the command
    is not there or its time is over.
    """
    name = Path(child.argv[0]).name
    try:
        process = await anyio.open_process(
            child.argv,
            stdin=DEVNULL if child.given is None else PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            cwd=child.folder,
            env=environment(child.env),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise AdapterError(name, "run", "it is not installed") from error
    except OSError as error:
        raise AdapterError(name, "run", error.strerror or str(error)) from error
    except ValueError as error:  # a NUL in a word or a variable
        raise AdapterError(name, "run", str(error)) from error
    try:
        with anyio.fail_after(child.limit_s):
            if process.stdin is not None and child.given is not None:
                with suppress(anyio.BrokenResourceError):  # it has ended already, and says why
                    await process.stdin.send(child.given)
            return await _to_the_end(process, output)
    except TimeoutError as error:
        raise AdapterError(name, "finish", f"it took longer than {child.limit_s:.0f} s") from error
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def answer(child: Child) -> tuple[int, str]:
    """Exit status and the first part of the output of a command that says little."""
    kept = bytearray()

    async def keep(chunk: bytes) -> None:
        if len(kept) < _SMALL:
            kept.extend(chunk)

    status = await run(child, keep)
    return status, bytes(kept[:_SMALL]).decode("utf-8", "replace").strip()


def _surroundings(process: str) -> tuple[int, ...]:
    network, root = (Path(f"/proc/{process}/{what}").stat() for what in ("ns/net", "root"))
    return network.st_dev, network.st_ino, root.st_dev, root.st_ino


async def _to_the_end(process: anyio.abc.Process, output: Output) -> int:
    """Until the command has ended and its output is read; what a left-over child of it might still say is not waited for long.

    Only the waiting for more is bounded: a listener that takes its time, as when it tells the control plane, still gets the last words.
    """
    assert process.stdout is not None
    stdout, ended, until = process.stdout, 0.0, math.inf
    receiving = anyio.CancelScope()

    async def pump() -> None:
        nonlocal until, receiving
        while True:
            with anyio.CancelScope(deadline=until) as receiving:
                try:
                    chunk = await stdout.receive()
                except anyio.EndOfStream:
                    return
            if receiving.cancelled_caught:
                return
            began = anyio.current_time()
            await output(chunk)
            until += anyio.current_time() - max(began, ended)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump)
            status = await process.wait()
            ended = anyio.current_time()
            until = receiving.deadline = ended + _LAST_WORDS_S
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # the listener's own
    return status


async def _end(process: anyio.abc.Process) -> None:
    """End whatever is left of the group, politely and then not, and let go of the pipes."""
    if process.stdin is not None:
        await process.stdin.aclose()
    if process.returncode is None:
        if process.stdin is None:
            _signal(process.pid, signal.SIGTERM)
        with anyio.move_on_after(_POLITE_S):
            await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.aclose()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
