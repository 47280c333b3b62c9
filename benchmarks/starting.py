"""Cold starts of the command, beside a bare interpreter that imports the libraries which the command cannot do without."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import states
from benchmarks.figures import Figure
from tests.lab.agent import AGENT

_ROUNDS: Final = 11
_HELP_GOAL: Final = 1.3
_PLAN_GOAL: Final = 2.0


def main() -> list[Figure]:
    """`agent --help`, and `agent plan` with two small files."""
    with tempfile.TemporaryDirectory() as folder:
        expected, actual = Path(folder) / "expected.json", Path(folder) / "actual.json"
        expected.write_bytes(states.document(3))
        actual.write_text(json.dumps({"containers": []}))
        files = ("--expected", str(expected), "--actual", str(actual))
        plan_s, libraries_s = _in_turn(
            (str(AGENT), "plan", *files), (sys.executable, "-c", "import typer, pydantic, msgspec")
        )
        help_s, typer_s = _in_turn((str(AGENT), "--help"), (sys.executable, "-c", "import typer, rich"))
    return [
        Figure("agent --help", "python -c 'import typer, rich'", None, help_s, typer_s, _HELP_GOAL),
        Figure("agent plan, two files", "… 'import typer, pydantic, msgspec'", None, plan_s, libraries_s, _PLAN_GOAL),
    ]


def _in_turn(ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, float]:
    """Median seconds of both, in turn, so that a busy moment meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for argv, found in zip((ours, theirs), times, strict=True):
            begun = time.perf_counter()
            done = subprocess.run(argv, capture_output=True, check=True)
            found.append(time.perf_counter() - begun)
            assert done.stdout or argv is theirs
    return statistics.median(times[0]), statistics.median(times[1])
