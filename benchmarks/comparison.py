"""Rounds of several systems, and what they say side by side: medians over the rounds, and ratios round by round."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import msgspec
from rich.table import Table

from benchmarks.timing import Result

OURS, THEIRS = "engram", "etcd"


class Round(msgspec.Struct, kw_only=True):
    """One system on nodes that were started for it; rounds of the same number followed one another."""

    system: str
    number: int
    leader_changes: int = 0
    """How often another node led in the middle of a measurement, which was then begun again."""
    results: Sequence[Result]


class Compared(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One number of both systems; the ratio is ours divided by theirs."""

    question: str
    case: str
    unit: str
    ours: float
    """The median of the rounds."""
    ours_lowest: float
    ours_highest: float
    theirs: float | None = None
    """None: they were not there."""
    ratio: float | None = None
    """The median, too; each round of ours was divided by the round of theirs that followed it."""


class _Quantity(NamedTuple):
    """A number that a line of a round may have."""

    unit: str
    of: Callable[[Result], float | None]


_QUANTITIES = (
    _Quantity("per s", lambda result: result.per_s),
    _Quantity("p50 ms", lambda result: result.p50_ms),
    _Quantity("p99 ms", lambda result: result.p99_ms),
    _Quantity("", lambda result: result.value),
)


_COLUMNS = ("per s", "p50 ms", "p99 ms")


def compare(rounds: Sequence[Round]) -> list[Compared]:
    """Return each number that a round of ours has, in the order of its lines."""
    first = next(done for done in rounds if done.system == OURS)
    return [
        _compared(rounds, line, quantity)
        for line in first.results
        for quantity in _QUANTITIES
        if quantity.of(line) is not None
    ]


def _compared(rounds: Sequence[Round], line: Result, quantity: _Quantity) -> Compared:
    ours, theirs = (_values(rounds, system, line, quantity) for system in (OURS, THEIRS))
    ratios = [own / other for own, other in zip(ours, theirs, strict=False) if other]
    return Compared(
        question=line.question,
        case=line.case,
        unit=quantity.unit or line.unit,
        ours=_rounded(median(ours)),
        ours_lowest=_rounded(min(ours)),
        ours_highest=_rounded(max(ours)),
        theirs=_rounded(median(theirs)) if theirs else None,
        ratio=_rounded(median(ratios)) if ratios else None,
    )


def _values(rounds: Sequence[Round], system: str, line: Result, quantity: _Quantity) -> list[float]:
    found = [
        quantity.of(result)
        for done in rounds
        if done.system == system
        for result in done.results
        if (result.question, result.case) == (line.question, line.case)
    ]
    return [value for value in found if value is not None]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def show(comparison: Sequence[Compared]) -> Table:
    """Return the table of a comparison: a row a line of the rounds, ours and theirs in each cell, and the ratio."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for line in comparison:
        is_named = line.unit in _COLUMNS
        text = _cell(line) if is_named else f"{_cell(line)} {line.unit}"
        cells.setdefault((line.question, line.case), {})[line.unit if is_named else "value"] = text
    table = Table("", *_COLUMNS, "value", title=f"{OURS} | {THEIRS} = ratio; medians of the rounds")
    for (question, case), row in cells.items():
        table.add_row(f"{question}: {case}", *(row.get(column, "") for column in (*_COLUMNS, "value")))
    return table


def _cell(line: Compared) -> str:
    if line.theirs is None:
        return _number(line.ours)
    ratio = "" if line.ratio is None else f" = {line.ratio:.2f}"
    return f"{_number(line.ours)} | {_number(line.theirs)}{ratio}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004
