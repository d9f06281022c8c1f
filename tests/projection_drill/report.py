"""What the drill came to: two tables, and a file of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.timing import Timing


class Latency(msgspec.Struct, kw_only=True):
    """How long requests took that got an answer, in milliseconds."""

    requests: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Round(msgspec.Struct, kw_only=True):
    """One round: from its fault to the next."""

    number: int
    faults: list[str]
    acknowledged: int
    """Messages."""
    is_quiet: bool
    """Clients only read during the fault."""
    redis_serves_s: float
    """From the end of the fault until readers are answered by Redis again."""
    reads: Latency
    writes: Latency
    deletes: Latency
    mistakes: int
    """Answers that must not be, and errors that nothing excuses."""


class Result(msgspec.Struct, kw_only=True):
    """One run."""

    seed: str
    rounds: list[Round] = msgspec.field(default_factory=list)
    by_fault: dict[str, dict[str, Latency]] = msgspec.field(default_factory=dict)
    """Latencies while a fault lasted and shortly after, and `none`: in between, by kind of request."""
    notes: dict[str, list[float]] = msgspec.field(default_factory=dict)
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    """What requests met with, and how often."""
    compared: int = 0
    """Reads that were compared with those of a fresh fold."""
    problems: list[str] = msgspec.field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Nothing was wrong, and something was looked at."""
        return not self.problems and self.compared > 0


def latency(times_s: Sequence[float]) -> Latency:
    """Return the latencies in short."""
    if not times_s:
        return Latency()
    timing = Timing(times_s, 1)
    return Latency(
        requests=len(times_s),
        p50_ms=round(timing.quantile_ms(0.5), 1),
        p99_ms=round(timing.quantile_ms(0.99), 1),
        max_ms=round(1000 * max(times_s), 1),
    )


def tables(result: Result) -> list[Table]:
    """Return one table of the rounds, and one of the faults."""
    rounds = Table("round", "fault", "acknow-\nledged", "Redis serves\nafter s", "reads ms\np50 / p99 / max", "writes ms\np50 / p99 / max",
                   "deletes ms\np50 / p99 / max", "wrong")  # fmt: skip
    for one in result.rounds:
        latencies = (_told(one.reads), _told(one.writes), _told(one.deletes))
        rounds.add_row(
            str(one.number),
            " + ".join(one.faults),
            str(one.acknowledged),
            f"{one.redis_serves_s:g}",
            *latencies,
            str(one.mistakes),
        )
    faults = Table("while", "reads", "reads ms\np50 / p99 / max", "writes", "writes ms\np50 / p99 / max")
    for name, kinds in result.by_fault.items():
        reads, writes = kinds["read"], kinds["write"]
        faults.add_row(name, str(reads.requests), _told(reads), str(writes.requests), _told(writes))
    return [rounds, faults]


def notes(result: Result) -> list[str]:
    """Return what else was measured, and what went wrong, line by line."""
    measured = [
        f"{what}: {len(values)} times, mean {sum(values) / len(values):.2f}, max {max(values):.2f}"
        for what, values in sorted(result.notes.items())
    ]
    outcomes = ", ".join(f"{what}: {count}" for what, count in sorted(result.outcomes.items()))
    return [*measured, f"answers: {outcomes}", *(f"PROBLEM: {problem}" for problem in result.problems)]


def write(path: Path, machine: Mapping[str, str], result: Result) -> None:
    """Keep the result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "result": result}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def _told(latency: Latency) -> str:
    return f"{latency.p50_ms:g} / {latency.p99_ms:g} / {latency.max_ms:g}" if latency.requests else ""
