"""How fast is a cluster of three nodes, seen by a client over HTTP, and how does etcd fare on the same machine?

    python -m benchmarks.bench_cluster            all of it, some minutes; writes results/cluster.json and cluster.png
    python -m benchmarks.bench_cluster --quick    each part once, small; writes nothing

Every write is durable on a majority when it is answered. Rounds of engram and of etcd (three nodes too, the same
client, values that are the bodies of engram's requests) take turns, each on fresh nodes, so that whatever else the
machine does meets both. The three processes and the client share its cores.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import etcd, plot
from benchmarks.cluster_load import (
    CASES,
    Case,
    LeaderMovedError,
    Nodes,
    Pair,
    System,
    Texts,
    measure_idle,
    resident_mb,
    write_for,
)
from benchmarks.comparison import Compared, Round, compare, show
from benchmarks.conversations import Conversations
from benchmarks.engram_cluster import Engram
from benchmarks.timing import Result, Timing, describe_machine, summarize, time_appends
from engram import __version__

RESULTS = Path(__file__).parent / "results"
SEED = 20260501
APPENDS = 300

STEPS = len(CASES) + 3
"""Of a round: start, each way of writing, reads, idleness."""


LEADER_CHANGES_MAX = 20
"""In a round: a machine that is too busy for one leader is too busy to measure on."""


class Sizes(NamedTuple):
    """How much of everything."""

    rounds: int
    seconds: float
    """Of each way of writing, in each round."""
    warm_s: float
    """Before each, and not counted."""
    reads: int
    """Of each way of reading, in each round."""
    settle_s: float
    """Until what the last writes leave to do is done, and a node is idle."""
    idle_s: float


FULL = Sizes(rounds=3, seconds=4.0, warm_s=0.5, reads=200, settle_s=15.0, idle_s=10.0)
QUICK = Sizes(rounds=1, seconds=0.1, warm_s=0.02, reads=3, settle_s=0.0, idle_s=0.1)


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is written down."""

    version: str
    etcd_version: str
    """Empty: etcd was not there."""
    machine: dict[str, str]
    disk: Result
    comparison: Sequence[Compared]
    rounds: Sequence[Round]


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_cluster", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each part once, small, and keep nothing")
    parser.add_argument("--rounds", type=int, help=f"of each system; default: {FULL.rounds}")
    parser.add_argument("--seconds", type=float, help=f"of each way of writing, a round; default: {FULL.seconds:g}")
    parser.add_argument("--folder", type=Path, help="where the data goes; default: a temporary folder")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    sizes = sizes._replace(rounds=options.rounds or sizes.rounds, seconds=options.seconds or sizes.seconds)
    console = Console()
    machine, systems = describe_machine(), _systems(console)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        disk = summarize("disk", "append 4 KiB, fdatasync", time_appends(Path(folder), APPENDS))
        rounds = uvloop.run(_measure(Path(folder), systems, sizes))
    comparison = compare(rounds)
    console.print(show(comparison))
    console.print(f"the disk alone, 4 KiB: {disk.p50_ms} ms", highlight=False)
    if changes := sum(done.leader_changes for done in rounds):
        console.print(f"measurements begun again because another node led: {changes}", style="bold yellow")
    if not options.quick:
        report = Report(
            version=__version__,
            etcd_version=etcd.version() if etcd.is_installed() else "",
            machine=machine,
            disk=disk,
            comparison=comparison,
            rounds=rounds,
        )
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cluster.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        drawn = plot.draw_comparison(comparison, RESULTS / "cluster.png")
        console.print(f"written: {RESULTS.name}/cluster.json{drawn}")
    return 0


def _systems(console: Console) -> list[System]:
    if etcd.is_installed():
        return [Engram(), etcd.Etcd()]
    console.print(
        "SKIP: etcd is not installed, so there is nothing to compare with "
        "(Debian: apt-get install --no-install-recommends etcd-server)",
        style="bold red",
    )
    return [Engram()]


async def _measure(folder: Path, systems: Sequence[System], sizes: Sizes) -> list[Round]:
    texts = Texts(SEED, sizes.seconds + sizes.warm_s)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rounds = []
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2) as progress:
        task = progress.add_task("", total=sizes.rounds * len(systems) * STEPS)
        for number in range(1, sizes.rounds + 1):
            for system in systems:
                progress.update(task, description=f"round {number} of {sizes.rounds}: {system.name}")
                async with system.running(folder / f"{system.name}-{number}") as nodes:
                    progress.advance(task)
                    steps = _Steps(system, nodes, sizes)
                    results = []
                    async for result in steps.measure(texts):
                        results += result
                        progress.advance(task)
                rounds.append(
                    Round(system=system.name, number=number, leader_changes=steps.leader_changes, results=results)
                )
    return rounds


class _Steps:
    """One round of one system, step by step."""

    def __init__(self, system: System, nodes: Nodes, sizes: Sizes) -> None:
        self.leader_changes = 0
        self._system = system
        self._nodes = nodes
        self._sizes = sizes

    async def measure(self, texts: Texts) -> AsyncIterator[list[Result]]:
        """Yield the lines of each step."""
        for case in CASES:
            requests = texts.requests(case, self._system)
            yield await self._led(partial(self._write, case, requests))
        yield await self._led(self._read)
        await asyncio.sleep(self._sizes.settle_s)
        yield await self._led(self._idle)

    async def _led(self, step: Callable[[int, Sequence[int]], Awaitable[list[Result]]]) -> list[Result]:
        """Take a step under one leader, from its beginning to its end."""
        results: list[Result] = []
        while not results:
            leader = await self._nodes.find_leader()
            try:
                results = await step(leader, [port for port in self._nodes.pids if port != leader])
            except* LeaderMovedError:
                self.leader_changes += 1
                if self.leader_changes > LEADER_CHANGES_MAX:
                    raise
        return results

    async def _write(
        self, case: Case, requests: Sequence[Sequence[bytes]], leader: int, _: Sequence[int]
    ) -> list[Result]:
        await write_for(leader, requests, self._sizes.warm_s)
        timing = await write_for(leader, requests, self._sizes.seconds)
        return [summarize("write", case.name, timing, items=case.messages)]

    async def _read(self, leader: int, followers: Sequence[int]) -> list[Result]:
        count = self._sizes.reads
        turns = Conversations(SEED).turns(6 * count + 2)
        async with Pair.connected(leader, followers[0], self._system, turns) as pair:
            missed = await pair.count_missed(count)
            results = [
                Result(
                    question="read on a follower",
                    case="local, misses the write before",
                    value=100 * missed / count,
                    unit="%",
                ),
                _latency("read on a follower", "local", await pair.time_local(count)),
                _latency("read on a follower", "of the last write, by its index", await pair.time_after_writes(count)),
                _latency("read on a follower", "linearizable", await pair.time_linearizable(count)),
            ]
        async with Pair.connected(leader, leader, self._system, turns) as pair:
            results.append(_latency("read on the leader", "local", await pair.time_local(count)))
            results.append(_latency("read on the leader", "linearizable", await pair.time_linearizable(count)))
        return results

    async def _idle(self, leader: int, followers: Sequence[int]) -> list[Result]:
        names = ["leader", *(f"follower {number}" for number in range(1, len(followers) + 1))]
        pids = [self._nodes.pids[port] for port in (leader, *followers)]
        idle = await measure_idle(pids, self._sizes.idle_s)
        return [
            *(
                Result(question="idle", case=name, value=round(percent, 2), unit="% of a core")
                for name, percent in zip(names, idle, strict=True)
            ),
            *(
                Result(question="memory", case=name, value=round(resident_mb(pid), 1), unit="MB resident")
                for name, pid in zip(names, pids, strict=True)
            ),
        ]


def _latency(question: str, case: str, timing: Timing) -> Result:
    return msgspec.structs.replace(summarize(question, case, timing), per_s=None)  # one after another: it says nothing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
