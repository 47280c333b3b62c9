"""`agent`, and `python -m shell` where its script is not installed: the process around the command line."""

import os
import sys
from typing import NoReturn

from shell.cli import main


def start() -> NoReturn:
    """Run the command line and end at once: taking every module apart first would be a fifth of a dry run's time."""
    status: int | str | None = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    if not isinstance(status, int | None):  # nobody here ends so, but Python's way is to say it
        sys.stderr.write(f"{status}\n")
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status or 0)


if __name__ == "__main__":
    start()
