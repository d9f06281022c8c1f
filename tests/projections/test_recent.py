"""The newest rows with vectors: what is kept from the fold is what a reader of the file would get."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engram.projections.reads import PrimaryReads
from engram.projections.recent import BYTES_MAX, ROWS_MAX, Recent
from engram.projections.sqlite_reads import EmbeddedRow
from tests.projections.histories import (
    Entry,
    History,
    apply,
    deleted,
    embedded,
    entries_of,
    open_store,
    said,
    scratch_folder,
)
from tests.property.test_projections import HISTORIES

TAIL: History = [[said("t1"), embedded("t1")], [said("t2"), embedded("t2")]]


def row(log_index: int, text: str = "") -> EmbeddedRow:
    return EmbeddedRow("t", "s", None, None, f"m{log_index}", 0, 0, 0, 0, "user", None, 0, text, "m", b"", log_index)


def indexes(rows: list[EmbeddedRow] | None) -> list[int] | None:
    return None if rows is None else [row.log_index for row in rows]


async def compare(entries: list[Entry], batch: int, limit: int, patience: int) -> None:
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        cursor = 0
        await store.embedded_after(cursor, limit)
        for number, start in enumerate(range(0, len(entries), batch)):
            await store.apply(entries[start : start + batch])
            stored = await PrimaryReads.embedded_after(store, cursor, limit)
            assert await store.embedded_after(cursor, limit) == stored
            if stored and number % patience == 0:
                cursor = stored[-1].log_index
        await store.close()


@given(HISTORIES, st.integers(1, 4), st.integers(1, 9), st.integers(1, 4))
def test_whoever_follows_the_fold_gets_what_the_file_has(
    entries: list[Entry], batch: int, limit: int, patience: int
) -> None:
    asyncio.run(compare(entries, batch, limit, patience))


async def test_what_was_just_folded_is_not_read_back(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    assert await store.embedded_after(0, 9) == []  # from now on somebody follows
    await apply(store, entries_of(TAIL))
    with closing(sqlite3.connect(tmp_path / "projections.db")) as file, file:
        file.execute("UPDATE contents SET text = 'of the file'")

    assert [row.text for row in await store.embedded_after(1, 9)] == ["hello"]
    assert [row.text for row in await store.embedded_after(0, 9)] == ["of the file"] * 2, "the first was fetched"
    await store.close()


async def test_a_deleted_message_is_not_fed_on(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await apply(store, entries_of([*TAIL, deleted("t1")]), batch=2)

    assert [row.message_id for row in await store.embedded_after(0, 9)] == ["t2"]
    await store.close()


def test_a_batch_that_removes_something_leaves_nothing_here() -> None:
    recent = Recent(0)
    recent.follow([row(1)], 1)
    recent.follow(None, 2)

    assert recent.behind(1, 9) is None
    assert recent.behind(2, 9) == []


def test_who_asks_for_more_than_is_here_gets_nothing() -> None:
    recent = Recent(5)
    recent.follow([row(6), row(7)], 8)

    assert recent.behind(4, 9) is None
    assert indexes(recent.behind(5, 9)) == [6, 7]


def test_what_was_fetched_goes_when_its_reader_asks_for_the_rest() -> None:
    recent = Recent(0)
    recent.follow([row(1), row(2)], 2)

    assert indexes(recent.behind(1, 9)) == [2]
    assert recent.behind(0, 9) is None


def test_an_entry_is_not_cut_in_two() -> None:
    recent = Recent(0)
    recent.follow([row(1), row(2), row(2), row(2), row(3)], 3)

    assert indexes(recent.behind(0, 2)) == [1, 2, 2, 2]
    assert indexes(recent.behind(2, 2)) == [3]


def test_old_rows_make_room_by_number_and_by_size() -> None:
    many, large = Recent(0), Recent(0)
    many.follow([row(index) for index in range(1, ROWS_MAX + 2)], ROWS_MAX + 1)
    large.follow([row(1, "x" * BYTES_MAX), row(2, "x"), row(3)], 3)

    assert many.behind(0, 9) is None
    assert indexes(many.behind(ROWS_MAX, 9)) == [ROWS_MAX + 1]
    assert large.behind(1, 9) is None
    assert indexes(large.behind(2, 9)) == [3]
