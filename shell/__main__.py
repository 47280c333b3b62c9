"""`agent`, and `python -m shell` where its script is not installed: the process around the command line."""

import sys
from typing import NoReturn

from shell.cli import main
from shell.ending import leave
from shell.streams import complete


def start() -> NoReturn:
    """Run the command line and end at once."""
    complete()
    status: int | str | None = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    if not isinstance(status, int | None):  # nobody here ends so, but Python's way is to say it
        sys.stderr.write(f"{status}\n")
        status = 1
    leave(status or 0)


if __name__ == "__main__":
    start()
