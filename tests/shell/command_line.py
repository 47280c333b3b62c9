"""The command line inside this process, without the cost of a new one: the same entry point, arguments, streams and exit status."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import structlog

from shell import cli
from tests.lab.agent import AGENT

LIMIT_S = 60


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def why(self) -> str:
        """The one line that tells what went wrong; nothing else was written."""
        assert self.status == 1, self
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("agent: ")
        return line.removeprefix("agent: ")


def agent(*arguments: object, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
    """Run `agent` with these arguments; `env` is all that it sees of the environment that concerns it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    given: dict[str, Any] = {"TERM": "dumb", "COLUMNS": "200", **(env or {})}
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")),
        patch.object(sys, "argv", ["agent", *map(str, arguments)]),
        patch.dict("os.environ", given, clear=True),
    ):
        try:
            cli.main()
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        else:
            raise AssertionError("the entry point always ends with a status")
        finally:
            structlog.reset_defaults()
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Done(status, _text(out), _text(err))


def daemon(*arguments: object) -> Done:
    """The same in a process of its own, for commands that replace their process by the daemon's."""
    argv = [str(AGENT), *map(str, arguments)]
    env = {"PATH": os.environ["PATH"], "TERM": "dumb", "TECHULUS_ENV_FILE": os.devnull}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def _text(stream: io.TextIOWrapper) -> str:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
