"""How fast does a client get the log as a stream of events?

    python -m benchmarks.bench_events            20 000 messages; writes results/events.json
    python -m benchmarks.bench_events --quick    500 messages; writes nothing

A real node in a process of its own, with a log that was made beforehand, and one client in this process, which splits the
stream into events and looks at each one's id. A message is two events: its text and its vector, of which the stream has
all but the numbers.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
import uvloop
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from benchmarks import made_log
from benchmarks.timing import Result, describe_machine
from engram import __version__
from tests.server_process import ServerProcess, find_free_port

RESULTS = Path(__file__).parent / "results"
MESSAGES = 20_000
MESSAGES_QUICK = 500
AIM_PER_S = 5_000
STREAM = {"Accept": "text/event-stream"}
RUNS = 3


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is written down."""

    version: str
    machine: dict[str, str]
    results: list[Result]


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_events", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, small, and keep nothing")
    options = parser.parse_args(arguments)
    messages = MESSAGES_QUICK if options.quick else MESSAGES
    console = Console()
    with tempfile.TemporaryDirectory() as name, Progress(console=console) as progress:
        folder = Path(name)
        task = progress.add_task("making a log", total=None)
        uvloop.run(made_log.make(folder / "node" / "data", messages))
        with ServerProcess(folder / "node", find_free_port()) as node:
            asyncio.run(_ready(node.url))
            results = []
            for _ in range(1 if options.quick else RUNS):
                progress.reset(task, total=2 * messages, description="streaming")
                results.append(uvloop.run(_stream(node, 2 * messages, progress, task)))
    console.print(_table(results))
    if not options.quick:
        report = Report(version=__version__, machine=describe_machine(), results=results)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "events.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


async def _ready(url: str) -> None:
    """Return when the node has folded its log: a route about memory waits for that."""
    async with aiohttp.ClientSession(url) as http:
        while True:
            async with http.get("/sessions/session-0") as answer:
                if answer.status == 200:  # noqa: PLR2004 - the session is there
                    return
            await asyncio.sleep(0.1)


async def _stream(node: ServerProcess, events: int, progress: Progress, task: TaskID) -> Result:
    before_mb = node.rss_bytes() / 2**20
    seen, last_id, size_bytes = 0, b"", 0
    pending = bytearray()
    started_s = time.perf_counter()
    async with aiohttp.ClientSession(node.url) as http, http.get("/events?after=0", headers=STREAM) as answer:
        assert answer.ok, await answer.text()
        async for part in answer.content.iter_any():
            size_bytes += len(part)
            pending += part
            *blocks, rest = bytes(pending).split(b"\n\n")
            pending = bytearray(rest)
            for block in blocks:
                event_id = block.partition(b"\n")[0]
                if b"\ndata: " in block and event_id.startswith(b"id: "):
                    assert event_id != last_id, f"{event_id!r} came twice"
                    seen, last_id = seen + 1, event_id
            progress.update(task, completed=seen)
            if seen >= events:
                break
    run_s = time.perf_counter() - started_s
    return Result(
        question="stream of events to one client",
        case=f"{events} events, {size_bytes / run_s / 1e6:.0f} MB/s",
        requests=1,
        per_s=round(seen / run_s, 1),
        value=round(max(0.0, node.rss_bytes() / 2**20 - before_mb), 1),
        unit="MiB of memory more in the node",
    )


def _table(results: Sequence[Result]) -> Table:
    table = Table(title=f"Events, aim {AIM_PER_S:,} a second")
    for heading in ("what", "case", "events/s", "besides"):
        table.add_column(heading, justify="left" if heading in {"what", "case"} else "right")
    for each in results:
        table.add_row(each.question, each.case, f"{each.per_s:,.0f}", f"{each.value} {each.unit}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
