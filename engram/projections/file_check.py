"""Is the file of the read models sound in itself? SQLite's indexes against its tables, and text of messages that are gone.

On a running node that is done a table at a time, on a connection of its own. A table is read in one state, and while
that lasts the file cannot be cleaned of what was deleted; so whoever deletes comes first, and the table is read again.
"""

from asyncio import Lock
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from engram.clock import Clock
from engram.database import Connection, Database, Setting, broken_indexes
from engram.errors import CorruptionError
from engram.projections.comparison import Difference
from engram.projections.comparison import Store as Asked
from engram.projections.slots import log_index_of
from engram.projections.sqlite_slices import Forgotten, forgotten_part

OPERATIONS: Final = 10_000
"""SQLite's own steps, a millisecond or so, after which it is looked whether somebody waits."""

CONTENTS: Final = 2_000
"""Texts looked at in one go, some milliseconds of the thread that answers readers."""

TRIES: Final = 20
"""How often a table is begun: deletions without a pause could make it endless."""

GIVING_WAY_S: Final = 0.2

_SETTINGS: Final = (Setting("query_only", 1), Setting("cache_size", -2_000), Setting("temp_store", 2))


class Store(Asked, Protocol):
    """The part of a primary store that is in use."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def opening(self) -> Lock:
        """Held by whoever has the file open."""

    @property
    def is_scrubbing(self) -> bool:
        """Whether somebody waits for the file to be cleaned of what was deleted, which a long read holds up."""


class Unchecked(NamedTuple):
    """A table that could not be read in one go."""

    table: str

    def __str__(self) -> str:
        return f"SQLite's indexes of the table {self.table} are not compared with it: what was deleted since went first"


Step = Difference | Unchecked | int
"""What is wrong, what was not looked at, or how many more tables were."""


async def check_file(stored: Asked) -> list[Difference]:
    """Return what is wrong with the file of a store that nobody writes to."""
    complaints = await stored.ask(broken_indexes)
    found = [_indexes(complaints[0])] if complaints else []
    return found + [each async for each in _forgotten(stored)]


def table_names(connection: Connection) -> list[str]:
    """Return the names of all tables."""
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]


async def check_running(store: Store, clock: Clock, sleep: Callable[[float], Awaitable[None]]) -> AsyncIterator[Step]:
    """Yield what is wrong with the file of a store that is in use, table by table, resting as long as it reads.

    Raises:
        CorruptionError: The file cannot be read at all.
    """
    async for each in _forgotten(store):
        yield each
    for table in await store.ask(table_names):
        started_s = clock.monotonic_s()
        complaints = await _complaints(store, table, sleep)
        if complaints is None:
            yield Unchecked(table)
        elif complaints:
            yield _indexes(complaints[0])
        yield 1
        await sleep(clock.monotonic_s() - started_s)


async def _complaints(store: Store, table: str, sleep: Callable[[float], Awaitable[None]]) -> list[str] | None:
    """Return what SQLite has to say of a table; None when somebody else always came first."""
    for _ in range(TRIES):
        async with store.opening:
            try:
                complaints = await _asked_alone(store, table)
            except CorruptionError as error:
                return [str(error)]
        if complaints is not None:
            return complaints
        await sleep(GIVING_WAY_S)
    return None


async def _asked_alone(store: Store, table: str) -> list[str] | None:
    reader = await Database.open(store.path, _SETTINGS, read_only=True)
    try:
        return await reader.run(partial(complaints_unless, table=table, is_in_the_way=lambda: store.is_scrubbing))
    finally:
        await reader.close()


def complaints_unless(connection: Connection, table: str, is_in_the_way: Callable[[], bool]) -> list[str] | None:
    """Return what SQLite has to say of a table and its indexes; None, soon, when `is_in_the_way` says so."""
    gave_way = False

    def look() -> bool:
        nonlocal gave_way
        gave_way = is_in_the_way()
        return gave_way

    connection.set_progress_handler(look, OPERATIONS)
    try:
        complaints = broken_indexes(connection, table)
    finally:
        connection.set_progress_handler(None, 0)
    return None if gave_way else complaints


async def _forgotten(stored: Asked) -> AsyncIterator[Difference]:
    """Yield the first text of a message that is gone."""
    part = Forgotten(None, -1)
    while part.after is not None:
        part = await stored.ask(partial(forgotten_part, after=part.after, limit=CONTENTS))
        if part.slot is not None:
            what = "a deleted message still has its content"
            yield Difference("primary", "contents", None, "", log_index_of(part.slot), what)
            return


def _indexes(complaint: str) -> Difference:
    return Difference("primary", "indexes", None, "", 0, complaint)
