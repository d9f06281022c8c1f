import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from engram.database import Connection, file_format
from engram.errors import ConfigError, CorruptionError
from engram.log import rows
from engram.log.consensus.types import ConfState, HardState
from engram.log.rows import State
from engram.log.sqlite import SqliteLog
from tests.log.logs import (
    committed,
    file_bytes,
    opened,
    retained,
    run,
    tamper,
    written,
    written_in_the_old_format,
)

OLD_STATE = State(
    store_id="old",
    node_id=1,
    term=3,
    vote=1,
    commit=8,
    last_index=9,
    base_index=6,
    base_term=1,
    base_members=ConfState(voters=(1,)),
    rebuild_due=True,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raft.db"


def format_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return file_format(connection).version


async def epochs(path: Path, openings: int) -> Sequence[int]:
    found: list[int] = []
    for _ in range(openings):
        async with opened(path) as log:
            found.append(log.state.boot_epoch)
    return found


async def test_each_opening_has_an_epoch_of_its_own(path: Path) -> None:
    assert await epochs(path, 3) == [1, 2, 3]


async def test_looking_at_a_log_is_no_epoch(path: Path) -> None:
    await epochs(path, 1)
    async with opened(path, read_only=True) as log:
        assert log.state.boot_epoch == 1

    assert await epochs(path, 1) == [2]


async def test_a_log_that_is_refused_has_no_new_epoch(path: Path) -> None:
    await written(path, run(1, 3))
    tamper(path, "UPDATE entries SET term = 0 WHERE idx = 2")
    with pytest.raises(CorruptionError):
        await SqliteLog.open(path)
    with pytest.raises(ConfigError):
        await SqliteLog.open(path, node_id=2)

    async with opened(path, read_only=True) as log:
        assert log.state.boot_epoch == 1


@pytest.mark.parametrize(
    ("members", "expected"),
    [(None, ConfState(voters=(7,))), (ConfState(), ConfState()), (ConfState(voters=(1, 7)), ConfState(voters=(1, 7)))],
)
async def test_a_new_log_is_its_own_cluster_unless_it_is_told_otherwise(
    path: Path, members: ConfState | None, expected: ConfState
) -> None:
    for again in (members, ConfState(voters=(9,))):  # what is on disk counts
        log = await SqliteLog.open(path, node_id=7, members=again)
        assert log.initial_state() == (HardState(), expected)
        assert log.state.cluster_id == ""
        await log.close()


async def test_a_log_of_the_old_format_is_brought_up_to_date_and_loses_nothing(path: Path) -> None:
    await asyncio.to_thread(written_in_the_old_format, path, run(2, 9), OLD_STATE)

    for epoch in (1, 2):
        async with opened(path) as log:
            state = log.state
            assert (state.store_id, state.cluster_id, state.boot_epoch, state.base_book) == ("old", "", epoch, {})
            assert log.initial_state() == (HardState(term=3, vote=1, commit=8), ConfState(voters=(1,)))
            assert (log.first_index(), log.last_index(), state.rebuild_due) == (7, 9, True)
            assert await retained(log) == run(2, 9)
    async with opened(path, read_only=True) as log:
        assert await log.verify() == []
    async with opened(path) as log:
        await log.append(committed(run(10, 12, term=3)))
        await log.stage(run(13, 14, term=3))


async def test_a_log_of_the_old_format_can_be_looked_at_as_it_is(path: Path) -> None:
    await asyncio.to_thread(written_in_the_old_format, path, run(1, 9), OLD_STATE)
    before = await asyncio.to_thread(file_bytes, path)

    async with opened(path, read_only=True) as log:
        assert log.state == OLD_STATE
        assert await log.verify() == []
        assert await retained(log) == run(1, 9)

    assert await asyncio.to_thread(file_bytes, path) == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE state SET term = 4", "state row fails its checksum"),
        ("DELETE FROM entries WHERE idx = 8", "log entry 8: is missing"),
    ],
)
async def test_damage_in_the_old_format_is_not_carried_over(path: Path, statement: str, message: str) -> None:
    await asyncio.to_thread(written_in_the_old_format, path, run(1, 9), OLD_STATE)
    tamper(path, statement)

    with pytest.raises(CorruptionError, match=message):
        await SqliteLog.open(path)

    assert await asyncio.to_thread(format_version, path) == 1
    async with opened(path, read_only=True) as log:
        assert [message in str(problem) for problem in await log.verify()] == [True]


async def test_a_crash_while_a_log_is_brought_up_to_date_is_harmless(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(written_in_the_old_format, path, run(1, 9), OLD_STATE)

    def crash(connection: Connection, wanted: object) -> None:
        raise RuntimeError("a crash")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "stamp", crash)  # the last step
        with pytest.raises(RuntimeError, match="a crash"):
            await SqliteLog.open(path)

    async with opened(path, read_only=True) as log:
        assert log.state == OLD_STATE
    async with opened(path) as log:
        assert await retained(log) == run(1, 9)
