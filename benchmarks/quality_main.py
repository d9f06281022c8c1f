"""What the three quality benchmarks do alike: check, start what is to be started, run, write down, say what came of it."""

import argparse
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
from rich.console import Console

from benchmarks import quality_plot, quality_servers
from benchmarks.quality_answers import Answerer
from benchmarks.quality_client import Memory, RefusedError
from benchmarks.quality_data import Asked, Haystack, WrongDataError
from benchmarks.quality_report import Server, markdown, show, summarize
from benchmarks.quality_results import Answered, Notebook, Retrieved, Same, pretty, replace, same_run
from benchmarks.quality_run import Ids, Run

WRONG_INPUT = 2
INTERRUPTED = 130

SETTINGS = (
    "top_k",
    "max_tokens",
    "limit",
    "inject_session_markers",
    "timestamps",
    "baselines",
    "context_tokens",
    "embedder",
    "llm_model",
)
"""Options that change what is measured: a run is resumed with the same ones."""


class Benchmark(NamedTuple):
    """What differs from one data set to the other."""

    dataset: str
    prefix: str
    """Of the output files."""
    ids: Ids
    haystacks: Sequence[Haystack]
    settings: Mapping[str, object]
    """Options of its own that change what is measured."""
    answered: Callable[[Asked, str], None] = lambda _asked, _hypothesis: None
    """Hears each answer of a QA run."""


def run(options: argparse.Namespace, prog: str, load: Callable[[], Benchmark]) -> int:
    """Run a benchmark; return the exit code. What is wrong with the input or the servers is said in one line."""
    try:
        benchmark = load()
        _check(benchmark)
        options.output_dir.mkdir(parents=True, exist_ok=True)
        (_retrieve if options.mode == "retrieval" else _answer)(options, benchmark)
    except (WrongDataError, RefusedError, OSError) as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return WRONG_INPUT
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted; --resume goes on\n")
        return INTERRUPTED
    return 0


def _check(benchmark: Benchmark) -> None:
    ids = [asked.question_id for haystack in benchmark.haystacks for asked in haystack.questions]
    if not ids:
        raise WrongDataError("the data has no question of those that are wanted")
    twice = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise WrongDataError(f"the data has two questions {twice[0]}")


def _retrieve(options: argparse.Namespace, benchmark: Benchmark) -> None:
    results = options.output_dir / f"{benchmark.prefix}retrieval_results.json"
    same = _same(options, benchmark)
    notebook = Notebook(results, Retrieved, resume=options.resume)
    with quality_servers.memory(options) as memory:
        _run(options, benchmark, memory, same).retrieve(benchmark.haystacks, notebook)
        server = Server(memory.embedder(), memory.rss_mb())
    metrics = summarize(benchmark.dataset, options.dataset.name, notebook.rows, same.settings, server)
    replace(
        options.output_dir / f"{benchmark.prefix}retrieval_metrics.json", pretty({**metrics.means, **_plain(metrics)})
    )
    summary = options.output_dir / f"{benchmark.prefix}retrieval_summary.md"
    replace(summary, markdown(metrics, results.name).encode())
    console = Console()
    show(metrics, console)
    picture = options.output_dir / f"{benchmark.prefix}retrieval.png"
    drawn = f" and {picture.name}" if options.plot and quality_plot.draw({metrics.dataset: metrics}, picture) else ""
    console.print(
        f"written to {options.output_dir}: {results.name}, its metrics, {summary.name}{drawn}", highlight=False
    )


def _answer(options: argparse.Namespace, benchmark: Benchmark) -> None:
    answerer = Answerer(options)
    same = _same(options, benchmark)
    notebook = Notebook(options.output_dir / f"{benchmark.prefix}qa_details.json", Answered, resume=options.resume)
    hypotheses = options.output_dir / f"{benchmark.prefix}hypothesis.jsonl"
    with closing(answerer), quality_servers.memory(options) as memory:
        try:
            _run(options, benchmark, memory, same).answer(benchmark.haystacks, notebook, answerer, benchmark.answered)
        finally:
            lines = [{"question_id": row.question_id, "hypothesis": row.hypothesis} for row in notebook.rows]
            replace(hypotheses, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    unknown = sum(row.hypothesis.lower().startswith("i don't know") for row in notebook.rows)
    page = [
        f"# {benchmark.dataset} QA",
        "",
        f"- Data: `{options.dataset.name}`",
        f"- Answers for the official evaluator, which says how many are right: `{hypotheses.name}`",
        f"- Contexts and answers: `{notebook.path.name}`",
        f"- Questions: {len(notebook.rows)}, of them answered with I don't know: {unknown}",
        f"- Model: `{options.llm_model}`; budget of a context: {options.max_tokens} tokens",
        f"- Context over HTTP: p50 {sorted(row.context_ms for row in notebook.rows)[len(notebook.rows) // 2]:.2f} ms",
    ]
    replace(options.output_dir / f"{benchmark.prefix}qa_summary.md", ("\n".join(page) + "\n").encode())
    Console().print("\n".join(page[2:]), highlight=False, markup=False)


def _run(options: argparse.Namespace, benchmark: Benchmark, memory: Memory, same: Same) -> Run:
    return Run(options, memory, benchmark.ids, same.run_id)


def _same(options: argparse.Namespace, benchmark: Benchmark) -> Same:
    settings = {name: str(getattr(options, name)) for name in SETTINGS} | {
        name: str(value) for name, value in benchmark.settings.items()
    }
    size = options.dataset.stat().st_size if options.dataset.is_file() else "folder"
    mine = Same(
        run_id=f"quality-{secrets.token_hex(4)}",
        mode=options.mode,
        dataset=f"{options.dataset.name} ({size})",
        settings=settings,
    )
    return same_run(options.output_dir / f"{benchmark.prefix}run.json", mine, resume=options.resume)


def _plain(metrics: object) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(metrics)
    return plain
