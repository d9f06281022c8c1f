"""How fast are the read models, Redis and LanceDB built again from the log, and in how much memory?

    python -m benchmarks.bench_rebuild            100 000 messages, a minute; writes results/rebuild.json
    python -m benchmarks.bench_rebuild --quick    1 000 messages; writes nothing

The node does not run; each rebuild is the command, `engram rebuild`, in a process of its own, its start included.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import made_log
from benchmarks.timing import Result, describe_machine
from engram import __version__
from tests.redis_server import RedisServer
from tests.server_process import PROJECT, find_free_port

RESULTS = Path(__file__).parent / "results"
MESSAGES = 100_000
MESSAGES_QUICK = 1_000
POLL_S = 0.02
AIMS_PER_S: Mapping[str, int] = {"projections": 20_000, "redis": 20_000, "lancedb": 10_000}


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is written down."""

    version: str
    machine: dict[str, str]
    results: list[Result]


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_rebuild", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, small, and keep nothing")
    parser.add_argument("--only", choices=AIMS_PER_S, help="one of them; the read models first in any case")
    options = parser.parse_args(arguments)
    messages = MESSAGES_QUICK if options.quick else MESSAGES
    wanted = [target for target in AIMS_PER_S if options.only in {None, target} or target == "projections"]
    console = Console()
    with tempfile.TemporaryDirectory() as name, Progress(console=console) as progress:
        task = progress.add_task("making a log", total=len(wanted) + 1)
        folder = Path(name)
        asyncio.run(made_log.make(folder / "data", messages))
        results = []
        for target in wanted:
            progress.update(task, advance=1, description=f"rebuilding {target}")
            results.append(_rebuild(folder, target, messages))
        progress.update(task, advance=1)
    console.print(_table(results))
    if not options.quick and options.only is None:
        report = Report(version=__version__, machine=describe_machine(), results=results)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "rebuild.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


def _rebuild(folder: Path, target: str, messages: int) -> Result:
    with _settings(folder, target) as settings:
        command = [sys.executable, "-m", "engram", "rebuild", target]
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(PROJECT), **settings}
        with (folder / "told").open("w+") as told:
            before_s, started_s, peak_kb = _cpu_s(), time.perf_counter(), 0
            process = subprocess.Popen(command, cwd=folder, env=environ, stderr=told)
            while process.poll() is None:
                peak_kb = max(peak_kb, _peak_kb(process.pid))
                time.sleep(POLL_S)
            run_s = time.perf_counter() - started_s
            assert process.returncode == 0, Path(told.name).read_text()
    return Result(
        question=f"rebuild {target}",
        case=f"{messages} messages, {_cpu_s() - before_s:.1f} s of CPU",
        requests=1,
        per_s=round(messages / run_s, 1),
        value=round(peak_kb / 1024),
        unit="MiB at most",
    )


def _cpu_s() -> float:
    """Return what all processes that were started here, and have ended, took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _peak_kb(pid: int) -> int:
    """Return the most memory that a process has had resident; 0 when it has ended.

    What the system says of an ended process includes what its parent had when it was forked.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


@contextmanager
def _settings(folder: Path, target: str) -> Iterator[Mapping[str, str]]:
    settings = {"ENGRAM_DATA_DIR": str(folder / "data")}
    if target != "redis":
        yield settings
        return
    with RedisServer(folder / "redis", find_free_port()) as server:
        yield {**settings, "REDIS_URL": server.url, "SHORT_TERM_COUNT": str(made_log.SESSION_MESSAGES)}


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="Rebuilding from the log")
    for heading in ("what", "case", "messages/s", "aim", "memory"):
        table.add_column(heading, justify="left" if heading in {"what", "case"} else "right")
    for each in results:
        aim = AIMS_PER_S[each.question.removeprefix("rebuild ")]
        table.add_row(each.question, each.case, f"{each.per_s:,.0f}", f"{aim:,}", f"{each.value} {each.unit}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
