"""The one door to SQLite: a file, opened with checked settings, driven in a thread of its own through aiosqlite."""

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import aiosqlite

from engram import disk
from engram.errors import CorruptionError, FatalError, StorageError

Connection = sqlite3.Connection
"""What a function given to `Database.run` works on; named here so that its author needs no driver."""

Result = TypeVar("Result")

_CORRUPTION_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LOCKED_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_STORAGE_CODES = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
ROWS_PER_STEP = (128, 64, 32, 16, 8, 4, 2, 1)
"""Sizes of multi-row statements: few, since each is one to prepare, and all within SQLite's 32,766 parameters."""

STATEMENTS_MAX = 256
"""Prepared statements kept for each connection: every size of every one that comes in sizes."""

_ROW = re.compile(r"VALUES (\([?, 0]+\))")
"""A row of parameters and zeros."""

_MISSING = ("no such column", "no such table")
"""What SQLite says when the stored text of a table was damaged: every statement of ours fits the tables that we make."""

_DAMAGED = ("unsupported file format", "Could not decode to UTF-8")
"""What it, and Python's driver, say of bytes that nobody has written; the code is that of any error, or none."""

_PRIMARY_CODE = 0xFF
"""The lower byte of SQLite's extended result codes."""


class Setting(NamedTuple):
    """A pragma and the value that SQLite must give back when asked for it."""

    name: str
    value: str | int


class Format(NamedTuple):
    """What a file says it is: whose, and in which version of the layout. Both are 0 in a new file."""

    application_id: int
    version: int


class Database(aiosqlite.Connection):
    """One connection to one SQLite file, in autocommit mode, used only from its own thread.

    After a failure of the disk or of the file every later call fails with that same error: what the handle holds is
    unknown, and writing again could make a lost write look durable.
    """

    def __init__(self, path: Path, connector: Callable[[], Connection]) -> None:
        super().__init__(connector, iter_chunk_size=1)
        # A process that fails must end, whether this was closed or not. To SQLite that is a crash like any other.
        self._thread.daemon = True
        self.path = path
        self._failure: FatalError | None = None
        self._stopped: asyncio.Future[Any] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        settings: Iterable[Setting],
        *,
        busy_timeout_s: float = 0,
        read_only: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> Self:
        """Open `path` with `settings`, applied in order and read back; create it unless `read_only`.

        A new file's name is durable when this returns. A read-only connection changes no table; the file must exist.
        `before` is called in the connection's thread before SQLite reads anything, and may raise.

        Raises:
            StorageError: Another process has it locked, the disk failed, or SQLite did not accept a setting.
            CorruptionError: It is not a SQLite file.
        """
        wanted = tuple(settings)

        def connect() -> Connection:
            before()
            try:
                return _connect(path, wanted, busy_timeout_s, read_only=read_only)
            except sqlite3.Error as error:
                translated = _translated(path, error)
                if isinstance(translated, StorageError) and not os.access(path.parent, os.W_OK):
                    # SQLite says "disk I/O error" for a read-only disk
                    translated = StorageError(
                        f"{translated}: {path.parent} is not there, or nothing may be written in it"
                    )
                raise translated from error

        database = cls(path, connect)
        try:
            _ = await database
        except BaseException:
            if database._stopped is not None:  # the thread must be gone before its loop may close
                await database._stopped
            raise
        return database

    async def run(self, function: Callable[[Connection], Result]) -> Result:
        """Run `function` in the connection's thread, in one hop. Cancelling the caller does not stop it.

        Raises:
            StorageError: The disk failed now or earlier, or the file stayed locked.
            CorruptionError: SQLite found the file malformed, now or earlier.
        """
        if self._failure is not None:
            raise self._failure
        return await self._execute(function, self._connection)

    async def transact(
        self, function: Callable[[Connection], Result], *, after: Callable[[], None] = lambda: None
    ) -> Result:
        """Run `function` in one transaction, in one hop: durable as the settings say, or without effect.

        `after` is called when that is durable, in the same hop.

        Raises:
            StorageError, CorruptionError: As in `run`; nothing of it was committed, unless the disk lies.
        """

        def transaction(connection: Connection) -> Result:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = function(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite has rolled back by itself after some errors
                    connection.execute("ROLLBACK")
                raise
            after()
            return result

        return await self.run(transaction)

    async def truncate_wal(self) -> bool:
        """Copy the write-ahead log into the file and cut it to nothing, so that no old page lives on in it.

        Returns False when a reader is in the way; try again later.
        """

        def checkpoint(connection: Connection) -> bool:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if int(busy):
                return False
            _sync_wal(self.path)
            return True

        return await self.run(checkpoint)

    async def settle_wal(self) -> None:
        """Write the write-ahead log's own bytes over themselves, durably; only while this process has the file locked.

        A process that ended after a failed sync may have left pages in it of which the system believes that they are on
        the disk. They are read, and a power cut would take them, and with them all that was written behind them.

        Raises:
            StorageError: The disk failed.
        """
        await self.run(lambda _: disk.write_anew(wal_of(self.path)))

    def stop(self) -> asyncio.Future[Any] | None:
        """Stop the thread once the calls that wait have run. Prefer `close`."""
        self._stopped = super().stop()
        return self._stopped

    async def _execute(self, fn: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        # Every call of aiosqlite goes through here, so no driver's exception for a bad disk leaves this module.
        try:
            result: Result = await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        except sqlite3.Error as error:
            translated = _translated(self.path, error)
            if isinstance(translated, FatalError) and not _is_locked(error):
                self._failure = translated
            raise translated from error
        except StorageError as error:
            self._failure = error
            raise
        return result


async def rename_durably(path: Path, wanted: Path) -> None:
    """Give a closed file another name, which is durable when this returns; a file that has it already is replaced.

    Raises:
        StorageError: The disk failed.
    """
    await asyncio.to_thread(disk.move_durably, path, wanted)


def wal_of(path: Path) -> Path:
    """Return the name of the write-ahead log of the file at `path`."""
    return path.with_name(path.name + "-wal")


def recovered_frames(connection: Connection) -> int:
    """Return how many frames of the write-ahead log SQLite has read, all of which are copied into the file by this."""
    (_, frames, _) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return max(int(frames), 0)


def close_leaving_wal(connection: Connection, path: Path) -> None:
    """Close a connection that alone has the file at `path`, without the write-ahead log being removed.

    Raises:
        StorageError: The disk failed.
    """
    wal = wal_of(path)
    aside = wal.with_name(wal.name + ".kept")  # SQLite removes it by its name, after it has copied what it knows of it
    disk.move(wal, aside)
    try:
        connection.close()
    finally:
        disk.move(aside, wal)


def look_into(path: Path, function: Callable[[Connection], Result]) -> Result | None:
    """Return what `function` finds in the file at `path`, of which nothing is changed; None if it cannot be read.

    Raises:
        StorageError: Another process has it locked.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=0, uri=True)) as connection:
            return function(connection)
    except CorruptionError:
        return None
    except sqlite3.Error as error:
        if _is_locked(error):
            raise _translated(path, error) from error
        return None


def file_format(connection: Connection) -> Format:
    """Return what the file says it is."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return Format(application_id, version)


def stamp(connection: Connection, wanted: Format) -> None:
    """Write the file's format into its header; part of the transaction, if one is open."""
    connection.execute(f"PRAGMA application_id = {wanted.application_id:d}")
    connection.execute(f"PRAGMA user_version = {wanted.version:d}")


def is_empty(connection: Connection) -> bool:
    """Return whether the file has no table yet."""
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None


def insert_rows(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run `statement`, an INSERT with one row `VALUES (?,...)`, for all of `rows`, many in one step.

    Python's driver lets go of the interpreter at each step and then waits to get it back, which takes ten times as
    long as the insertion when other threads are at work.
    """
    if len(rows) == 1:
        connection.execute(statement, rows[0])
        return
    start = 0
    while start < len(rows):
        rows_per_step = next(size for size in ROWS_PER_STEP if size <= len(rows) - start)
        values = chain.from_iterable(rows[start : start + rows_per_step])
        connection.execute(_repeated(statement, rows_per_step), tuple(values))
        start += rows_per_step


def look_up(connection: Connection, statement: str, keys: Sequence[Sequence[Any]]) -> list[Any]:
    """Return what `statement`, which selects from a table with one row `VALUES (?,...)`, finds for all of `keys`.

    For the same reason many of them in one step; they are all different.
    """
    if len(keys) == 1:
        return connection.execute(statement, keys[0]).fetchall()
    found: list[Any] = []
    for start in range(0, len(keys), ROWS_PER_STEP[0]):
        some = keys[start : start + ROWS_PER_STEP[0]]
        size = min(size for size in ROWS_PER_STEP if size >= len(some))
        values = chain(chain.from_iterable(some), repeat(None, (size - len(some)) * len(some[0])))  # nothing is NULL
        found += connection.execute(_repeated(statement, size), tuple(values))
    return found


@lru_cache(maxsize=256)
def _repeated(statement: str, times: int) -> str:
    head, row, tail = _ROW.split(statement)
    return f"{head}VALUES {','.join([row] * times)}{tail}"


def quick_check(connection: Connection) -> list[str]:
    """Return SQLite's own complaints about the file's structure, at most 100; none when it is sound."""
    return _complaints(connection, "PRAGMA quick_check(100)")


def broken_indexes(connection: Connection, table: str | None = None) -> list[str]:
    """Return what SQLite finds wrong when it compares every index with its table besides; reads it all, or one table.

    When it is interrupted, that is its last complaint.
    """
    return _complaints(connection, f"PRAGMA integrity_check({'100' if table is None else table})")


def _complaints(connection: Connection, check: str) -> list[str]:
    found: list[str] = []
    try:
        found.extend(str(row[0]) for row in connection.execute(check))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & _PRIMARY_CODE not in _CORRUPTION_CODES | {sqlite3.SQLITE_INTERRUPT}:
            raise
        return [*found, str(error)]  # too damaged to be looked through
    return [] if found == ["ok"] else found


def _connect(path: Path, settings: Iterable[Setting], busy_timeout_s: float, *, read_only: bool) -> Connection:
    is_new = not path.exists()
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        timeout=busy_timeout_s,
        isolation_level=None,
        uri=True,
        cached_statements=STATEMENTS_MAX,
    )
    try:
        for setting in settings:
            _apply(connection, setting)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # a lock or a foreign file shows here
        if is_new:
            disk.sync(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def _apply(connection: Connection, setting: Setting) -> None:
    connection.execute(f"PRAGMA {setting.name} = {setting.value}").fetchall()  # to its end: its own commit may fail
    row = connection.execute(f"PRAGMA {setting.name}").fetchone()
    got = None if row is None else row[0]
    if str(got).lower() != str(setting.value).lower():
        raise StorageError(f"SQLite keeps {setting.name} at {got!r} where {setting.value!r} is needed")


def _sync_wal(path: Path) -> None:
    """Make it durable that the write-ahead log is empty: SQLite does not, and a power cut would bring old pages back."""
    if (wal := wal_of(path)).exists():
        disk.sync(wal)


def _is_locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _LOCKED_CODES


def _translated(path: Path, error: sqlite3.Error) -> Exception:
    """Return the error to raise for the driver's: our own for a bad disk or file, the same one for our own bugs."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if _is_locked(error):
        return StorageError(f"{path} is locked: another engram uses this data folder")
    if code in _CORRUPTION_CODES:
        return CorruptionError(f"{path}: {error} ({name})")
    if str(error).startswith(_DAMAGED):
        return CorruptionError(f"{path}: {error}")
    if str(error).startswith(_MISSING):
        return CorruptionError(f"{path}: {error}: its tables are not as they were made")
    if code in _STORAGE_CODES:
        return StorageError(f"{path}: {error} ({name})")
    return error
