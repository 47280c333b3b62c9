"""Child processes of the lab: each in a process group of its own, each call with a time limit.

Decides how a child is started, told to end and made to end. Knows nothing of what runs in it.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tests.lab.wait import PATIENCE_S, WaitedTooLongError, wait_for

# Enough of an output to see why a command failed, and bounded, since it ends up in a test report.
_TAIL_CHARACTERS = 2000


class LabError(RuntimeError):
    """A component of the lab did not do what it was asked to; the message has its last words."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that is recognised after its number was given to another one. `started` is in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The identity of the process that has this number now; `LabError` when there is none."""
        started = _start_ticks(pid)
        if started is None:
            raise LabError(f"there is no process {pid}")
        return cls(pid, started)

    def alive(self) -> bool:
        """Whether this very process still runs (one that ended and was not yet waited for does not)."""
        return _start_ticks(self.pid) == self.started


class Child:
    """A running child process, the leader of its own group; its output goes to a file.

    `wrapped` says that it only waits for the one child of its own that matters (nsenter): signals go to that one, and
    the wrapper ends by itself. Killed first, it would leave its child to the machine's first process, which may take
    a second to notice.
    """

    def __init__(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, *, wrapped: bool = False
    ) -> None:
        self.name = Path(argv[0]).name
        self.log = log
        self._wrapped = wrapped
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        self.identity = ProcessId.of(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-_TAIL_CHARACTERS:]

    def wait(self, timeout_s: float) -> int:
        """Its exit status; `LabError` when it still runs after `timeout_s` seconds."""
        if not self._ends_within(timeout_s):
            raise LabError(f"{self.name} still runs after {timeout_s} s: {self.last_words()}")
        return self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its group, or to the wrapped process; fine when it has ended."""
        if not self.running():
            return
        # A wrapper halts together with its child, and does not go on with it.
        if not self._wrapped or number is signal.SIGCONT:
            kill_group(self.pid, number)
        for inner in children_of(self.pid) if self._wrapped else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(inner, number)

    def halt(self) -> None:
        """Stop it where it is, until SIGCONT. Returns when all of its threads stand still."""
        self.signal(signal.SIGSTOP)
        halted = children_of(self.pid) if self._wrapped else (self.pid,)
        wait_for(lambda: all(_stands_still(pid) for pid in halted), PATIENCE_S, f"{self.name} to stand still")

    def stop(self, grace_s: float = 5) -> None:
        """Ask it to end, and kill what is left of its group after `grace_s` seconds. Fine on one that has ended."""
        self.signal(signal.SIGTERM)
        # One that was halted hears nothing before it goes on.
        self.signal(signal.SIGCONT)
        self._ends_within(grace_s)
        self.kill()

    def kill(self) -> None:
        """Kill the whole group and wait for its leader. Fine on one that has ended."""
        self.signal(signal.SIGKILL)
        if self._wrapped:
            self.signal(signal.SIGCONT)
            self._ends_within(PATIENCE_S)
        kill_group(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def _ends_within(self, timeout_s: float) -> bool:
        try:
            wait_for(lambda: not self.running(), timeout_s, f"the end of {self.name}")
        except WaitedTooLongError:
            return False
        return True


def run(argv: Sequence[str], timeout_s: float = 30, env: Mapping[str, str] | None = None, text: str = "") -> str:
    """Run a command with `text` as its input and return its standard output; `LabError` with its last words otherwise."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with process:
        try:
            output, complaints = process.communicate(text, timeout_s)
        except subprocess.TimeoutExpired as error:
            # The group and not the command alone: a grandchild would hold the pipes open.
            kill_group(process.pid, signal.SIGKILL)
            raise LabError(f"{' '.join(argv)!r} took longer than {timeout_s} s") from error
    if process.returncode != 0:
        words = (complaints + output)[-_TAIL_CHARACTERS:]
        raise LabError(f"{' '.join(argv)!r} ended with status {process.returncode}: {words}")
    return output


def kill_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to a process group; fine when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def children_of(pid: int) -> tuple[int, ...]:
    """The process ids of the direct children; empty when the process is gone."""
    try:
        return tuple(child.pid for child in psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return ()


def runs(pid: int) -> bool:
    """Whether a process has this number and runs (one that ended and was not yet waited for does not)."""
    return _start_ticks(pid) is not None


def commands_about(folder: Path | str) -> list[tuple[str, ...]]:
    """The words of every process whose command line or working directory is about a folder, or has this text in it.

    Without any words there may be a process that is just being started or ended: it has a folder and no command line.
    """
    found = []
    for path in Path("/proc").iterdir():
        try:
            words = tuple(os.fsdecode((path / "cmdline").read_bytes()).rstrip("\0").split("\0"))
            here = str((path / "cwd").readlink())
        except OSError:  # no process, or gone meanwhile
            continue
        if any(str(folder) in one for one in (*words, here)):
            found.append(words)
    return found


def _stands_still(pid: int) -> bool:
    threads = (_fields(path) for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return all(fields is None or fields[0] in ("T", "Z") for fields in threads)


def _start_ticks(pid: int) -> int | None:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    # Field 22 of proc(5), counted from the third; "Z" is a process that ended and was not yet waited for.
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def _fields(stat: Path) -> list[str] | None:
    """The fields of a stat file behind the name, which may have blanks and brackets in it; None of what is gone.

    It may go between the opening and the reading of its file, too.
    """
    try:
        return stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
