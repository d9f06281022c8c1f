import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engram.projections.lance_rows import Erasure, Scope
from tests.projections.embedded import LOG_END, NEVER, Rows, files_with, found_ids, row, store_at
from tests.projections.lance_child import BATCH_ROWS, MARKER

PROJECT = Path(__file__).parents[2]
ROWS = 100


def start(folder: Path, die_at: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.projections.lance_child", str(folder), str(ROWS), str(die_at)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def run_until_it_dies(folder: Path, die_at: int) -> None:
    with start(folder, die_at) as child:
        child.communicate()
    assert child.returncode < 0, "it was not killed"


def kill_after(folder: Path, seconds: float) -> None:
    """Kill a feed that has begun to work, some time later, wherever it is."""
    with start(folder, 0) as child:
        assert child.stdout is not None
        child.stdout.readline()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            child.stdout.readline()
        child.kill()


async def feed_the_rest(folder: Path) -> list[str]:
    """Open the store again, give it what is missing, and return the ids of the messages it holds."""
    store = store_at(folder)
    await store.open(log_last_index=LOG_END)
    source = Rows([row(index, session_id=f"s{index % 3}") for index in range(1, ROWS + 1)])
    while rows := await source.embedded_after(store.cursor, BATCH_ROWS):
        await store.add(rows)
    found = await found_ids(store, Scope("default"))
    await store.stop()
    return found


THOROUGHLY = [pytest.param(die_at, marks=pytest.mark.thorough) for die_at in (2, 7)]


@pytest.mark.parametrize("die_at", [1, *THOROUGHLY])
async def test_a_feed_killed_between_two_writes_goes_on_without_a_gap_or_a_double(tmp_path: Path, die_at: int) -> None:
    await asyncio.to_thread(run_until_it_dies, tmp_path, die_at)

    found = await feed_the_rest(tmp_path)

    assert found == sorted(f"m{index}" for index in range(1, ROWS + 1))


@pytest.mark.thorough
async def test_a_feed_killed_anywhere_goes_on_without_a_gap_or_a_double(tmp_path: Path) -> None:
    chance = random.Random(4)
    for _ in range(4):
        await asyncio.to_thread(kill_after, tmp_path, chance.uniform(0, 0.3))

    found = await feed_the_rest(tmp_path)

    assert found == sorted(f"m{index}" for index in range(1, ROWS + 1))


async def test_what_a_killed_feed_left_behind_goes_with_the_next_erasure(tmp_path: Path) -> None:
    await asyncio.to_thread(kill_after, tmp_path, 0.1)
    orphan = tmp_path / "memories.lance" / "data" / "orphan.lance"
    orphan.write_text(f"written by a commit that never happened: {MARKER}")
    store = store_at(tmp_path)
    await store.open(log_last_index=LOG_END)

    await store.forget([Erasure("default", f"s{number}", None, NEVER) for number in range(3)])
    await store.stop()

    assert files_with(tmp_path, MARKER) == []
