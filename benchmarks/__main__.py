"""Runs the benchmarks: `python -m benchmarks [NAME ...]`."""

import sys

from benchmarks import convergence, decision, logs

BENCHMARKS = {"decision": decision.main, "convergence": convergence.main, "logs": logs.main}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; the exit status is 1 when a goal is missed."""
    unknown = sorted(set(names) - BENCHMARKS.keys())
    if unknown:
        sys.stderr.write(f"no benchmark called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}\n")
        return 2
    met = [BENCHMARKS[name]() for name in names or BENCHMARKS]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
