"""Histories of a real cluster under faults, each checked for linearizability.

    python -m tests.linearizability.run --histories 50 --seed 7
    python -m tests.linearizability.run --nemesis kill-leader --histories 5
    python -m tests.linearizability.run --check FILE              judge a history that was kept

Clients write, write the same again, delete, and read from every node, while the nodes of a three-node cluster are
killed, stopped and cut off. What each asked and was answered, and when, is a history; one that cannot have come from a
single copy of the data breaks what engram promises, and is kept.
"""

import argparse
import asyncio
import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from tests.cluster.cluster_process import Cluster, Plan
from tests.linearizability.clients import Crowd, Habits
from tests.linearizability.exchange import LINEARIZABLE, LOCAL
from tests.linearizability.history import READS, History, Outcome, load, save
from tests.linearizability.judge import Judgement, judge
from tests.linearizability.nemesis import NEMESES, Stage
from tests.linearizability.wgl import Verdict

HISTORIES_PER_CLUSTER = 10
"""Starting three nodes takes as long as a history."""

PLAN = Plan(heartbeat_ms=30, election_ms=200, has_network=True)
CALM_S = (0.4, 0.8)
"""Before and after what is done to the nodes."""

KEPT = Path(tempfile.gettempdir()) / "engram-histories"
ODD_MAX = 3
"""How many odd answers of one history are told."""

TABLE_COLUMNS = 160
"""Where it does not go to a terminal, whose width is its own."""


class Run(NamedTuple):
    """One history and what became of it."""

    history: History
    judgement: Judgement
    problem: str
    """Why it ended early, or is not whole; empty when it is."""
    seconds: float
    judging_s: float

    @property
    def is_sound(self) -> bool:
        """Whether it is whole and linearizable, and every answer in it one that the API names."""
        judgement = self.judgement
        return not self.problem and judgement.verdict is Verdict.LINEARIZABLE and not judgement.odd

    def row(self) -> list[str]:
        """Return its line of the table; see COLUMNS."""
        operations, judgement = self.history.operations, self.judgement
        unknown = [op for op in operations if op.outcome is Outcome.UNKNOWN and not isinstance(op.request, READS)]
        reads = [op for op in operations if op.outcome is Outcome.ANSWERED and isinstance(op.request, READS)]
        failed = [op for op in operations if op.outcome is Outcome.FAILED]
        numbers = [*map(len, (operations, unknown, failed, reads, judgement.odd)), judgement.objects, judgement.largest]
        verdict = judgement.verdict.upper() if judgement.faults else self.problem or judgement.verdict
        seconds = [f"{self.seconds:.1f}", f"{self.judging_s:.2f}"]
        return [str(self.history.seed), self.history.nemesis, *map(str, numbers), verdict[:60], *seconds]


COLUMNS = (
    "seed", "nemesis", "ops", "unknown writes", "failed", "reads", "odd answers", "objects", "most ops on one", "verdict", "s", "judged in s",
)  # fmt: skip


async def record(cluster: Cluster, nemesis: str, seed: int, habits: Habits) -> tuple[History, str]:
    """Let clients ask while `nemesis` does its work; return the history, and why it is not whole, if it is not."""
    rng = random.Random(f"{seed} {nemesis}")
    stage = Stage(cluster, rng)
    crowd = Crowd(f"h{seed}", cluster.ports, rng, habits)
    problem = ""
    try:
        await crowd.prepare()
        async with crowd:
            await stage.wait(CALM_S)
            await NEMESES[nemesis](stage)
            await stage.wait(CALM_S)
        await crowd.read_all()
    except (AssertionError, OSError, ExceptionGroup) as error:
        problem = "; ".join(_told(error))
        await cluster.mend()
    return History(seed=seed, nemesis=nemesis, operations=crowd.operations, events=stage.events), problem


async def run_on_one_cluster(
    folder: Path, plan: Plan, orders: Sequence[tuple[int, str]], habits: Habits, tell: Callable[[Run], None]
) -> None:
    """Start a cluster in `folder`, and record and judge a history for each seed and nemesis.

    Raises:
        AssertionError: The nodes do not come up.
    """
    async with Cluster.running(folder, plan, random.Random(str(orders))) as cluster:
        for seed, nemesis in orders:
            started_s = perf_counter()
            history, problem = await record(cluster, nemesis, seed, habits)
            recorded_s = perf_counter()
            judgement = await asyncio.to_thread(judge, history.operations)
            tell(Run(history, judgement, problem, recorded_s - started_s, perf_counter() - recorded_s))


def _told(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [line for one in error.exceptions for line in _told(one)]
    return [f"{type(error).__name__}: {error}"]


def in_groups(orders: Sequence[tuple[int, str]]) -> Iterator[Sequence[tuple[int, str]]]:
    """Yield what one cluster after the other has to go through."""
    for start in range(0, len(orders), HISTORIES_PER_CLUSTER):
        yield orders[start : start + HISTORIES_PER_CLUSTER]


def main(arguments: Sequence[str]) -> int:
    """Record and judge histories and print a table; the exit code is 1 unless all of them are linearizable."""
    parser = argparse.ArgumentParser(prog="histories", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--histories", type=int, default=len(NEMESES))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the first history")
    parser.add_argument("--nemesis", action="append", choices=sorted(NEMESES), metavar="NAME", help=", ".join(NEMESES))
    parser.add_argument(
        "--out", type=Path, default=KEPT, help=f"where histories that are not sound go; default: {KEPT}"
    )
    parser.add_argument("--keep", action="store_true", help="keep the sound ones as well")
    parser.add_argument(
        "--stale", action="store_true", help="ask for local reads: a check of the check, which must fail"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="judge a kept history, and do nothing else")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else TABLE_COLUMNS)
    if options.check is not None:
        history = load(options.check)
        return _report(console, [Run(history, judge(history.operations), "", 0.0, 0.0)])
    names = itertools.cycle(options.nemesis or NEMESES)
    orders = list(zip(range(options.seed, options.seed + options.histories), names, strict=False))
    habits = Habits(level=LOCAL if options.stale else LINEARIZABLE)
    runs: list[Run] = []

    def tell(folder: Path, run: Run) -> None:
        runs.append(run)
        console.print(" ".join(run.row()), markup=False, highlight=False)
        path = options.out / f"{run.history.nemesis}-{run.history.seed}.jsonl"
        if options.keep or not run.is_sound:
            save(run.history, path)
            console.print(f"kept: {path}", markup=False)
        if not run.is_sound:
            for log in folder.glob("node-*/server.log"):
                shutil.copy(log, path.with_suffix(f".{log.parent.name}.log"))

    for group in in_groups(orders):
        with tempfile.TemporaryDirectory(prefix="engram-histories-") as name:
            folder = Path(name)
            uvloop.run(run_on_one_cluster(folder, PLAN, group, habits, partial(tell, folder)))
    return _report(console, runs)


def _report(console: Console, runs: Sequence[Run]) -> int:
    table = Table(*COLUMNS)
    for run in runs:
        table.add_row(*run.row())
    console.print(table)
    for run in runs:
        for fault in (*run.judgement.faults, *run.judgement.odd[:ODD_MAX], *filter(None, [run.problem])):
            console.print(f"seed {run.history.seed}, {run.history.nemesis}: {fault}", markup=False, highlight=False)
    linearizable = sum(run.judgement.verdict is Verdict.LINEARIZABLE for run in runs)
    odd = sum(len(run.judgement.odd) for run in runs)
    summary = f"{linearizable} of {len(runs)} histories are linearizable; {odd} answers that must not be given"
    console.print(summary, markup=False, highlight=False)
    return int(not all(run.is_sound for run in runs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
