# ruff: noqa: T201
"""Many trials: `python -m tests.disk.run --trials 100000 --seed 1`. Without `--trials`, one, with all that happened."""

import argparse
import sys
import time

from tests.disk.trial import Trial, explained


def failing(seed: int) -> str:
    """Run `seed`; return what went wrong, or nothing."""
    try:
        Trial(seed).run()
    except Exception as error:  # noqa: BLE001  whatever it is, the seed is named
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> int:
    """Run what the command line says; return 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--trials", type=int, default=0, help="how many seeds")
    parser.add_argument("--failures-max", type=int, default=10, help="stop after so many")
    arguments = parser.parse_args()
    if not arguments.trials:
        trial = Trial(arguments.seed)
        try:
            trial.run()
        finally:
            print(*trial.trace, sep="\n")
        return 0
    return _run_many(arguments)


def _run_many(arguments: argparse.Namespace) -> int:
    started_s, failures, seed = time.process_time(), 0, arguments.seed
    for seed in range(arguments.seed, arguments.seed + arguments.trials):
        failure = failing(seed)
        if failure:
            failures += 1
            print(f"seed {seed}: {failure}", flush=True)
            if failures >= arguments.failures_max:
                break
    trials, cpu_s = seed + 1 - arguments.seed, time.process_time() - started_s
    print(f"{trials} trials, {failures} failed, {trials / cpu_s:.0f} a second of CPU")
    if failures:
        print(explained(seed))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
