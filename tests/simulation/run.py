"""Run the simulation: `python -m tests.simulation.run --seed 7`, or `--count 1000` for as many seeds from there on."""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.simulation.healing import heal
from tests.simulation.trace import Trace
from tests.simulation.world import World

CHUNK = 50
"""Seeds that a process takes at a time."""


STEPS = 60
"""Of the end of a failed run that are shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    seed: int
    events: int
    failure: str = ""
    """Empty when all went well."""
    projections: bool = False

    @property
    def command(self) -> str:
        """What repeats it."""
        return f"make simulate SEED={self.seed}" + (" PROJECTIONS=1" if self.projections else "")


def run_seed(seed: int, *, trace: Trace | None = None, projections: bool = False) -> Outcome:
    """Run one seed to its end, or to the first thing that is wrong."""
    world = World(seed, trace=trace, projections=projections)
    try:
        world.begin()
        world.run(world.weather.moves)
        heal(world)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed that led there must be named
        return Outcome(seed, world.events, f"{type(error).__name__}: {error}", projections)
    finally:
        world.model.close()
    return Outcome(seed, world.events, projections=projections)


def run_seeds(seeds: Iterable[int], *, projections: bool = False) -> list[Outcome]:
    """Run seeds one after the other."""
    return [run_seed(seed, projections=projections) for seed in seeds]


def explained(outcome: Outcome, *, steps_max: int = STEPS) -> str:
    """Return the last steps before a failure, which are found by running the seed again, and how to repeat it."""
    trace = Trace(kept=steps_max)
    again = run_seed(outcome.seed, trace=trace, projections=outcome.projections)
    steps = "\n".join(trace.lines)
    return f"{steps}\n{again.failure}\nREPRODUCE: {outcome.command}"


def main() -> int:
    """Run what the command line says; return 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that long, whatever is left")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--projections", action="store_true", help="with real events, folded on every node; slower")
    parser.add_argument("--steps", type=int, default=STEPS, help="how many steps before a failure are shown")
    parser.add_argument("--digest", action="store_true", help="print a digest of the whole trace of the first seed")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first failure")
    parser.add_argument("--quiet", action="store_true", help="print no traces")
    arguments = parser.parse_args()
    if arguments.digest:
        trace = Trace()
        outcome = run_seed(arguments.seed, trace=trace, projections=arguments.projections)
        sys.stdout.write(f"{trace.digest()} {outcome.events} events\n")
        return 1 if outcome.failure else 0
    return _run_many(arguments)


def _run_many(arguments: argparse.Namespace) -> int:
    started_s = time.perf_counter()
    seeds = events = failures = 0
    for outcome in _outcomes(arguments):
        seeds += 1
        events += outcome.events
        if outcome.failure:
            failures += 1
            told = f"seed {outcome.seed}: {outcome.failure}"
            sys.stdout.write(f"{told if arguments.quiet else explained(outcome, steps_max=arguments.steps)}\n")
            sys.stdout.flush()
        if time.perf_counter() - started_s >= arguments.seconds or (failures and arguments.until_failure):
            break
    took_s, cpu_s = time.perf_counter() - started_s, sum(os.times()[:4])
    sys.stdout.write(
        f"{seeds} seeds, {failures} failed, {events} events in {took_s:.1f} s,"
        f" {events / cpu_s:.0f} in each second of a processor\n"
    )
    return 1 if failures else 0


def _outcomes(arguments: argparse.Namespace) -> Iterator[Outcome]:
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    if arguments.jobs == 1:
        for seed in seeds:
            yield run_seed(seed, projections=arguments.projections)
        return
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    work = partial(run_seeds, projections=arguments.projections)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        try:
            for outcomes in pool.map(work, chunks):
                yield from outcomes
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
