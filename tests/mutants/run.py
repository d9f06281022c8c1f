"""`make mutants`: break engram in one place at a time, and see that a test notices.

Every job has a copy of the project of its own, in a temporary folder; the project itself is never changed. The tests
that the mutants name are run unchanged first: what fails by itself notices nothing.
"""

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.mutants import of_consensus, of_history, of_nodes, of_projections, of_storage
from tests.mutants.mutant import Mutant, StaleMutantError, mutated

PROJECT = Path(__file__).parents[2]
MUTANTS: Sequence[Mutant] = (
    *of_consensus.MUTANTS,
    *of_storage.MUTANTS,
    *of_nodes.MUTANTS,
    *of_projections.MUTANTS,
    *of_history.MUTANTS,
)

TEST_S = 20
"""A single test gets no longer; a mutant often makes one wait for what never comes."""

LIMIT_S = 150
"""Nor does a whole run. Both count as noticed, and are marked."""

_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "data", "results")
_NOTICED = re.compile(r"^(?:FAILED|ERROR) (?P<test>\S+?)(?:\[.*)?(?: - (?P<reason>.*))?$", re.MULTILINE)
_PASSED, _FAILED = 0, 1


class Fate(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "killed (time)"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"
    """Its tests could not be run, so nothing is known."""


class Outcome(NamedTuple):
    """What a run of tests came to."""

    fate: Fate
    test: str
    """Which one noticed."""
    output: str
    seconds: float


class Copy:
    """A copy of the project to be broken."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / PROJECT.name
        shutil.copytree(PROJECT, self.place, ignore=_LEFT_OUT)
        beside = PROJECT.parent / "shared"  # what tests read that is not part of the project
        if beside.is_dir():
            (folder / beside.name).symlink_to(beside)

    def run(self, tests: Sequence[str], limit_s: float, *, keep_bytecode: bool = False) -> Outcome:
        """Run `tests` up to the first that fails."""
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short"]
        command += ["-p", "no:cacheprovider", "-p", "tests.mutants.profile"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.place),
            "PYTHONDONTWRITEBYTECODE": "" if keep_bytecode else "1",
            "HYPOTHESIS_PROFILE": "mutants",
            "COLUMNS": "400",
        }
        started_s = time.perf_counter()
        with subprocess.Popen(
            [*command, f"--timeout={TEST_S}", *tests],
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with what its tests have started
                output, _ = process.communicate()
                return Outcome(Fate.TIMED_OUT, "", output, time.perf_counter() - started_s)
        return _judged(process.returncode, output, time.perf_counter() - started_s)

    def break_it(self, mutant: Mutant, limit_s: float) -> Outcome:
        """Run the mutant's tests on the mutant."""
        module = self.place / mutant.module
        source, status = module.read_bytes(), module.stat()
        try:
            module.write_text(mutated(mutant, self.place))
            # Compiled code is told from its source by size and second.
            os.utime(module, (status.st_atime, status.st_mtime + 1000))
            return self.run(mutant.tests, limit_s)
        finally:
            module.write_bytes(source)
            os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns))


def _judged(code: int, output: str, seconds: float) -> Outcome:
    if code == _PASSED:
        return Outcome(Fate.SURVIVED, "", output, seconds)
    noticed = _NOTICED.search(output)
    if code != _FAILED or noticed is None:
        return Outcome(Fate.BROKEN, "", output, seconds)
    is_late = "from pytest-timeout" in (noticed["reason"] or "")
    return Outcome(Fate.TIMED_OUT if is_late else Fate.KILLED, noticed["test"], output, seconds)


def table(outcomes: Iterable[tuple[Mutant, Outcome]]) -> str:
    """Return which test killed which mutant, as a table in Markdown."""
    lines = ["| mutant | what would go wrong | in | noticed by |", "|---|---|---|---|"]
    for mutant, outcome in outcomes:
        place, _, test = outcome.test.partition("::")
        noticed = f"`{test}` in `{place}`" if test else ""
        if outcome.fate is not Fate.KILLED:
            noticed = f"{noticed} {outcome.fate.value}".strip()
        module = mutant.module.removeprefix("engram/")
        lines.append(f"| {mutant.name.replace('-', ' ')} | {mutant.harm} | `{module}` | {noticed} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run mutants and show what became of them; the exit code is 1 when one survived, 2 when nothing can be said."""
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="those whose names contain this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="for the tests of one mutant")
    parser.add_argument("--table", type=Path, help="where the table of which test killed which is written")
    options = parser.parse_args(arguments)
    chosen = [one for one in MUTANTS if not options.only or any(name in one.name for name in options.only)]
    console = Console(stderr=True)
    try:
        for mutant in chosen:
            mutated(mutant, PROJECT)
    except StaleMutantError as error:
        console.print(str(error), markup=False, highlight=False)
        return 2
    with tempfile.TemporaryDirectory(prefix="engram-mutants-") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(options.jobs):
            copies.put(Copy(Path(folder) / str(number)))
        with ThreadPoolExecutor(options.jobs) as threads:
            if not _all_pass(chosen, copies, threads, options.limit_s, console):
                return 2
            outcomes = _outcomes(chosen, copies, threads, options.limit_s, console)
    if options.table is not None:
        options.table.write_text(table(zip(chosen, outcomes, strict=True)))
    return _told(chosen, outcomes, console)


def _all_pass(
    mutants: Sequence[Mutant],
    copies: "queue.SimpleQueue[Copy]",
    threads: ThreadPoolExecutor,
    limit_s: float,
    console: Console,
) -> bool:
    """Run the tests of all mutants on what is not broken, and return whether they pass."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    works = [
        partial(_with_a_copy, copies, partial(Copy.run, tests=[test], limit_s=limit_s, keep_bytecode=True))
        for test in tests
    ]
    is_sound = True
    for test, outcome in zip(tests, _all(works, threads, console, "unbroken"), strict=True):
        if outcome.fate is not Fate.SURVIVED:
            is_sound = False
            console.print(f"{test} fails by itself:\n{outcome.output[-3000:]}", markup=False, highlight=False)
    return is_sound


def _outcomes(
    mutants: Sequence[Mutant],
    copies: "queue.SimpleQueue[Copy]",
    threads: ThreadPoolExecutor,
    limit_s: float,
    console: Console,
) -> list[Outcome]:
    works = [
        partial(_with_a_copy, copies, partial(Copy.break_it, mutant=mutant, limit_s=limit_s)) for mutant in mutants
    ]

    def told(number: int, outcome: Outcome) -> str:
        return f"{outcome.fate.value:13} {outcome.seconds:5.1f} s  {mutants[number].name}  {outcome.test}"

    return _all(works, threads, console, "mutants", told)


def _with_a_copy(copies: "queue.SimpleQueue[Copy]", work: Callable[[Copy], Outcome]) -> Outcome:
    copy = copies.get()
    try:
        return work(copy)
    finally:
        copies.put(copy)


def _all(
    works: Sequence[Callable[[], Outcome]],
    threads: ThreadPoolExecutor,
    console: Console,
    title: str,
    told: Callable[[int, Outcome], str] | None = None,
) -> list[Outcome]:
    """Do all works; what `told` makes of a work's number and outcome is shown when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=len(works))
        futures = {threads.submit(work): number for number, work in enumerate(works)}
        try:
            for future in as_completed(futures):
                progress.advance(task)
                if told is not None:
                    line = told(futures[future], future.result())
                    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        except BaseException:  # else those that wait would all be done first
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def _told(mutants: Sequence[Mutant], outcomes: Sequence[Outcome], console: Console) -> int:
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if outcome.fate in {Fate.SURVIVED, Fate.BROKEN}:
            console.print(f"{outcome.fate.value}: {mutant.name}: {mutant.harm} ({mutant.module})", markup=False)
            if outcome.fate is Fate.BROKEN:
                console.print(outcome.output[-3000:], markup=False, highlight=False)
    by_fate = {fate: sum(outcome.fate is fate for outcome in outcomes) for fate in Fate}
    console.print(", ".join(f"{number} {fate.value}" for fate, number in by_fate.items() if number), markup=False)
    if by_fate[Fate.BROKEN]:
        return 2
    return int(by_fate[Fate.SURVIVED] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
