"""Whole clusters on bad days, each of them a seed. See `weather` for what a day may bring, `referee` for what must hold.

A failure prints the command that repeats it. Seeds that found something stay in `kept_seeds.txt`.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engram.log.consensus import elections
from engram.log.consensus.raft import Raft
from engram.log.consensus.raftlog import RaftLog
from engram.log.consensus.types import Message, MessageType
from tests.simulation.run import Outcome, explained, run_seed

PROJECT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("kept_seeds.txt")

FRESH = 2000
FRESH_S = 170
"""All of them must have run by then. It takes some 40 s on two cores, without coverage."""
FRESH_WITH_PROJECTIONS = 100
PARTS = 5
PART_S = 5.0
"""A part of the fresh seeds with projections ends after this on a slow machine, however many it has run."""

BUG_SEEDS = range(1, 400)
"""Within these a bug must be found; most take fewer than ten."""


def kept(kind: str) -> list[int]:
    lines = [line.split() for line in KEPT.read_text().splitlines() if line and not line.startswith("#")]
    return [int(line[0]) for line in lines if line[1] == kind]


def check(outcome: Outcome) -> None:
    assert not outcome.failure, explained(outcome)


def fresh_seed() -> int:
    """Return the first of many seeds that nobody has run before."""
    return random.SystemRandom().randrange(2**40)


@pytest.mark.parametrize("seed", kept("core"))
def test_what_a_seed_once_found_stays_mended(seed: int) -> None:
    check(run_seed(seed))


@pytest.mark.parametrize("seed", kept("projections"))
def test_what_a_seed_with_projections_once_found_stays_mended(seed: int) -> None:
    check(run_seed(seed, projections=True))


@pytest.mark.thorough
@pytest.mark.timeout(FRESH_S + 10)
def test_clusters_keep_their_promises_on_bad_days(capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of their own: coverage, which CI measures in this one, makes them five times as slow."""
    options = ["--seed", str(fresh_seed()), "--count", str(FRESH), "--jobs", "2", "--seconds", str(FRESH_S - 10)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    run = subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", *options],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=FRESH_S,
        check=False,
    )

    with capsys.disabled():
        sys.stdout.write(f"\nsimulation {' '.join(options)}: {run.stdout}")  # so that the record of CI has the seeds
    assert run.returncode == 0, run.stdout
    assert f"{FRESH} seeds, 0 failed" in run.stdout, f"not all had run after {FRESH_S - 10} s: {run.stdout}"


@pytest.mark.thorough
@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", range(PARTS))
def test_all_nodes_remember_the_same_after_a_bad_day(part: int) -> None:
    first, started_s = fresh_seed(), time.perf_counter()
    for seed in range(first, first + FRESH_WITH_PROJECTIONS // PARTS):
        check(run_seed(seed, projections=True))
        if time.perf_counter() - started_s > PART_S:
            break


@pytest.mark.timeout(120)
@pytest.mark.parametrize("options", [[], ["--projections"]])
def test_a_seed_repeats_a_run_to_the_byte(options: list[str]) -> None:
    command = [sys.executable, "-m", "tests.simulation.run", "--seed", "11", "--digest", *options]

    runs = [
        subprocess.Popen(
            command, cwd=PROJECT, env={**os.environ, "PYTHONHASHSEED": salt}, stdout=subprocess.PIPE, text=True
        )
        for salt in ("1", "2")
    ]
    first, second = (run.communicate()[0] for run in runs)

    assert [run.returncode for run in runs] == [0, 0]
    assert first == second
    assert len(first) > 64


def found(seeds: range = BUG_SEEDS) -> Outcome:
    """Return the first failure, or the last success."""
    outcome = run_seed(seeds[0])
    for seed in seeds[1:]:
        if outcome.failure:
            break
        outcome = run_seed(seed)
    return outcome


def test_a_vote_for_a_log_that_lacks_entries_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda log, index, term: True)

    outcome = found()

    assert "lacks entry" in outcome.failure
    assert explained(outcome).endswith(f"{outcome.failure}\nREPRODUCE: make simulate SEED={outcome.seed}")


def test_an_acknowledgement_before_the_disk_has_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    careful = Raft.send

    def send(raft: Raft, message: Message) -> None:
        if message.type is MessageType.APPEND_RESPONSE and message.to != raft.id:
            raft.messages.append(message)
        else:
            careful(raft, message)

    monkeypatch.setattr(Raft, "send", send)

    assert "on disk" in found().failure


def test_a_commit_of_an_older_term_by_counting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def maybe_commit(log: RaftLog, index: int, term: int) -> bool:
        news = log.committed < index <= log.last_index
        log.commit_to(min(index, log.last_index))
        return news

    monkeypatch.setattr(RaftLog, "maybe_commit", maybe_commit)

    assert found().failure


def test_a_cluster_without_a_leader_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elections, "start", lambda raft: None)

    assert "nobody leads" in found().failure
