"""The pictures of a run, where matplotlib is installed (`make bench` installs it)."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import OURS, THEIRS, Compared
from benchmarks.timing import Result


def draw(results: Sequence[Result], path: Path) -> str:
    """Draw the latencies of `results` into `path`; return the addition to the line that says what was written."""
    if importlib.util.find_spec("matplotlib") is None:
        return ""
    timed = [result for result in results if result.p50_ms is not None]
    labels = [f"{result.question}, {result.case}" for result in timed]
    size = (9, 0.45 * len(timed) + 1.2)
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for share, marker in (("p50_ms", "o"), ("p95_ms", "|"), ("p99_ms", "x")):
        axes.plot([getattr(result, share) for result in timed], range(len(timed)), marker, label=share[:3])
    axes.set_yticks(range(len(timed)), labels)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, as the client sees them")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return f" and {path.name}"


def draw_comparison(comparison: Sequence[Compared], path: Path) -> str:
    """Draw both systems' rates and latencies into `path`; return the addition to the line that says what was written."""
    if importlib.util.find_spec("matplotlib") is None:
        return ""
    shown = {"per s": 10.0, "p50 ms": 0.1, "p99 ms": 0.1}  # and where the bars begin: a logarithm has no zero
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(14, 6), layout="constrained")
    for axes, (unit, lowest) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        lines = [line for line in comparison if line.unit == unit]
        places = range(len(lines))
        for offset, name, values in (
            (-0.2, OURS, [line.ours for line in lines]),
            (0.2, THEIRS, [line.theirs or 0 for line in lines]),
        ):
            bars = axes.barh([place + offset for place in places], values, height=0.4, label=name)
            axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        axes.set_yticks(places, [f"{line.question}:\n{line.case}" for line in lines], fontsize=7)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(lowest, 3 * max([lowest, *(value for line in lines for value in (line.ours, line.theirs or 0))]))
        axes.minorticks_off()
        axes.set_xlabel({"per s": "messages a second"}.get(unit, unit))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)
    return f" and {path.name}"
