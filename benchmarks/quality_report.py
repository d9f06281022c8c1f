"""What a retrieval run came to: means over its questions, by type and by method, and which aims were met."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.quality_aims import judge
from benchmarks.quality_contexts import Survival, survivals
from benchmarks.quality_metrics import Judged, Metrics, Speed, spread
from benchmarks.quality_results import ENGRAM, MARKS, Retrieved
from benchmarks.timing import describe_machine

LEVELS = ("session", "turn")
TYPE_MARKS = ("recall_any@5", "recall_any@10", "recall_all@10", "mrr", "ndcg@10")
SURVIVAL_COLUMNS = ("tokens", "evidence", "found", "shown", "of found", "whole", "used", "p50 ms", "p99 ms")


class Server(NamedTuple):
    """What the memory says of itself at the end of a run."""

    embedder: str
    rss_mb: float | None


def summarize(
    dataset: str, file: str, rows: Sequence[Retrieved], settings: Mapping[str, str], server: Server
) -> Metrics:
    """Return the numbers of a run of at least one question."""
    by_method = {ENGRAM: [(row, row.metrics, row.search_ms) for row in rows]}
    for name in rows[0].baselines:
        by_method[name] = [(row, row.baselines[name].metrics, row.baselines[name].search_ms) for row in rows]
    evaluated = [row for row in rows if row.metrics]
    silent = [not row.ranked_session_ids for row in rows if row.is_abstention]
    level = LEVELS[1] if any("turn_mrr" in row.metrics for row in evaluated) else LEVELS[0]
    contexts_ms = [packed.context_ms for row in rows for packed in row.contexts]
    metrics = Metrics(
        dataset=dataset,
        file=file,
        embedder=server.embedder,
        questions_total=len(rows),
        questions_evaluated=len(evaluated),
        abstention_questions=len(silent),
        abstention_empty_rate=_mean([float(one) for one in silent]),
        means=_means([row.metrics for row in evaluated]),
        by_question_type=_by_type([(row.question_type, row.metrics) for row in evaluated]),
        methods={
            one: {name: _level(one, [marks for _, marks, _ in found]) for name, found in by_method.items()}
            for one in LEVELS
            if any(f"{one}_mrr" in row.metrics for row in evaluated)
        },
        methods_by_type={
            name: {
                kind: _level(level, [marks for row, marks, _ in found if row.question_type == kind])
                for kind in sorted({row.question_type for row in evaluated})
            }
            for name, found in by_method.items()
        },
        search_ms={name: spread([search_ms for _, _, search_ms in found]) for name, found in by_method.items()},
        first_search_ms=spread([row.first_search_ms for row in rows]),
        context_ms=spread(contexts_ms) if contexts_ms else None,
        contexts=survivals([(row.evidence, row.contexts) for row in rows]),
        ingest_s=spread([row.ingest_s for row in rows]),
        messages=max(row.messages for row in rows),
        rss_mb=server.rss_mb,
        aims=[],
        machine=describe_machine(),
        settings=dict(settings),
    )
    metrics.aims = judge(metrics)
    return metrics


def markdown(metrics: Metrics, results: str) -> str:
    """Return the summary as a page."""
    lines = [
        f"# {metrics.dataset} retrieval",
        "",
        f"- Data: `{metrics.file}`; embedder: `{metrics.embedder or 'not said'}`",
        f"- Results: `{results}`",
        (
            f"- Questions: {metrics.questions_total}, with known answers {metrics.questions_evaluated}, "
            f"without an answer {metrics.abstention_questions} (nothing found: {metrics.abstention_empty_rate:.3f})"
        ),
        *(f"- {line}" for line in _times(metrics)),
    ]
    if not metrics.methods:
        lines += ["", "No question of this data says which turns or sessions answer it: there is nothing to score."]
    for level, methods in metrics.methods.items():
        lines += ["", f"## Found, {level}s", "", *_rows(("method", *MARKS), methods)]
    if metrics.by_question_type:
        for level in metrics.methods:
            columns, values = _types(metrics, level)
            lines += ["", f"## By type of question, {level}s", "", *_rows(columns, values)]
    if metrics.contexts:
        lines += ["", "## Evidence in contexts", "", *_table(SURVIVAL_COLUMNS, map(_survival, metrics.contexts))]
    if metrics.aims:
        lines += ["", "## Aims", "", "| aim | measured | limit | |", "|---|---|---|---|"]
        lines += [f"| {one.aim} | {one.measured:.3f} | {one.limit:.3f} | {_verdict(one)} |" for one in metrics.aims]
    return "\n".join(lines) + "\n"


def show(metrics: Metrics, console: Console) -> None:
    """Print the numbers as tables."""
    for level, methods in metrics.methods.items():
        _print(console, f"{metrics.dataset}, {level}s", ("method", *MARKS), methods)
    for level in metrics.methods:
        _print(console, f"{metrics.dataset} by type of question, {level}s", *_types(metrics, level))
    show_survival(metrics, console)
    show_aims({metrics.dataset: metrics.aims}, console)
    for line in _times(metrics):
        console.print(line, highlight=False)


def show_times(speed: Speed, console: Console) -> None:
    """Print what was measured while very much is stored."""
    title = f"{speed.messages} messages of {speed.characters:.0f} characters stored: ms over HTTP"
    table = Table(title=title, box=box.SIMPLE)
    for column in ("asked for", "times", "p50", "p95", "p99", "max"):
        table.add_column(column, no_wrap=True, justify="left" if column == "asked for" else "right")
    for name, took in speed.times_ms.items():
        times = (f"{value:.2f}" for value in (took.p50, took.p95, took.p99, took.max))
        table.add_row(name, str(speed.requests[name]), *times)
    console.print(table)
    memory = "" if speed.rss_mb is None else f"; resident memory of the server: {speed.rss_mb:g} MB"
    load = speed.machine["load_before"]
    console.print(
        f"written at {speed.messages_per_s:g} messages a second{memory}; load of the machine {load}", highlight=False
    )


def show_survival(metrics: Metrics, console: Console) -> None:
    """Print what share of the evidence is in contexts of each budget."""
    if metrics.contexts:
        table = Table(title=f"{metrics.dataset}: evidence in contexts", box=box.SIMPLE)
        for column in SURVIVAL_COLUMNS:
            table.add_column(column, no_wrap=True, justify="right")
        for line in metrics.contexts:
            table.add_row(*_survival(line))
        console.print(table)


def show_aims(aims: Mapping[str, Sequence[Judged]], console: Console) -> None:
    """Print which aims were met, by the name of what they are for."""
    table = Table("data", "aim", "measured", "", box=box.SIMPLE, title="Aims")
    for name, judged in aims.items():
        for one in judged:
            style = "green" if one.is_met else "bold red"
            table.add_row(name, one.aim, f"{one.measured:.3f}", f"[{style}]{_verdict(one)}")
    if table.row_count:
        console.print(table)


def _verdict(judged: Judged) -> str:
    return "met" if judged.is_met else "missed"


def _types(metrics: Metrics, level: str) -> tuple[tuple[str, ...], dict[str, dict[str, float]]]:
    """Return the table of the types whose questions have an answer at a level."""
    mine = {
        kind: {"questions": means["questions"], **{name: means[f"{level}_{name}"] for name in MARKS}}
        for kind, means in metrics.by_question_type.items()
        if f"{level}_mrr" in means
    }
    return ("type", "questions", *TYPE_MARKS), mine


def _times(metrics: Metrics) -> list[str]:
    """Return what took how long, over HTTP, and the memory that the server had: a line each."""
    search, context, ingest = metrics.search_ms[ENGRAM], metrics.context_ms, metrics.ingest_s
    lines = [
        f"Search of {metrics.settings.get('top_k', '?')} hits: p50 {search.p50:.2f} ms, p99 {search.p99:.2f} ms",
        f"The first search in a conversation just written: p50 {metrics.first_search_ms.p50:.2f} ms",
        f"A conversation was in after {ingest.p50:.2f} s, the longest after {ingest.max:.2f} s",
    ]
    if context is not None:
        lines.append(f"Context, all budgets: p50 {context.p50:.2f} ms, p99 {context.p99:.2f} ms")
    if metrics.rss_mb is not None:
        lines.append(f"Resident memory of the server at the end: {metrics.rss_mb:g} MB")
    return [*lines, f"Load of the machine when this was written: {metrics.machine['load_before']}"]


def _survival(line: Survival) -> list[str]:
    shares = [f"{share:.3f}" for share in (line.shown, line.found_shown, line.found_whole)]
    counts = [str(line.max_tokens), str(line.evidence), str(line.found)]
    return [*counts, *shares, f"{line.tokens:.0f}", f"{line.p50_ms:.2f}", f"{line.p99_ms:.2f}"]


def _rows(columns: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> list[str]:
    return _table(columns, (_cells(name, columns, row) for name, row in values.items()))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return head + [f"| {' | '.join(row)} |" for row in rows]


def _print(console: Console, title: str, columns: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(title=title, box=box.SIMPLE)
    for column in columns:
        short = column.removeprefix("recall_")
        table.add_column(short, no_wrap=True, justify="left" if column == columns[0] else "right")
    for name, row in values.items():
        table.add_row(*_cells(name, columns, row), style="bold" if name == ENGRAM else None)
    console.print(table)


def _cells(name: str, columns: Sequence[str], row: Mapping[str, float]) -> list[str]:
    return [name, *(f"{row[one]:g}" if one == "questions" else f"{row[one]:.3f}" for one in columns[1:])]


def _by_type(found: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    kinds = sorted({kind for kind, _ in found})
    listed = {kind: [marks for one, marks in found if one == kind] for kind in kinds}
    return {kind: {"questions": len(marks), **_means(marks)} for kind, marks in listed.items()}


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [f"{level}_{name}" for level in LEVELS for name in MARKS]
    columns = {name: [marks[name] for marks in found if name in marks] for name in names}
    return {name: _mean(column) for name, column in columns.items() if column}


def _level(level: str, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means = _means(found)
    return {name: means[f"{level}_{name}"] for name in MARKS if f"{level}_{name}" in means}


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 4) if values else 0.0
