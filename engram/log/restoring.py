"""A log's file made of rows that came from elsewhere: whole or not there at all.

The file is written under another name, closed, and only then named as the log. So after a crash there is no log, and
what was written so far is removed by the next attempt.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from engram.database import Connection, Database, rename_durably
from engram.errors import CorruptionError, StorageError
from engram.log import rows
from engram.log.consensus.types import ConfState, Entry
from engram.log.rows import State
from engram.log.sqlite import SETTINGS

UNFINISHED = ".restoring"
"""Ends the name of a file that is not a log yet."""


def unfinished_files(path: Path) -> list[Path]:
    """Return the names of what an attempt to make the log at `path` may have left."""
    return [path.with_name(f"{path.name}{UNFINISHED}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]


async def make_log(path: Path, entries: AsyncIterator[Sequence[Entry]], *, node_id: int) -> State:
    """Make a log at `path` that holds `entries`, at least one, all committed; return its state.

    It belongs to no cluster, node `node_id` is the only one that votes, and its disk is one that nobody knows. There
    must be nothing at `path`, and nothing of an earlier attempt. What `entries` raises leaves no log.

    Raises:
        CorruptionError: There are no entries.
        StorageError: The disk failed.
    """
    unfinished = unfinished_files(path)[0]
    state = State(store_id=str(uuid.uuid4()), node_id=node_id, base_members=ConfState(voters=(node_id,)))
    try:
        state = await _write(unfinished, state, entries)
        await rename_durably(unfinished, path)
    except BaseException:
        await asyncio.to_thread(discard_unfinished, path)
        raise
    return state


def discard_unfinished(path: Path) -> None:
    """Remove what an attempt to make the log at `path` has left."""
    for left in unfinished_files(path):
        left.unlink(missing_ok=True)


async def _write(unfinished: Path, state: State, entries: AsyncIterator[Sequence[Entry]]) -> State:
    database = await Database.open(unfinished, SETTINGS)
    try:
        await database.transact(partial(rows.create, state=state))
        async for batch in entries:
            await database.transact(partial(rows.insert, entries=batch))
            state = _ending_in(state, batch[-1])
        if state.last_index == 0:
            raise CorruptionError("there is no entry in it to make a log of")
        await database.transact(partial(rows.save_state, state=state))
        await database.run(partial(_check, state=state))
        if not await database.truncate_wal():
            raise StorageError(f"{unfinished}: its write-ahead log could not be emptied")
    finally:
        await database.close()
    return state


def _ending_in(state: State, last: Entry) -> State:
    """Return the state of a log that ends in `last`: all of it is history."""
    index, term = last.index, last.term
    return replace(state, term=term, commit=index, last_index=index, base_index=index, base_term=term)


def _check(connection: Connection, state: State) -> None:
    for problem in rows.problems(connection, state):
        raise StorageError(f"the log that was written cannot be read back: {problem}")
