import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.log.appender import payload
from tests.log.logs import entry, opened, retained
from tests.log.replicas import collected, running

PROJECT = Path(__file__).parents[2]


def start(module: str, path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.log.{module}", str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)


def write_and_kill(module: str, path: Path, seed: int, lines: int) -> int:
    """Let a process write, kill it after it has spoken `lines` times, and return the last index it called durable."""
    with start(module, path, *([seed] if module == "appender" else [])) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        told = process.stdout.read().split("\n")[:-1]  # what it said before it died; the last line may be torn
    return int(told[-1]) if told else 0


@pytest.mark.parametrize("seed", range(3))
async def test_everything_called_durable_survives_a_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "raft.db"
    rng = random.Random(seed)
    for _ in range(3):
        acknowledged = await asyncio.to_thread(write_and_kill, "appender", path, seed, rng.randrange(1, 120))

        async with opened(path, read_only=True) as log:
            assert await log.verify() == []
        async with opened(path) as log:
            assert log.last_index() >= acknowledged
            assert log.state.commit <= log.last_index()
            assert await retained(log) == [entry(i, data=payload(i)) for i in range(1, log.last_index() + 1)]


def write_until_full(module: str, path: Path, *arguments: object) -> list[str]:
    with start(module, path, *arguments) as process:
        assert process.stdout is not None
        return process.stdout.read().splitlines()


async def test_a_full_disk_is_an_error_that_stays_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    told = await asyncio.to_thread(write_until_full, "appender", path, 1, 300_000)
    acknowledged = [line for line in told if line.isdigit()]
    errors = [line for line in told if line.startswith("StorageError")]

    assert len(errors) == 2
    assert errors[0] == errors[1]
    assert told.index(errors[0]) == len(acknowledged)
    async with opened(path) as log:
        assert log.last_index() >= int(acknowledged[-1])
        assert await retained(log) == [entry(i, data=payload(i)) for i in range(1, log.last_index() + 1)]


async def test_everything_committed_survives_a_kill_of_the_node_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    rng = random.Random(7)
    for restart in range(3):
        acknowledged = await asyncio.to_thread(write_and_kill, "proposer", path, 0, rng.randrange(1, 100))

        async with running(path) as replica:
            last = replica.commit_index
            entries = await collected(replica, after=0, up_to=last)
            assert last > acknowledged
            assert [entry.index for entry in entries] == list(range(1, last + 1))
            assert replica.status().term == 2 * (restart + 1)
            assert all(entry.data in {payload(entry.index) or b"-", b""} for entry in entries)
            assert sum(not entry.data for entry in entries) == replica.status().term  # each leader's first


async def test_a_full_disk_stops_the_node_and_every_way_of_using_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    told = await asyncio.to_thread(write_until_full, "proposer", path, 300_000)
    acknowledged = [line for line in told if line.isdigit()]
    errors = dict(line.split(": ", 1) for line in told if not line.isdigit())

    assert errors["run"].startswith("StorageError")
    assert errors["entries"] == errors["run"]
    assert errors["propose"].startswith("NotReadyError the node has to stop")  # nothing was written: ask another node
    assert errors["waiting"] in {errors["run"], errors["propose"]}
    assert errors["stop"] == "none"
    async with running(path) as replica:
        assert replica.commit_index > int(acknowledged[-1])
