"""Going on with another file in the place of the read models' own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engram.database import Database
from engram.errors import CorruptionError
from engram.projections.replacing import put_in_place
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import apply, entries_of, open_store, said
from tests.projections.replacing_child import IN_THE_MIDDLE, MESSAGES, STEPS
from tests.server_process import PROJECT

ENTRIES = entries_of([said(f"m{number}") for number in range(20)])

KILLS = [
    die_at if die_at in {IN_THE_MIDDLE, 4, 6} else pytest.param(die_at, marks=pytest.mark.thorough)
    for die_at in range(STEPS + 2)
]
"""Always: in the middle of a file, if one is written; when the old write-ahead log is gone; and when the new file has the
name already but that is not durable."""


async def nothing() -> None:
    pass


def copy_of(folder: Path) -> Path:
    """Copy the files of an open store as a kill would leave them."""
    killed = folder / "killed"
    killed.mkdir()
    for path in folder.glob("projections.db*"):
        shutil.copy(path, killed)
    return killed


@asynccontextmanager
async def stores(folder: Path) -> AsyncIterator[tuple[PrimaryStore, PrimaryStore]]:
    """Open one that has applied all entries, and one that is to take its place."""
    (folder / "beside").mkdir()
    store, fresh = await open_store(folder), await open_store(folder / "beside")
    await apply(store, ENTRIES)
    try:
        yield store, fresh
    finally:
        await fresh.close()
        await store.close()


async def test_what_is_written_afterwards_is_in_the_new_file_and_survives_a_kill(tmp_path: Path) -> None:
    later = entries_of([said(f"m{number}") for number in range(21)])[20:]
    async with stores(tmp_path) as (store, fresh):
        assert await store.replace(fresh, lambda: apply(fresh, ENTRIES))
        await store.apply(later)
        killed = copy_of(tmp_path)
        digest = await store.digest()

    survivor = await open_store(killed)
    assert survivor.applied_index == 21
    assert await survivor.digest() == digest
    await survivor.close()


async def test_readers_are_answered_all_the_time(tmp_path: Path) -> None:
    counts: list[int] = []
    async with stores(tmp_path) as (store, fresh), asyncio.TaskGroup() as tasks:

        async def read() -> None:
            while True:
                counts.append((await store.counts()).messages)

        readers = [tasks.create_task(read()) for _ in range(4)]
        for _ in range(3):
            await store.counts()
        assert await store.replace(fresh, lambda: apply(fresh, ENTRIES))
        for _ in range(3):
            await store.counts()
        for reader in readers:
            reader.cancel()

    assert set(counts) == {20}


async def test_writes_wait_for_the_new_file(tmp_path: Path) -> None:
    later = entries_of([said(f"m{number}") for number in range(21)])[20:]
    async with stores(tmp_path) as (store, fresh), asyncio.TaskGroup() as tasks:

        async def fold_rest() -> None:
            tasks.create_task(store.apply(later))
            await apply(fresh, ENTRIES)

        assert await store.replace(fresh, fold_rest)

    async with stores_reopened(tmp_path) as reopened:
        assert reopened.applied_index == 21


@asynccontextmanager
async def stores_reopened(folder: Path) -> AsyncIterator[PrimaryStore]:
    store = await open_store(folder)
    yield store
    await store.close()


async def test_a_reader_in_the_way_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.projections.sqlite_store.BUSY_TIMEOUT_S", 0.05)
    async with stores(tmp_path) as (store, fresh):
        reader = await Database.open(tmp_path / "projections.db", (), read_only=True)
        await reader.run(lambda connection: connection.executescript("BEGIN; SELECT count(*) FROM state"))
        await store.apply(entries_of([said(f"m{number}") for number in range(21)])[20:])
        was = (tmp_path / "projections.db").stat().st_ino

        assert not await store.replace(fresh, nothing)

        await reader.close()
        assert (tmp_path / "projections.db").stat().st_ino == was
        assert store.applied_index == 21
        assert (await store.counts()).messages == 21
        assert not store.is_lost


async def test_a_file_that_is_behind_is_not_taken(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, fresh):
        with pytest.raises(CorruptionError, match="at entry 0, not at 20"):
            await store.replace(fresh, nothing)

        assert (await store.counts()).messages == 20
        assert not store.is_lost


async def test_who_is_cancelled_meanwhile_leaves_a_store_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def put(fresh: Path, path: Path) -> None:
        begun.set()
        await put_in_place(fresh, path)

    monkeypatch.setattr("engram.projections.sqlite_store.put_in_place", put)
    async with stores(tmp_path) as (store, fresh):
        replacing = asyncio.get_running_loop().create_task(store.replace(fresh, lambda: apply(fresh, ENTRIES)))
        await begun.wait()
        replacing.cancel()
        await asyncio.wait([replacing])

        await store.apply(entries_of([said(f"m{number}") for number in range(21)])[20:])
        assert (await store.counts()).messages == 21


@pytest.mark.parametrize("die_at", KILLS)
def test_a_process_killed_at_any_step_leaves_one_file_or_the_other_whole(tmp_path: Path, die_at: int) -> None:
    command = [sys.executable, "-m", "tests.projections.replacing_child", str(tmp_path), str(die_at)]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    child = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, check=False)
    assert child.returncode in {-signal.SIGKILL, -signal.SIGXFSZ}, child.stderr.decode()

    async def left() -> tuple[int, dict[str, str]]:
        async with stores_reopened(tmp_path) as store:
            return store.applied_index, await store.digest()

    async def folded() -> dict[str, str]:
        (tmp_path / "folded").mkdir()
        async with stores_reopened(tmp_path / "folded") as store:
            await apply(store, entries_of([said(f"m{number}") for number in range(MESSAGES)]))
            return await store.digest()

    assert asyncio.run(left()) == (MESSAGES, asyncio.run(folded()))
