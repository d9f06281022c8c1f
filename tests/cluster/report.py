"""What the drills came to: a table, a file of results, and a picture of how long clients could not write."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.timing import Timing
from tests.cluster.scene import Round

PREDECESSOR_MS = 763.0
"""Its median from the kill of the leader to the first accepted write."""
COLOURS = 10
LINES = ("-", "--")
"""One for the first ten, one for those that have the same colours."""
AIMS_MS = (150.0, 500.0)
"""For the median and the 99th percentile."""


class Outcome(msgspec.Struct, kw_only=True):
    """One drill. The lists of messages are cut short; the numbers are not."""

    drill: str
    heartbeat_ms: int
    election_ms: int
    seed: int
    nodes: int = 3
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    disordered: int = 0
    altered: int = 0
    reads: int = 0
    """Answers to reads that asked for what was acknowledged."""
    stale_reads: int = 0
    digests_equal: bool = False
    rounds: list[Round] = msgspec.field(default_factory=list)
    notes: dict[str, list[float]] = msgspec.field(default_factory=dict)
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    """What the writers' attempts met with, and how often."""
    complaints: dict[str, int] = msgspec.field(default_factory=dict)
    """Errors in the nodes' logs, and how often."""
    problems: list[str] = msgspec.field(default_factory=list)
    """What must not be, in words; the evidence for the numbers above comes first."""
    skipped: str = ""
    """Why it could not be tried here."""

    @property
    def is_sound(self) -> bool:
        """Nothing lost, doubled, disordered or unequal, and nothing else went wrong."""
        return not self.problems and (self.digests_equal or bool(self.skipped))


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return the outcomes, one line for each drill."""
    shown = Table(
        "drill", "heartbeat/\nelection ms", "rounds", "acknow-\nledged", "lost", "dupli-\ncates", "stale\nreads",
        "digests\nequal", "first write after ms\np50 / p99 / max", "longest time\nwithout writes ms", "slowest\nwrite ms", "",
    )  # fmt: skip
    for outcome in outcomes:
        timing = f"{outcome.heartbeat_ms}/{outcome.election_ms}"
        if outcome.skipped:
            shown.add_row(outcome.drill, timing, "SKIP", outcome.skipped)
            continue
        rounds = outcome.rounds
        shown.add_row(
            outcome.drill,
            timing,
            str(len(rounds)),
            f"{outcome.acknowledged:,}",
            str(outcome.lost),
            str(outcome.duplicates),
            f"{outcome.stale_reads}/{outcome.reads:,}",
            "yes" if outcome.digests_equal else "NO",
            _quantiles([one.first_write_ms for one in rounds]),
            f"{max((one.gap_ms for one in rounds), default=0):.0f}",
            f"{max((one.slowest_write_ms for one in rounds), default=0):.0f}",
            "ok" if outcome.is_sound else "BROKEN",
        )
    return shown


def notes(outcome: Outcome) -> list[str]:
    """Return what else was measured, and what went wrong, line by line."""
    complained = [f"in the logs, {count} times: {message}" for message, count in outcome.complaints.items()]
    measured = [f"{what}: {_quantiles(values, digits=1)}" for what, values in outcome.notes.items()]
    return [
        f"{outcome.drill}: {line}"
        for line in (*measured, *complained, *(f"PROBLEM: {problem}" for problem in outcome.problems))
    ]


def _quantiles(values: Sequence[float], *, digits: int = 0) -> str:
    if not values:
        return ""
    timing = Timing([value / 1000 for value in values], 1)
    return " / ".join(
        f"{value:.{digits}f}" for value in (timing.quantile_ms(0.5), timing.quantile_ms(0.99), max(values))
    )


def merge(path: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that stand in the file, with those of this run instead of older ones of the same drill."""
    kept = msgspec.json.decode(path.read_bytes(), type=_Kept).results if path.exists() else []
    fresh = {_key(outcome): outcome for outcome in outcomes if not outcome.skipped}
    return [*(outcome for outcome in kept if _key(outcome) not in fresh), *fresh.values()]


class _Kept(msgspec.Struct):
    machine: dict[str, str]
    results: list[Outcome]


def write(path: Path, machine: dict[str, str], outcomes: Sequence[Outcome]) -> None:
    """Keep the outcomes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(_Kept(machine, list(outcomes))), indent=2) + b"\n")


def _key(outcome: Outcome) -> tuple[str, int, int]:
    return (outcome.drill, outcome.heartbeat_ms, outcome.election_ms)


def draw(path: Path, outcomes: Sequence[Outcome]) -> str:
    """Draw, for each drill, the share of faults after which a write was accepted within a time.

    Returns the addition to the line that says what was written; empty where matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return ""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots()
    for number, outcome in enumerate(outcomes):
        times_ms = sorted(max(1.0, one.first_write_ms) for one in outcome.rounds)
        if times_ms:
            shares = [(rank + 1) / len(times_ms) for rank in range(len(times_ms))]
            label = f"{outcome.drill}, {outcome.heartbeat_ms}/{outcome.election_ms} ms ({len(times_ms)})"
            axes.step(
                [times_ms[0], *times_ms],
                [0, *shares],
                where="post",
                label=label,
                linestyle=LINES[number // COLOURS % 2],
            )
    for aim_ms, share in zip(AIMS_MS, (0.5, 0.99), strict=True):
        axes.plot([aim_ms], [share], "kv", markersize=8)
    axes.axvline(PREDECESSOR_MS, color="grey", linestyle=":", label="the predecessor's median")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from the fault to the first write that another node accepted (triangles: the aims)")
    axes.set_ylabel("share of the faults")
    axes.grid(which="both", alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)
    return f" and {path.name}"
