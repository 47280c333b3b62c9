"""How a process of the agent ends: what it says of a failure, and that it ends at once."""

import os
import sys
from typing import NoReturn

from core.printable import escape
from shell import streams


def told(why: str) -> int:
    """Say on one line why the command failed; the exit status."""
    sys.stderr.write(f"agent: {escape(' '.join(why.splitlines()))}\n")
    return 1


def reason(error: Exception) -> str:
    """What to say of a failure that is no defect of the agent: a folder that cannot be made, a disk that is full."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def leave(status: int) -> NoReturn:
    """End now: taking every module apart first takes a fifth of a dry run's time, and a thread may hang in an outside component."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    streams.drain()
    os._exit(status)
