"""Runs the benchmarks: `python -m benchmarks [--full] [NAME ...]`, or `python -m benchmarks --check`."""

import argparse
import sys
from collections.abc import Callable, Mapping

from benchmarks import (
    access_log,
    builds,
    check,
    convergence,
    daemon,
    idle_tick,
    in_process,
    logs,
    peers,
    pulling,
    results,
    starting,
)
from benchmarks.figures import Figure

BENCHMARKS: Mapping[str, Callable[[bool], list[Figure]]] = {
    "in_process": lambda _: in_process.main(),
    "peers": lambda full: peers.main(full=full),
    "starting": lambda _: starting.main(),
    "idle_tick": lambda full: idle_tick.main(full=full),
    "convergence": lambda _: convergence.main(),
    "pulling": lambda _: pulling.main(),
    "daemon": lambda full: daemon.main(full=full),
    "logs": lambda _: logs.main(),
    "access_log": lambda _: access_log.main(),
    "builds": lambda _: builds.main(),
}


def main(arguments: list[str]) -> int:
    """The exit status is 1 when a goal is missed, or a recorded ratio with `--check`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all unless told")
    parser.add_argument("--full", action="store_true", help="all sizes, and the daemon for five minutes")
    parser.add_argument(
        "--check", action="store_true", help="the small sizes, against what is recorded in results.json"
    )
    told = parser.parse_args(arguments)
    unknown = sorted(set(told.names) - BENCHMARKS.keys())
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    if told.check:
        return check.main()
    met = True
    for name in told.names or BENCHMARKS:
        found = BENCHMARKS[name](told.full)
        for one in found:
            print(one, flush=True)
            met = met and one.met
        results.write({name: found})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
