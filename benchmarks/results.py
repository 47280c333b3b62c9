"""What a run has found, written down: `results.json`, a table in Markdown, and plots of how times grow."""

import json
import math
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure

FOLDER: Final = Path(__file__).parent
RESULTS: Final = FOLDER / "results.json"
TABLE: Final = FOLDER / "results.md"
_UNIT: Final = "json.loads"
_LEAST_FITTED: Final = 1_000  # below, fixed costs are most of it


def write(sections: Mapping[str, list[Figure]]) -> None:
    """Replace what earlier runs have written about these sections, and keep the rest."""
    kept: dict[str, list[dict[str, object]]] = _read()["sections"]
    kept |= {name: [_plain(one) for one in found] for name, found in sections.items()}
    machine = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
    RESULTS.write_text(json.dumps({"machine": machine, "sections": kept}, indent=1, ensure_ascii=False) + "\n")
    read = recorded()
    TABLE.write_text("\n".join(_table(machine, read)) + "\n")
    if "in_process" in sections:
        _plot(read["in_process"])


def recorded() -> dict[str, list[Figure]]:
    """What stands in `results.json`, by section."""
    return {
        name: [
            Figure(str(o["what"]), str(o["unit"]), o["size"], o["measured"], o["of"], o["goal"], o.get("least"))  # type: ignore[arg-type]  # our own file
            for o in found
        ]
        for name, found in _read()["sections"].items()
    }


def _read() -> dict[str, dict[str, list[dict[str, object]]]]:
    if not RESULTS.exists():
        return {"sections": {}}
    found: dict[str, dict[str, list[dict[str, object]]]] = json.loads(RESULTS.read_text())
    return found


def _plain(one: Figure) -> dict[str, object]:
    return {
        "what": one.what,
        "unit": one.unit,
        "size": one.size,
        "ratio": round(one.ratio, 5),
        "goal": one.goal,
        "met": one.met,
        "measured": one.measured,
        "of": one.of,
        "least": one.least,
    }


def _table(machine: str, sections: Mapping[str, list[Figure]]) -> Iterable[str]:
    yield "# Benchmarks"
    yield ""
    yield f"Written by `make bench`; {machine}. Each figure is a ratio of two measurements of one run; seconds where it is one of times."
    for name, found in sections.items():
        yield from ("", f"## {name.replace('_', ' ').capitalize()}", "")
        yield from ("| containers | what | ratio | to | measured | goal | |", "|---:|---|---:|---|---:|---:|---|")
        for one in found:
            size = "" if one.size is None else f"{one.size:,}"
            goal = "" if one.goal is None else f"{one.goal:g}"
            verdict = "" if one.goal is None else "met" if one.met else "**missed**"
            yield f"| {size} | {one.what} | {one.ratio:.3g} | {one.unit} | {one.measured:.3g} | {goal} | {verdict} |"


def exponent(times: Mapping[int, float]) -> float:
    """The slope of log(time) over log(size), by least squares, where fixed costs no longer count: 1 is linear."""
    points = [(math.log(size), math.log(took)) for size, took in times.items() if size >= _LEAST_FITTED]
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    slope: float = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope


def _plot(found: list[Figure]) -> None:
    """Seconds over containers, both logarithmic, with the fitted exponent of each line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file
    from matplotlib import pyplot

    times: dict[str, dict[int, float]] = defaultdict(dict)
    for one in found:
        if one.unit == _UNIT and one.size is not None:
            times[one.what][one.size] = one.measured
            times["json.loads of the expected state"][one.size] = one.of
    for name, kinds in {
        "parsing": ("parse", "json.loads"),
        "deciding": ("decision", "idle tick", "json.loads"),
    }.items():
        figure, axes = pyplot.subplots(figsize=(9, 6))
        for what, line in times.items():
            if what.startswith(kinds) and len([size for size in line if size >= _LEAST_FITTED]) > 1:
                axes.loglog(list(line), list(line.values()), marker="o", label=f"{what}: n^{exponent(line):.2f}")
        axes.set(xlabel="containers", ylabel="seconds", title=name.capitalize())
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
