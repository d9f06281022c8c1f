"""Recall against latency: one panel a data set, one point a method. Needs matplotlib (`requirements/bench.txt`)."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from benchmarks.quality_metrics import Metrics

MARKERS = {"engram": "o", "plain BM25": "s", "plain vectors": "^"}


def draw(runs: Mapping[str, Metrics], path: Path) -> bool:
    """Draw the runs that have something to show into `path`, each under its name; False if matplotlib is not installed or none has."""
    shown = [(name, run, level) for name, run in runs.items() if (level := _level(run))]
    if not shown or importlib.util.find_spec("matplotlib") is None:
        return False
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(4.6 * len(shown), 4.2), layout="constrained")
    for axes, (name_of_run, run, level) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for name, marks in run.methods[level].items():
            spread = run.search_ms[name]
            for measure, fill in (("recall_any@5", "full"), ("ndcg@10", "none")):
                axes.errorbar(
                    [spread.p50],
                    [marks[measure]],
                    xerr=[[0.0], [max(0.0, spread.p95 - spread.p50)]],
                    marker=MARKERS.get(name, "x"),
                    fillstyle=fill,
                    markersize=9 if name == "engram" else 7,
                    color="C0" if name == "engram" else "C7",
                    label=f"{name}, {measure}",
                )
        axes.set_title(f"{name_of_run}: {level}s, {run.questions_evaluated} questions", fontsize=9)
        axes.set_xscale("log")
        axes.set_xlabel("ms a search, p50 and p95 (engram: over HTTP)", fontsize=8)
        axes.set_ylim(0, 1.02)
        axes.grid(which="both", alpha=0.3)
        axes.legend(fontsize=6, loc="lower right")
    figure.savefig(path, dpi=120)
    return True


def _level(run: Metrics) -> str:
    """Return the level that the data set is judged at: LongMemEval's answers are sessions, others' turns."""
    levels = ("session", "turn") if run.dataset == "LongMemEval" else ("turn", "session")
    return next((level for level in levels if level in run.methods), "")
