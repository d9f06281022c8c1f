import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engram.database import (
    Connection,
    Database,
    Format,
    Setting,
    file_format,
    insert_rows,
    is_empty,
    look_up,
    quick_check,
    stamp,
)
from engram.errors import CorruptionError, StorageError

EXCLUSIVE_WAL = (
    Setting("locking_mode", "exclusive"),
    Setting("journal_mode", "wal"),
    Setting("synchronous", 2),
    Setting("secure_delete", 1),
)
WAL = (Setting("journal_mode", "wal"), Setting("secure_delete", 1))

OPEN_IT = """
import asyncio, sys
from pathlib import Path
from engram.database import Database, insert_rows
from engram.errors import StorageError

async def main():
    try:
        database = await Database.open(Path(sys.argv[1]), [], read_only=sys.argv[2] == "read")
    except StorageError as error:
        print(error)
    else:
        await database.close()
        print("opened")

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path: Path, *settings: Setting, read_only: bool = False) -> AsyncIterator[Database]:
    database = await Database.open(path, settings or WAL, read_only=read_only)
    try:
        yield database
    finally:
        await database.close()


def make_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE notes (text TEXT NOT NULL)")


def add(text: str) -> Callable[[Connection], None]:
    def insert(connection: Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))

    return insert


def make_stamped_table(connection: Connection) -> None:
    make_table(connection)
    stamp(connection, Format(77, 3))


def pragma(name: str) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]


def notes(connection: Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        await database.run(make_table)
        await database.transact(add("kept"))

    async with opened(tmp_path / "a.db") as database:
        assert await database.run(notes) == ["kept"]


async def test_a_function_runs_in_the_thread_of_its_database_and_gives_back_its_result(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        threads = {await database.run(lambda _: threading.get_ident()) for _ in range(3)}

    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_each_setting_holds_and_is_in_force(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", *EXCLUSIVE_WAL) as database:
        for name, value in EXCLUSIVE_WAL:
            assert await database.run(pragma(name)) == value


@pytest.mark.parametrize("setting", [Setting("page_size", 1000), Setting("no_such_pragma", 1)])
async def test_a_setting_that_sqlite_does_not_take_is_an_error(tmp_path: Path, setting: Setting) -> None:
    with pytest.raises(StorageError, match=setting.name):
        _ = await Database.open(tmp_path / "a.db", [setting])


async def test_a_transaction_that_fails_leaves_nothing_and_the_connection_usable(tmp_path: Path) -> None:
    def half(connection: Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('lost')")
        raise LookupError("on purpose")

    async with opened(tmp_path / "a.db") as database:
        await database.run(make_table)
        with pytest.raises(LookupError):
            await database.transact(half)

        assert await database.run(notes) == []
        await database.transact(add("later"))
        assert await database.run(notes) == ["later"]


async def test_a_mistake_in_sql_stays_the_drivers_error_and_breaks_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        with pytest.raises(sqlite3.OperationalError, match="syntax"):
            await database.run(lambda connection: connection.execute("SELEKT"))

        await database.run(make_table)


async def test_a_full_disk_is_a_storage_error_for_this_call_and_all_later_ones(tmp_path: Path) -> None:
    def fill(connection: Connection) -> None:
        connection.execute("PRAGMA max_page_count = 10")
        connection.execute("INSERT INTO notes VALUES (?)", ("x" * 100_000,))

    async with opened(tmp_path / "a.db") as database:
        await database.run(make_table)
        with pytest.raises(StorageError, match="SQLITE_FULL") as first:
            await database.run(fill)
        with pytest.raises(StorageError) as later:
            await database.run(notes)

    assert later.value is first.value


async def test_a_malformed_file_is_corruption(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database " * 1000)

    with pytest.raises(CorruptionError, match="SQLITE_NOTADB"):
        _ = await Database.open(tmp_path / "a.db", WAL)


async def test_a_damaged_page_is_corruption_when_it_is_read_and_a_complaint_of_the_quick_check(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        await database.run(make_table)
        for number in range(200):
            await database.run(add(f"{number} " * 100))
        assert await database.run(quick_check) == []
    data = bytearray((tmp_path / "a.db").read_bytes())
    data[4096:4104] = b"\xff" * 8  # the header of the table's root page
    (tmp_path / "a.db").write_bytes(data)

    async with opened(tmp_path / "a.db") as database:
        assert await database.run(quick_check) != []
        with pytest.raises(CorruptionError, match="SQLITE_CORRUPT"):
            await database.run(notes)


async def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"CANTOPEN.*: .*missing is not there, or nothing may be written in it"):
        _ = await Database.open(tmp_path / "missing" / "a.db", WAL)


async def test_reading_does_not_create_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="CANTOPEN"):
        _ = await Database.open(tmp_path / "a.db", [], read_only=True)

    assert not (tmp_path / "a.db").exists()


async def test_a_read_only_connection_sees_what_the_writer_commits_and_writes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as writer:
        await writer.run(make_table)
        async with opened(tmp_path / "a.db", Setting("query_only", 1), read_only=True) as reader:
            await writer.transact(add("new"))

            assert await reader.run(notes) == ["new"]
            with pytest.raises(StorageError, match="READONLY"):
                await reader.run(add("own"))


async def test_a_file_that_is_locked_exclusively_opens_for_nobody_else(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", *EXCLUSIVE_WAL) as database:
        await database.run(make_table)
        for how in ("read", "write"):
            child = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", OPEN_IT, str(tmp_path / "a.db"), how],
                capture_output=True,
                text=True,
                check=True,
            )

            assert "another engram uses this data folder" in child.stdout
        with pytest.raises(StorageError, match="another engram"):
            _ = await Database.open(tmp_path / "a.db", WAL)

    async with opened(tmp_path / "a.db") as database:
        assert await database.run(notes) == []


async def test_a_lock_is_waited_for_and_breaks_nothing_when_it_stays(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as first, opened(tmp_path / "a.db") as second:
        await first.run(make_table)
        await first.run(lambda connection: connection.execute("BEGIN IMMEDIATE").rowcount)
        with pytest.raises(StorageError, match="locked"):
            await second.transact(add("a"))
        await first.run(lambda connection: connection.execute("COMMIT").rowcount)

        await second.transact(add("b"))

        assert await first.run(notes) == ["b"]


async def test_emptying_the_write_ahead_log_leaves_no_old_page_in_it(tmp_path: Path) -> None:
    def replace_it(connection: Connection) -> None:
        connection.execute("UPDATE notes SET text = 'clean'")

    async with opened(tmp_path / "a.db") as database:
        await database.run(make_table)
        await database.run(add("secret"))
        await database.transact(replace_it)
        before = (tmp_path / "a.db-wal").read_bytes()

        assert await database.truncate_wal()

        assert b"secret" in before
        assert (tmp_path / "a.db-wal").stat().st_size == 0
        assert b"secret" not in (tmp_path / "a.db").read_bytes()


async def test_a_reader_in_the_way_of_emptying_the_log_is_reported(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as writer, opened(tmp_path / "a.db") as reader:
        await writer.run(make_table)
        await reader.run(lambda connection: connection.execute("BEGIN").rowcount)
        await reader.run(notes)
        await writer.run(add("new"))

        assert not await writer.truncate_wal()

        await reader.run(lambda connection: connection.execute("COMMIT").rowcount)
        assert await writer.truncate_wal()


async def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        assert await database.run(is_empty)
        assert await database.run(file_format) == Format(0, 0)
        await database.transact(make_stamped_table)

    async with opened(tmp_path / "a.db") as database:
        assert not await database.run(is_empty)
        assert await database.run(file_format) == Format(77, 3)


async def test_a_cancelled_caller_does_not_undo_its_transaction(tmp_path: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('kept')")
        entered.set()
        go_on.wait(10)

    async with opened(tmp_path / "a.db") as database:
        await database.run(make_table)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(database.transact(slow))
            await asyncio.to_thread(entered.wait, 10)
            task.cancel()
            go_on.set()

        assert await database.run(notes) == ["kept"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 31, 128, 129, 200])
async def test_many_rows_are_inserted_whole_and_in_order(tmp_path: Path, count: int) -> None:
    rows = [(number, f"row {number}") for number in range(count)]
    database = await Database.open(tmp_path / "d.db", ())

    def write(connection: Connection) -> list[tuple[int, int, str]]:
        connection.execute("CREATE TABLE t (number INTEGER, word TEXT)")
        insert_rows(connection, "INSERT INTO t VALUES (?,?)", rows)
        return connection.execute("SELECT rowid, number, word FROM t ORDER BY rowid").fetchall()

    found = await database.transact(write)
    await database.close()

    assert found == [(number + 1, number, word) for number, word in rows]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 127, 128, 129, 300])
async def test_many_keys_are_looked_up_and_only_what_is_there_is_found(tmp_path: Path, count: int) -> None:
    def fill(connection: Connection) -> None:
        connection.execute("CREATE TABLE squares (number INTEGER PRIMARY KEY, square INTEGER NOT NULL)")
        insert_rows(
            connection, "INSERT INTO squares VALUES (?,?)", [(number, number**2) for number in range(0, 400, 2)]
        )

    def find(connection: Connection) -> list[tuple[int, int]]:
        statement = (
            "WITH wanted (number) AS (VALUES (?)) SELECT number, square FROM wanted CROSS JOIN squares USING (number)"
        )
        return look_up(connection, statement, [(number,) for number in range(count)])

    async with opened(tmp_path / "a.db") as database:
        await database.transact(fill)

        assert sorted(await database.run(find)) == [(number, number**2) for number in range(0, count, 2)]
