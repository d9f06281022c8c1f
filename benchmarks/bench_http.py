"""How fast is a node, seen by a client over HTTP, with every write durable?

    python -m benchmarks.bench_http            all of it, some minutes; writes results/http.json and http.png
    python -m benchmarks.bench_http --quick    each part once, small; writes nothing

The server runs in a process of its own on a fresh folder, the client in this one; they share the machine's cores, as
they would on a desk. The disk's own price of a durable 4 KiB append stands beside the results.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import plot
from benchmarks.conversations import Conversations
from benchmarks.timing import Result, describe_machine, summarize, time_appends
from benchmarks.workloads import FULL, QUICK, READS, WRITES, Sizes, Tick, Workload, measure_first_searches
from tests.server_process import ServerProcess, find_free_port

RESULTS = Path(__file__).parent / "results"
SEED = 20260501
APPENDS = 300
SETTLE_POLL_S = 0.1


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is written down."""

    version: str
    machine: dict[str, str]
    results: list[Result]


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_http", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each part once, small, and keep nothing")
    parser.add_argument("--folder", type=Path, help="where the data goes; default: a temporary folder")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    machine = describe_machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = _measure(Path(folder), sizes)
    console = Console()
    console.print(_table(results))
    if not options.quick:
        report = Report(version=_version(), machine=machine, results=results)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "http.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        console.print(f"written: {RESULTS.name}/http.json{plot.draw(results, RESULTS / 'http.png')}")
    return 0


def _measure(folder: Path, sizes: Sizes) -> list[Result]:
    said = Conversations(SEED)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        disk = summarize(
            "disk", "append 4 KiB, fdatasync", time_appends(folder, APPENDS // (10 if sizes is QUICK else 1))
        )
        results = [disk, *_measure_starts(folder, sizes)]
        with ServerProcess(folder / "ingest", find_free_port()) as server:
            _wait_settled(server)
            results.append(_measure_memory(server, "empty"))
            for workload in WRITES:
                results += _run(workload, server, said, sizes, progress)
        server = ServerProcess(folder / "node", find_free_port())
        with server:
            _wait_settled(server)
            for workload in READS:
                results += _run(workload, server, said, sizes, progress)
            stored = f"{_stored(sizes)} messages"
            results.append(_measure_memory(server, stored))
            server.stop()
            results.append(_seconds("start to ready", f"{stored}, after SIGTERM", server.start()))
            results += _run(measure_first_searches, server, said, sizes, progress)
            server.kill()
            results.append(_seconds("start to ready", f"{stored}, after kill -9", server.start()))
            results.append(_measure_memory(server, f"{stored}, just started"))
    return results


def _run(
    workload: Workload, server: ServerProcess, said: Conversations, sizes: Sizes, progress: Progress
) -> list[Result]:
    """Run one workload on a loop of its own and return its lines."""
    task = progress.add_task((workload.__doc__ or "").splitlines()[0], total=None)
    results = uvloop.run(_as_coroutine(workload, server.port, said, sizes, lambda done: progress.advance(task, done)))
    progress.remove_task(task)
    return results


async def _as_coroutine(workload: Workload, port: int, said: Conversations, sizes: Sizes, tick: Tick) -> list[Result]:
    return await workload(port, said, sizes, tick)


def _measure_starts(folder: Path, sizes: Sizes) -> list[Result]:
    seconds = []
    for number in range(sizes.starts):
        server = ServerProcess(folder / f"cold-{number}", find_free_port())
        seconds.append(server.start())
        server.stop()
    return [_seconds("start to ready", "empty, cold", sorted(seconds)[len(seconds) // 2])]


def _wait_settled(server: ServerProcess) -> None:
    """Return once the long-term store, which a node opens after it is ready, is open too."""
    while True:
        with urllib.request.urlopen(f"{server.url}/ready", timeout=5) as answer:
            dependencies = json.load(answer)["dependencies"]
        if all(dependency["ready"] for dependency in dependencies):
            return
        time.sleep(SETTLE_POLL_S)


def _measure_memory(server: ServerProcess, case: str) -> Result:
    return Result(question="memory", case=case, value=round(server.rss_bytes() / 1e6, 1), unit="MB resident")


def _seconds(question: str, case: str, seconds: float) -> Result:
    return Result(question=question, case=case, value=round(seconds, 3), unit="s")


def _stored(sizes: Sizes) -> int:
    return sum(sizes.context_messages) + 500 * sizes.stored_sessions[-1]


def _table(results: Sequence[Result]) -> Table:
    table = Table("question", "case", "per second", "p50 ms", "p95 ms", "p99 ms", "value")
    for result in results:
        numbers = (result.per_s, result.p50_ms, result.p95_ms, result.p99_ms)
        shown = ["" if number is None else f"{number:,.2f}" for number in numbers]
        table.add_row(
            result.question, result.case, *shown, "" if result.value is None else f"{result.value:g} {result.unit}"
        )
    return table


def _version() -> str:
    source = Path(__file__).parents[1] / "engram" / "__init__.py"
    return source.read_text().split('__version__ = "')[1].split('"')[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
