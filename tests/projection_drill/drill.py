"""Lose, break and put back the projections of a node under load, and look whether anybody could notice.

    python -m tests.projection_drill.drill --rounds 30 --seed 7
    python -m tests.projection_drill.drill --only pause-redis --only kill-node --rounds 10

Eight clients write and read back while engram and Redis are killed, Redis is flushed, paused, exchanged and put back to
an older state, LanceDB's folder and the read models' file are deleted, put back and damaged. No request may fail while
engram runs, and every read must have what was acknowledged before it. At the end, and every ten rounds, `engram verify`
has to find nothing, every acknowledged write is there once, and every read is that of a fresh fold of the log.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.timing import describe_machine
from tests.projection_drill import report
from tests.projection_drill.clients import Asked, Habits
from tests.projection_drill.faults import FAULTS
from tests.projection_drill.report import Result, Round
from tests.projection_drill.scene import Scene
from tests.projection_drill.verdict import judge
from tests.redis_server import HAS_REDIS, RedisDiedError
from tests.server_process import ServerDiedError

CALM_S = (0.2, 0.8)
"""Writes before a fault, so that it comes at any moment of whatever the node does again and again."""
AFTER_S = (0.5, 1.5)
"""Writes after it, so that all clients have met with what it did."""
TOGETHER_SHARE = 0.35
"""Of the rounds: those in which a second fault comes, at any moment of the first."""
APART_S = (0.0, 1.5)
QUIET_SHARE = 0.35
"""Of the rounds: those in which clients write nothing from shortly before the fault, or from its moment, until it is over.
A store that lacks the last writes is not mended by the next ones then."""
QUIET_BEFORE_S = (0.0, 0.6)
JUDGE_EVERY = 10
TABLE_COLUMNS = 150
"""Where it does not go to a terminal, whose width is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How the drill is to be run."""

    seed: str
    rounds: int
    only: Sequence[str] = tuple(FAULTS)
    judge_every: int = JUDGE_EVERY
    habits: Habits = field(default_factory=Habits)
    keep: Path | None = None
    """Where the folder goes when something is wrong."""


class _Span(NamedTuple):
    """The time in which a fault could be felt."""

    faults: tuple[str, ...]
    from_s: float
    to_s: float


async def run_drill(order: Order, folder: Path, tick: Callable[[], None]) -> Result:
    """Run the drill in `folder`; `tick` is called after each round. Raises nothing that it finds."""
    result = Result(seed=order.seed)
    try:
        async with Scene.running(folder, order.seed, order.habits) as scene:
            try:
                await _play(order, scene, result, tick)
            finally:
                result.problems += [*scene.problems, *scene.clients.mistakes]
                result.notes, result.outcomes = scene.notes, dict(scene.clients.outcomes())
    except (AssertionError, OSError, ServerDiedError, RedisDiedError, ExceptionGroup) as error:
        result.problems += _told(error)
    if result.problems and order.keep is not None:
        await asyncio.to_thread(shutil.copytree, folder, order.keep, dirs_exist_ok=True)
    return result


async def _play(order: Order, scene: Scene, result: Result, tick: Callable[[], None]) -> None:
    deck = _deck(order, scene.rng)
    spans: list[_Span] = []
    for number in range(1, order.rounds + 1, order.judge_every):
        async with scene.clients.at_work():
            for later in range(min(order.judge_every, order.rounds + 1 - number)):
                result.rounds.append(await _round(scene, number + later, next(deck), spans))
                tick()
        result.compared += await judge(scene, f"{order.seed} {number}")
    result.by_fault = _by_fault(scene, spans)


def _deck(order: Order, rng: random.Random) -> Iterator[tuple[str, ...]]:
    """Yield the faults of each round: each comes as often as the others, now and then with one that may go with it."""
    while True:
        for name in rng.sample(order.only, len(order.only)):
            partners = [other for other in order.only if FAULTS[other].of_redis != FAULTS[name].of_redis]
            if partners and rng.random() < TOGETHER_SHARE:
                yield name, rng.choice(partners)
            else:
                yield (name,)


async def _round(scene: Scene, number: int, names: tuple[str, ...], spans: list[_Span]) -> Round:
    await scene.write_on(*CALM_S)
    acknowledged, mistakes, from_s = scene.clients.acknowledged, len(scene.clients.mistakes), perf_counter()
    is_quiet = scene.rng.random() < QUIET_SHARE
    with scene.clients.quiet() if is_quiet else nullcontext():
        if is_quiet:
            await scene.write_on(*QUIET_BEFORE_S)
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(FAULTS[name].play(scene))
                await scene.write_on(*APART_S)
        redis_serves_s = await scene.wait_redis_serves()
        await scene.write_on(*AFTER_S)
    await scene.wait_clients_went_on(acknowledged, from_s)
    spans.append(_Span(names, from_s, perf_counter()))
    asked = scene.clients.asked(from_s, spans[-1].to_s)
    return Round(
        number=number,
        faults=list(names),
        acknowledged=scene.clients.acknowledged - acknowledged,
        is_quiet=is_quiet,
        redis_serves_s=round(redis_serves_s, 2),
        reads=_latency(asked, "read"),
        writes=_latency(asked, "write"),
        deletes=_latency(asked, "delete"),
        mistakes=len(scene.clients.mistakes) - mistakes,
    )


def _by_fault(scene: Scene, spans: Sequence[_Span]) -> dict[str, dict[str, report.Latency]]:
    """Return the latencies of requests by the faults, alone or together, that they met with."""
    met: dict[str, list[Asked]] = {"none": []}
    for asked in scene.clients.asked(0.0, perf_counter()):
        ends_s = asked.at_s + asked.took_s
        span = next((span for span in spans if asked.at_s <= span.to_s and span.from_s <= ends_s), None)
        for name in span.faults if span else ("none",):
            met.setdefault(name, []).append(asked)
    return {
        name: {kind: _latency(asked, kind) for kind in ("read", "write", "delete")}
        for name, asked in sorted(met.items())
    }


def _latency(asked: Sequence[Asked], kind: str) -> report.Latency:
    return report.latency([one.took_s for one in asked if one.kind == kind])


def _told(error: BaseException) -> list[str]:
    """Return what went wrong, a line for each error of a group."""
    if isinstance(error, BaseExceptionGroup):
        return [line for one in error.exceptions for line in _told(one)]
    return [f"{type(error).__name__}: {error}"]


def main(arguments: Sequence[str]) -> int:
    """Run the drill, show what came of it, and keep it; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="drill-projections", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--judge-every", type=int, default=JUDGE_EVERY, help="rounds between two full comparisons")
    parser.add_argument("--out", type=Path, help="where drill_projections.json goes")
    parser.add_argument("--keep", type=Path, help="where the folders go when something is wrong")
    options = parser.parse_args(arguments)
    if not HAS_REDIS:
        parser.error("there is no redis-server here; on Debian or Ubuntu: apt install redis-server")
    order = Order(
        seed=options.seed,
        rounds=options.rounds,
        only=tuple(options.only or FAULTS),
        judge_every=options.judge_every,
        keep=options.keep,
    )
    machine = describe_machine()
    result = _run(order)
    console = Console(width=None if sys.stdout.isatty() else TABLE_COLUMNS)
    for table in report.tables(result):
        console.print(table)
    for line in report.notes(result):
        console.print(line, markup=False, highlight=False)
    verdict = f"nobody could notice: {result.compared} reads are those of a fresh fold" if result.is_sound else "BROKEN"
    console.print(verdict, markup=False)
    console.print(f"replay: make drill-projections ROUNDS={order.rounds} SEED={order.seed}", markup=False)
    if options.out is not None:
        report.write(options.out / "drill_projections.json", machine, result)
    return int(not result.is_sound)


def _run(order: Order) -> Result:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="engram-drill-") as folder,
    ):
        task = progress.add_task(f"seed {order.seed}", total=order.rounds)
        return uvloop.run(_until_told(run_drill(order, Path(folder), lambda: progress.advance(task))))


async def _until_told(running: Coroutine[None, None, Result]) -> Result:
    """Do it, or end it on SIGTERM: the servers must not outlive their drill."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await running


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
