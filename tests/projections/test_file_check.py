"""A damaged file is noticed, whether a node uses it or not, and nobody who deletes is held up."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from engram.clock import SystemClock
from engram.errors import CorruptionError
from engram.projections import file_check
from engram.projections.comparison import Difference
from engram.projections.file_check import Step, Unchecked, check_file, check_running, complaints_unless, table_names
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.damage import alter, lose_from_index, root_page
from tests.projections.histories import History, apply, deleted, embedded, entries_of, open_store, pinned, said

HISTORY: History = [
    *([said(f"m{number}", f"text {number}"), embedded(f"m{number}")] for number in range(50)),
    pinned("f1"),
    deleted("m7"),
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    opened = await open_store(tmp_path)
    await apply(opened, entries_of(HISTORY), batch=10)
    yield opened
    await opened.close()


async def rest(_: float) -> None:
    await asyncio.sleep(0)


async def running(store: PrimaryStore) -> list[Step]:
    return [step async for step in check_running(store, SystemClock(), rest)]


def differences(steps: Sequence[Step]) -> list[Difference]:
    return [step for step in steps if isinstance(step, Difference)]


async def test_a_sound_file_has_nothing_to_find(store: PrimaryStore) -> None:
    tables = await store.ask(table_names)

    assert await check_file(store) == []
    assert await running(store) == [1] * len(tables)
    assert {"sessions", "messages", "contents", "vectors", "facts", "timeline"} <= set(tables)


@pytest.mark.parametrize(
    ("index", "without"),
    [
        ("messages_by_id", "message_id = 'm3'"),
        ("messages_by_ordinal", "ordinal = 30"),
        ("sessions_by_id", "session_id = 's'"),
    ],
)
async def test_an_index_that_lacks_a_row_is_named(store: PrimaryStore, index: str, without: str) -> None:
    await asyncio.to_thread(lose_from_index, store.path, index, without)

    whole, piecewise = await check_file(store), differences(await running(store))

    for found in (whole, piecewise):
        assert [each.model for each in found] == ["indexes"]
        assert index in found[0].what


@pytest.mark.parametrize("contents", [1, 7, 1000])
async def test_text_of_a_message_that_is_gone_is_found_with_its_entry(
    store: PrimaryStore, monkeypatch: pytest.MonkeyPatch, contents: int
) -> None:
    monkeypatch.setattr(file_check, "CONTENTS", contents)
    await asyncio.to_thread(alter, store.path, "UPDATE contents SET text = 'secret' WHERE text = ''")

    whole, piecewise = await check_file(store), differences(await running(store))

    for found in (whole, piecewise):
        assert [(each.model, each.log_index, each.what) for each in found] == [
            ("contents", 8, "a deleted message still has its content")
        ]


@pytest.mark.parametrize("column", ["name = 'secret'", "metadata = x'81'"])
async def test_what_else_a_message_had_is_text_too(store: PrimaryStore, column: str) -> None:
    await asyncio.to_thread(alter, store.path, f"UPDATE contents SET {column} WHERE text = ''")

    assert [each.log_index for each in await check_file(store)] == [8]


@pytest.mark.parametrize("page", [3, 5, 8, 12])
async def test_an_overwritten_page_is_found(tmp_path: Path, page: int) -> None:
    store = await open_store(tmp_path)
    await apply(store, entries_of(HISTORY))
    assert await store.scrub()  # everything lies in the file itself
    with store.path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)

    with_a_reader_of_its_own = differences(await running(store))

    assert with_a_reader_of_its_own != []
    await store.close()


async def test_a_copy_with_an_overwritten_page_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "projections.db"
    store = await open_store(tmp_path)
    await apply(store, entries_of(HISTORY))
    await store.close()
    content = bytearray(path.read_bytes())
    root = await asyncio.to_thread(root_page, path, "messages_by_id")
    content[4096 * (root - 1) : 4096 * root] = b"\xff" * 4096
    path.write_bytes(content)
    damaged = await open_store(tmp_path)

    try:
        found = [str(each) for each in await check_file(damaged)]
    except CorruptionError as error:
        found = [str(error)]

    assert found != []
    await damaged.close()


async def test_who_deletes_comes_first(store: PrimaryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_check, "OPERATIONS", 1)
    asked = 0

    def is_in_the_way() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    gave_way = await store.ask(lambda connection: complaints_unless(connection, "messages", is_in_the_way))
    done = await store.ask(lambda connection: complaints_unless(connection, "messages", lambda: False))

    assert (gave_way, asked, done) == (None, 4, [])


async def test_a_table_is_read_again_when_the_deletion_is_done(
    store: PrimaryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_check, "OPERATIONS", 1)
    store.is_scrubbing = True

    async def give_way(seconds: float) -> None:
        if seconds == file_check.GIVING_WAY_S:
            store.is_scrubbing = False

    steps = [step async for step in check_running(store, SystemClock(), give_way)]

    assert set(steps) == {1}


async def test_what_could_not_be_looked_at_is_told(store: PrimaryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_check, "OPERATIONS", 1)
    store.is_scrubbing = True

    steps = await running(store)

    tables = await store.ask(table_names)
    assert [step for step in steps if isinstance(step, Unchecked)] == [Unchecked(table) for table in tables]
    assert "indexes of the table messages are not compared" in str(Unchecked("messages"))
    store.is_scrubbing = False
