import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.log.appender import payload
from tests.log.logs import entry, opened, retained

PROJECT = Path(__file__).parents[2]


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.log.appender", str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)


def append_and_kill(path: Path, seed: int, lines: int) -> int:
    """Let a process append, kill it after it has spoken `lines` times, and return the last index it called durable."""
    with start(path, seed) as process:
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
        acknowledged = await asyncio.to_thread(append_and_kill, path, seed, rng.randrange(1, 120))

        async with opened(path, read_only=True) as log:
            assert await log.verify() == []
        async with opened(path) as log:
            assert log.last_index() >= acknowledged
            assert log.state.commit <= log.last_index()
            assert await retained(log) == [entry(i, data=payload(i)) for i in range(1, log.last_index() + 1)]


def append_until_full(path: Path, file_bytes_max: int) -> list[str]:
    with start(path, 1, file_bytes_max) as process:
        assert process.stdout is not None
        return process.stdout.read().splitlines()


async def test_a_full_disk_is_an_error_that_stays_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    told = await asyncio.to_thread(append_until_full, path, 300_000)
    acknowledged = [line for line in told if line.isdigit()]
    errors = [line for line in told if line.startswith("StorageError")]

    assert len(errors) == 2
    assert errors[0] == errors[1]
    assert told.index(errors[0]) == len(acknowledged)
    async with opened(path) as log:
        assert log.last_index() >= int(acknowledged[-1])
        assert await retained(log) == [entry(i, data=payload(i)) for i in range(1, log.last_index() + 1)]
