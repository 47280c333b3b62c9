"""A program that tells what was handed over to it, in the daemon's place."""

import os
import signal
import sys
from pathlib import Path

from shell import handover


def main() -> None:
    """A line for each subject."""
    task = handover.take(int(sys.argv[1]))
    options = task.options
    words = (options.data_dir, options.public_ip, options.unmanaged, task.token, task.log_format, task.log_level)
    print("process:", os.getpid())
    print("task:", *words)
    targets = {one.name: str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.exists()}
    print("files left open:", sum("agent-task" in one for one in targets.values()))
    print("streams at nothing:", sum(targets[number] == os.devnull for number in "012"))
    print("in the environment:", b"TECHULUS_TOKEN" in Path("/proc/self/environ").read_bytes())
    print("arenas:", os.environ.get("MALLOC_ARENA_MAX"))
    shown = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")
    number = shown.index("-m") + 2
    print("shown:", *shown[:number], "N", *shown[number + 1 : -1])
    print("pending:", *[one.name for one in signal.sigpending()] or ["none"])
    for one in handover.STOPS:
        signal.signal(one, lambda number, _: print("taken:", signal.Signals(number).name))
    handover.receive_stops()


if __name__ == "__main__":
    main()
