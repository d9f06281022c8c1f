"""A write that fails at any of its statements has happened wholly or not at all, as the next run finds it."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engram.errors import StorageError
from engram.events import Event
from engram.log.changes import Append
from engram.log.consensus.types import ConfState, HardState
from engram.log.members import Member
from engram.log.sqlite import SqliteLog
from engram.projections.sqlite_store import PrimaryStore
from tests.log.logs import opened, retained, run, snapshot_at
from tests.projections.histories import apply, deleted, embedded, entries_of, open_store, pinned, said

STATEMENTS_MAX = 200


class Fuse:
    """How many statements succeed until the disk fails; None: it does not."""

    statements: int | None = None


class FailingConnection(sqlite3.Connection):
    """A connection to a disk that fails at a statement."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Run a statement, or fail."""
        self._burn(arguments[0])
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """Run a statement for many rows, or fail."""
        self._burn(arguments[0])
        return super().executemany(*arguments)

    def _burn(self, statement: str) -> None:
        if Fuse.statements is None or statement == "ROLLBACK":
            return
        if Fuse.statements == 0:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error
        Fuse.statements -= 1


@pytest.fixture(autouse=True)
def _failing_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fuse, "statements", None)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FailingConnection))


async def fails_at(statement: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Do `work` on a disk that fails at that statement, and return whether it needed so many."""
    Fuse.statements = statement
    try:
        await work()
    except StorageError:
        return True
    finally:
        Fuse.statements = None
    return False


# The log.

BOOK = {1: Member(address="10.0.0.1:9001", store_id="disk-1")}

LogWork = Callable[[SqliteLog], Awaitable[object]]
LOG_WORKS: dict[str, LogWork] = {
    "append": lambda log: log.append(
        [Append(entries=run(7, 9), hard_state=HardState(term=2, vote=2, commit=6)), Append(entries=run(9, 12, term=2))]
    ),
    "append in place of others": lambda log: log.append(
        [Append(entries=run(5, 6, term=2), hard_state=HardState(term=2, vote=3, commit=4))]
    ),
    "move the base": lambda log: log.move_base(4, ConfState(voters=(1, 2)), BOOK),
    "join": lambda log: log.adopt_cluster("7c9e6679"),
    "stage": lambda log: log.stage(run(10, 11, term=2)),
    "install": lambda log: log.install(snapshot_at(8, 2), HardState(term=2, vote=0, commit=8)),
    "install all that is staged": lambda log: log.install(snapshot_at(9, 2), HardState(term=2, vote=0, commit=9)),
    "erase": lambda log: log.rewrite({2: b"", 3: b"shorter", 4: b"longer" * 1000}),
}


async def prepared(path: Path) -> None:
    """Make a log of six entries, four of them committed, with more that are staged."""
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 6), hard_state=HardState(term=1, vote=1, commit=4))])
        await log.stage(run(5, 9, term=2))


async def content(path: Path) -> tuple[object, ...]:
    """Return what a run that begins now finds."""
    async with opened(path) as log:
        state = replace(log.state, boot_epoch=0)
        return state, await retained(log), log.staged_index, log.snapshot(), log.first_index()


@pytest.mark.parametrize("name", LOG_WORKS)
async def test_a_write_of_the_log_is_whole_or_has_not_been(tmp_path: Path, name: str) -> None:
    await prepared(tmp_path / "old.db")
    await prepared(tmp_path / "new.db")
    async with opened(tmp_path / "new.db") as log:
        await LOG_WORKS[name](log)
    old, new = await content(tmp_path / "old.db"), await content(tmp_path / "new.db")
    outcomes: list[bool] = []
    for statement in range(STATEMENTS_MAX):
        path = tmp_path / f"{statement}.db"
        await prepared(path)
        async with opened(path) as log:
            has_failed = await fails_at(statement, partial(LOG_WORKS[name], log))
        found = await content(path)
        assert found in (old, new)
        outcomes.append(found == new)
        if not has_failed:
            break

    assert (outcomes[0], outcomes[-1]) == (False, True)
    assert sorted(outcomes) == outcomes


# The primary store.

FIRST = [said("m1", "one"), said("m2", "two"), pinned("f1", "a fact"), embedded("m1", 1)]
SECOND: list[Event | Sequence[Event]] = [
    [said("m3", "three"), said("m4", "four")],
    deleted("m1"),
    [said("m5", "five"), embedded("m5")],
    pinned("f2", "another"),
    said("m1", "again"),
]


async def seen(store: PrimaryStore) -> tuple[object, ...]:
    erasures = await store.erasures(limit=100, log_is_clean=False)
    return await store.digest(), store.applied_index, store.last_at_ms, erasures


async def test_a_batch_of_the_store_is_whole_or_has_not_been(tmp_path: Path) -> None:
    entries = entries_of([*FIRST, *SECOND])
    old, new = entries[: len(FIRST)], entries[len(FIRST) :]
    states: list[tuple[object, ...]] = []
    outcomes: list[bool] = []
    for statement in range(STATEMENTS_MAX):
        folder = tmp_path / str(statement)
        folder.mkdir()
        store = await open_store(folder)
        await apply(store, old)
        before = await seen(store)
        has_failed = await fails_at(statement, partial(store.apply, new))
        await abandoned(store)
        store = await open_store(folder)
        states.append(await seen(store))
        outcomes.append(states[-1] != before)
        if states[-1] == before:  # and it can be done again
            await store.apply(new)
            states[-1] = await seen(store)
        await store.close()
        if not has_failed:
            break

    assert len(outcomes) > 10
    assert sorted(outcomes) == outcomes
    assert outcomes[-1]
    assert all(state == states[-1] for state in states)


async def abandoned(store: PrimaryStore) -> None:
    """Close a store whose disk may have failed."""
    try:
        await store.close()
    except StorageError:
        return
