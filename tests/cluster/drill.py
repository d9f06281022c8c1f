"""Hurt a cluster of real processes under load in every way that a cluster has to stand, and look what became of it.

    python -m tests.cluster.drill                             every drill, a few rounds each
    python -m tests.cluster.drill --only kill-leader --rounds 100
    python -m tests.cluster.drill --full                      as many rounds and entries as the promises name

Eight clients write, and two read back what was acknowledged, while nodes are killed, stopped, cut off, restarted, or
lose their disks. Afterwards every acknowledged message has to stand once, in order, on every node, and the digests of
all read models have to be equal.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.timing import describe_machine
from tests.cluster import faults, losses, report
from tests.cluster.checks import check_nodes, differing, digests
from tests.cluster.cluster_process import Cluster, Node, Plan
from tests.cluster.report import Outcome
from tests.cluster.scene import Scene
from tests.cluster.workload import Habits, Workload

EXAMPLES = 5
"""How many cases of one kind are told."""
COMPLAINTS_MAX = 20
GREETING = " serves http://"
"""The one line of a node that is for people."""
TABLE_COLUMNS = 150
"""Where it does not go to a terminal, whose width is its own."""
QUICK_SCALE = 0.2
"""Of what takes long, without --full."""

CALM = Habits(pause_s=0.05)
"""What a stop costs a write is asked, not what a machine without a free core does."""

SMALL_DISK_BYTES = 96 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One way to hurt a cluster."""

    play: Callable[[Scene], Awaitable[None]]
    rounds: int = 3
    rounds_full: int = 20
    plan: Plan = field(default_factory=Plan)
    habits: Habits = field(default_factory=Habits)


CUTTABLE = Plan(has_network=True)

DRILLS: Mapping[str, Drill] = {
    "kill-leader": Drill(play=faults.kill_leader, rounds=10, rounds_full=100),
    "stop-leader": Drill(play=faults.stop_leader, rounds=10, rounds_full=100),
    "partition-leader": Drill(play=faults.isolate_leader, plan=CUTTABLE),
    "partition-follower": Drill(play=faults.isolate_follower, plan=CUTTABLE),
    "one-way-out": Drill(play=faults.silence_leader, plan=CUTTABLE),
    "one-way-in": Drill(play=faults.deafen_leader, plan=CUTTABLE),
    "rolling-restart": Drill(play=faults.restart_one_by_one, rounds=2, rounds_full=10, habits=CALM),
    "all-killed": Drill(play=faults.kill_all, rounds_full=10),
    "full-disk": Drill(play=losses.fill_disk, rounds_full=5, plan=Plan(disk_bytes=SMALL_DISK_BYTES)),
    "wiped-disk": Drill(play=losses.wipe_disk, rounds=2, rounds_full=5),
    "long-absence": Drill(
        play=losses.stay_away,
        rounds=1,
        rounds_full=1,
        habits=Habits(writers=16, pause_s=0, batch_share=0, text_bytes=600),
    ),
    "membership": Drill(play=losses.exchange_members, rounds=4, rounds_full=10),
    "anything": Drill(play=faults.do_anything, rounds=5, rounds_full=50, plan=CUTTABLE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How drills are to be run."""

    seed: int
    rounds: int | None = None
    """None: as many as each drill wants."""
    heartbeat_ms: int = 15
    election_ms: int = 100
    full: bool = False
    keep: Path | None = None
    """Where the nodes' logs go when something is wrong."""


def rounds_of(name: str, order: Order) -> int:
    """Return how many rounds a drill goes through."""
    return order.rounds or (DRILLS[name].rounds_full if order.full else DRILLS[name].rounds)


async def run_drill(name: str, order: Order, folder: Path, tick: Callable[[], None]) -> Outcome:
    """Run one drill on a fresh cluster in `folder`; `tick` is called after each round. Raises nothing that it finds."""
    drill = DRILLS[name]
    rng = random.Random(f"{order.seed} {name}")
    plan = replace(drill.plan, heartbeat_ms=order.heartbeat_ms, election_ms=order.election_ms)
    outcome = Outcome(
        drill=name, heartbeat_ms=plan.heartbeat_ms, election_ms=plan.election_ms, seed=order.seed, nodes=plan.size
    )
    if plan.disk_bytes is not None and os.geteuid() != 0:
        outcome.skipped = "mounting small disks takes root"
        return outcome
    try:
        async with Cluster.running(folder, plan, rng) as cluster:
            try:
                workload = await _play(drill, order, cluster, rng, outcome, tick)
                await _check(cluster, workload, outcome)
                await _compare(cluster, outcome, folder / "scratch", await cluster.wait_settled(sorted(cluster.ports)))
            finally:
                outcome.complaints = _complaints(cluster.nodes.values())
                if outcome.problems and order.keep is not None:
                    await asyncio.to_thread(_keep_logs, cluster.nodes.values(), order.keep / name)
    except (AssertionError, OSError, ExceptionGroup) as error:
        outcome.problems += _told(error)
    return outcome


async def _play(
    drill: Drill, order: Order, cluster: Cluster, rng: random.Random, outcome: Outcome, tick: Callable[[], None]
) -> Workload:
    """Go through the rounds and let the clients finish."""
    workload = Workload(cluster.ports, rng, drill.habits)
    scene = Scene(cluster, workload, rng, scale=1.0 if order.full else QUICK_SCALE)
    try:
        async with workload:
            try:
                for _ in range(rounds_of(outcome.drill, order)):
                    await drill.play(scene)
                    tick()
            except (AssertionError, OSError) as error:
                outcome.problems += _told(error)
            await cluster.mend()
    except (AssertionError, OSError, ExceptionGroup) as error:
        outcome.problems += _told(error)
        await cluster.mend()
    outcome.rounds, outcome.notes = scene.rounds, scene.notes
    outcome.acknowledged = workload.messages
    outcome.outcomes = dict(workload.outcomes())
    outcome.reads = sum(reader.answered.total() for reader in workload.readers)
    stale = [case for reader in workload.readers for case in reader.stale]
    outcome.stale_reads = len(stale)
    outcome.problems += [f"stale read: {case}" for case in stale[:EXAMPLES]]
    outcome.problems += workload.failures()[:EXAMPLES]
    return workload


async def _check(cluster: Cluster, workload: Workload, outcome: Outcome) -> None:
    """Look for what was promised on every node, also when they do not come to rest: then it matters most."""
    try:
        await cluster.wait_settled(sorted(cluster.ports))
    except AssertionError as error:
        outcome.problems += _told(error)
    findings, unread = await check_nodes(cluster.ports, workload)
    for kind, cases in findings._asdict().items():
        setattr(outcome, kind, len(cases))
        outcome.problems += [f"{kind}: {case}" for case in cases[:EXAMPLES]]
    outcome.problems += unread


async def _compare(cluster: Cluster, outcome: Outcome, scratch: Path, index: int) -> None:
    """Stop all nodes and compare what they have folded."""
    codes = await cluster.stop_all()
    outcome.problems += [f"node {node_id} ended with exit code {code}" for node_id, code in codes.items() if code]
    folders = {node_id: cluster.nodes[node_id].data for node_id in cluster.ports}
    differences = differing(await digests(folders, scratch, index=index))
    outcome.digests_equal = not differences
    outcome.problems += differences[: 4 * EXAMPLES]


def _complaints(nodes: Iterable[Node]) -> dict[str, int]:
    """Return which errors stand in the nodes' logs and how often; a line that is no log line is one, too."""
    complaints: Counter[str] = Counter()
    for node in nodes:
        for line in node.log.splitlines():
            try:
                record = msgspec.json.decode(line)
                level, message = record["level"], record["message"]
            except (msgspec.DecodeError, KeyError, TypeError):
                level, message = "info" if GREETING in line else "error", line
            if level in {"error", "critical"}:
                complaints[message[:200]] += 1
    return dict(complaints.most_common(COMPLAINTS_MAX))


def _keep_logs(nodes: Iterable[Node], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        (folder / f"node-{node.node_id}.log").write_text(node.log)


def _told(error: BaseException) -> list[str]:
    """Return what went wrong, a line for each error of a group."""
    if isinstance(error, BaseExceptionGroup):
        return [line for one in error.exceptions for line in _told(one)]
    return [f"{type(error).__name__}: {error}"]


def main(arguments: Sequence[str]) -> int:
    """Run drills, show what came of them, and keep it; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="drill", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(DRILLS), metavar="NAME", help=", ".join(DRILLS))
    parser.add_argument("--rounds", type=int, help="default: a few; as many as each drill needs with --full")
    parser.add_argument("--full", action="store_true", help="100 kills, 100 000 entries: an hour or two")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--heartbeat-ms", type=int, default=15)
    parser.add_argument("--election-ms", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the nodes' data goes; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="where drill.json, drill.png and logs of broken drills go")
    options = parser.parse_args(arguments)
    order = Order(
        seed=options.seed,
        rounds=options.rounds,
        heartbeat_ms=options.heartbeat_ms,
        election_ms=options.election_ms,
        full=options.full,
        keep=options.out / "broken" if options.out else None,
    )
    machine = describe_machine()
    outcomes = _run(options.only or list(DRILLS), order, options.folder)
    console = Console(width=None if sys.stdout.isatty() else TABLE_COLUMNS)
    console.print(report.table(outcomes))
    for outcome in outcomes:
        for line in report.notes(outcome):
            console.print(line, markup=False, highlight=False)
    console.print(f"replay: make drill ARGS='--seed {order.seed} ...'", markup=False)
    if options.out is not None:
        merged = report.merge(options.out / "drill.json", outcomes)
        report.write(options.out / "drill.json", machine, merged)
        console.print(f"written: {options.out / 'drill.json'}{report.draw(options.out / 'drill.png', merged)}")
    return int(not all(outcome.is_sound for outcome in outcomes))


def _run(names: Sequence[str], order: Order, place: Path | None) -> list[Outcome]:
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        for name in names:
            task = progress.add_task(name, total=rounds_of(name, order))
            with tempfile.TemporaryDirectory(prefix="engram-drill-", dir=place) as folder:
                outcome = uvloop.run(_until_told(run_drill(name, order, Path(folder), partial(progress.advance, task))))
            progress.remove_task(task)
            verdict = outcome.skipped or ("ok" if outcome.is_sound else f"BROKEN: {outcome.problems[0][:300]}")
            progress.console.print(f"{name}: {verdict}", markup=False, highlight=False)
            outcomes.append(outcome)
    return outcomes


async def _until_told(running: Coroutine[None, None, Outcome]) -> Outcome:
    """Do it, or end it on SIGTERM: the nodes must not outlive their drill."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await running


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
