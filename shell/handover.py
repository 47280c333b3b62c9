"""From the command line to the daemon: the same process (id, service, streams), with a new program in it.

What is handed over travels in a file that has no name. The new program's command line has its number, and no secret.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from shell.log_choices import LogFormat, LogLevel
from shell.options import Options

DAEMON = "shell.agent_process"
# glibc gives threads memory of their own and keeps it: what large documents leave behind would stay once for each thread that took one
# apart (malloc(3), mallopt(3): 31 MiB more after 1,500 hostile documents, and 2 with this).
ONE_ARENA = ("MALLOC_ARENA_MAX", "1")
STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
_SECRET_VARIABLE = "TECHULUS_TOKEN"  # noqa: S105 - its name
_SECRET_FLAG = "--token"  # noqa: S105 - the option, not a value


@dataclass(frozen=True, slots=True)
class Task:
    """What the daemon is to do."""

    options: Options
    token: str | None = field(repr=False)
    log_format: LogFormat
    log_level: LogLevel


def become_daemon(task: Task, module: str = DAEMON) -> NoReturn:
    """Replace this program by the daemon's, which is in that module."""
    number = os.memfd_create("agent-task", 0)
    os.write(number, pickle.dumps(task))
    os.lseek(number, 0, os.SEEK_SET)
    os.environ.pop(_SECRET_VARIABLE, None)  # the task has it; what stands in an environment is there for every child
    os.environ.setdefault(*ONE_ARENA)
    # A stop that comes from here on waits until the new program can take it (`receive_stops`).
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    argv = (sys.executable, *_interpreter_flags(), "-m", module, str(number), *_shown(sys.argv[1:]))
    os.execv(sys.executable, argv)  # noqa: S606 - this interpreter, words of our own


def take(number: int) -> Task:
    """What was handed over in the open file of that number, which is closed."""
    with os.fdopen(number, "rb") as file:
        task = pickle.load(file)  # noqa: S301 - written by `become_daemon`, in this very process
    assert isinstance(task, Task)
    return task


def receive_stops() -> None:
    """From now on signals that stop are taken, those that have come since the handover first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _interpreter_flags() -> tuple[str, ...]:
    """Those that this interpreter runs with. The current folder holds modules only for `python -m`, as in this program."""
    found: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing asks
    by_module = Path(sys.argv[0]).name == "__main__.py"
    return tuple(found) if by_module or "-P" in found or "-I" in found else (*found, "-P")


def _shown(words: list[str]) -> Iterator[str]:
    """The words that the command was given, without the token."""
    follows = False
    for word in words:
        if not follows and word != _SECRET_FLAG and not word.startswith(f"{_SECRET_FLAG}="):
            yield word
        follows = word == _SECRET_FLAG and not follows
