import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest

from engram.errors import ConfigError
from engram.projections.lance_rows import FORMAT, Erasure, Scope, Space, schema
from engram.projections.lance_store import INDEX_ROWS_MIN, TABLE, LanceError, LanceStore
from tests.projections.embedded import LOG_END, NEVER, Row, as_query, files_with, found_ids, row, store_at

ALL = Scope("default")
QUOTES = """o'clock "é☃" -- \\' ; DROP"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LanceStore]:
    store = store_at(tmp_path / "lance")
    await store.open(log_last_index=LOG_END)
    yield store
    await store.stop()


async def reopen(store: LanceStore) -> None:
    await store.close()
    await store.open(log_last_index=LOG_END)


async def test_a_new_store_is_empty_at_cursor_zero(store: LanceStore) -> None:
    count = await store.count()

    assert (count, store.cursor) == (0, 0)


async def test_the_cursor_is_found_again_after_a_restart(store: LanceStore) -> None:
    await store.add([row(3), row(7)])

    await reopen(store)

    assert store.cursor == 7


async def test_a_message_with_new_vectors_replaces_its_old_ones(store: LanceStore) -> None:
    await store.add([row(1, message_id="m", chunk=number) for number in range(3)])
    await store.add([row(2, message_id="m", ordinal=1)])

    assert await store.count() == 1
    assert [hit.log_index for hit in await store.search(as_query(2), ALL, 5)] == [2]


@pytest.mark.parametrize("reopened", [False, True])
async def test_vectors_may_come_in_another_order_than_their_messages(store: LanceStore, *, reopened: bool) -> None:
    await store.add([row(1, message_id="late", ordinal=7), row(2, message_id="early", ordinal=3)])
    if reopened:
        await reopen(store)

    await store.add([row(3, message_id="between", ordinal=5), row(4, message_id="early", ordinal=3)])

    assert await found_ids(store, ALL) == ["between", "early", "late"]


async def test_adding_the_same_rows_again_changes_nothing(store: LanceStore) -> None:
    rows = [row(1), row(2, chunk=0), row(2, chunk=1)]
    await store.add(rows)
    before = await store.search(as_query(1), ALL, 10)

    await store.add(rows)

    assert await store.search(as_query(1), ALL, 10) == before
    assert await store.count() == 3


async def test_the_same_message_id_in_another_session_is_another_message(store: LanceStore) -> None:
    await store.add([row(1, message_id="m", session_id="a"), row(2, message_id="n", session_id="b")])
    await store.add([row(3, message_id="m", session_id="b"), row(4, message_id="n", session_id="a")])

    assert await found_ids(store, ALL) == ["m", "m", "n", "n"]


async def test_vectors_of_another_model_or_width_are_left_out(store: LanceStore) -> None:
    await store.add([row(1), row(2, model="model-b"), row(3, dimension=4)])

    assert await found_ids(store, ALL) == ["m1"]
    assert store.cursor == 3


async def test_columns_are_written_as_they_are(store: LanceStore, tmp_path: Path) -> None:
    """Compressing them takes most of what a row costs; LanceDB does it unless each column says otherwise."""
    await store.add([row(1), row(2)])

    columns = lancedb.connect(tmp_path / "lance").open_table(TABLE).schema
    assert {column.metadata[b"lance-encoding:compression"] for column in columns} == {b"none"}


async def test_a_chunk_keeps_its_own_part_of_the_text(store: LanceStore, tmp_path: Path) -> None:
    parts = [
        row(1, "first second", chunk=0)._replace(start=0, end=5),
        row(1, "first second", chunk=1)._replace(start=6, end=12),
    ]
    await store.add(parts)
    await store.close()

    table = lancedb.connect(tmp_path / "lance").open_table(TABLE).to_arrow()

    assert sorted(table["text"].to_pylist()) == ["first", "second"]
    assert str(table.schema.field("when").type) == "timestamp[ms, tz=UTC]"


async def test_the_nearest_chunk_comes_first_with_its_cosine(store: LanceStore) -> None:
    await store.add([row(index) for index in range(1, 50)])

    hits = await store.search(as_query(20), ALL, 3)

    assert hits[0].message_id == "m20"
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-3)
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope("default"), ["m1", "m2", "m3"]),
        (Scope("other"), ["m4"]),
        (Scope("default", session_ids=["a"]), ["m1"]),
        (Scope("default", session_ids=["a", QUOTES]), ["m1", "m2"]),
        (Scope("default", session_ids=[]), []),
        (Scope("default", agent_id="x"), ["m3"]),
        (Scope("default", user_id="nobody"), []),
    ],
)
async def test_a_search_sees_its_scope_only(store: LanceStore, scope: Scope, expected: list[str]) -> None:
    await store.add(
        [
            row(1, session_id="a"),
            row(2, session_id=QUOTES),
            row(3, session_id="c", agent_id="x"),
            row(4, session_id="a", tenant="other"),
        ]
    )

    assert await found_ids(store, scope) == expected


async def test_an_index_changes_no_answer(store: LanceStore) -> None:
    rows = [row(index, session_id=f"s{index % 9}") for index in range(1, INDEX_ROWS_MIN + 1)]
    await store.add(rows)
    scope = Scope("default", session_ids=["s3", "s4"])
    before = await store.search(as_query(5), scope, 20)

    await store.optimize()

    assert await store.search(as_query(5), scope, 20) == before


async def test_forgetting_a_session_leaves_the_others(store: LanceStore) -> None:
    await store.add([row(1, session_id="a"), row(2, session_id="b"), row(3, session_id="a", tenant="other")])

    await store.forget([Erasure("default", "a", None, 10)])

    assert await found_ids(store, ALL) == ["m2"]
    assert await found_ids(store, Scope("other")) == ["m3"]


async def test_forgetting_spares_what_came_after(store: LanceStore) -> None:
    await store.add([row(1, message_id="m"), row(9, message_id="n")])

    await store.forget([Erasure("default", "s1", None, 5), Erasure("default", "s1", "n", 5)])

    assert await found_ids(store, ALL) == ["n"]


async def test_a_forgotten_message_is_in_no_file(store: LanceStore, tmp_path: Path) -> None:
    await store.add([row(1, "MARKER-4711"), row(2)])
    await store.add([row(3)])
    assert files_with(tmp_path, "MARKER-4711")

    await store.forget([Erasure("default", "s1", "m1", 10)])

    assert files_with(tmp_path, "MARKER-4711") == []
    assert await found_ids(store, ALL) == ["m2", "m3"]


async def test_a_forgotten_session_leaves_no_file_that_held_it(store: LanceStore, tmp_path: Path) -> None:
    # Text in a large file is compressed, so that its bytes cannot be looked for: the files themselves must go. One
    # session of many is far below the tenth of a fragment from which LanceDB would rewrite it by itself.
    rows = [row(index, session_id=f"session-{index % 500:03}-name") for index in range(1, INDEX_ROWS_MIN + 1)]
    await store.add(rows)
    await store.optimize()
    assert files_with(tmp_path, "session-007-name")
    before = set((tmp_path / "lance" / f"{TABLE}.lance" / "data").iterdir())

    await store.forget([Erasure("default", f"session-{number:03}-name", None, NEVER) for number in (7, 70, 77)])

    after = set((tmp_path / "lance" / f"{TABLE}.lance" / "data").iterdir())
    assert after
    assert after.isdisjoint(before)
    assert files_with(tmp_path, "session-007-name") == []
    assert await store.count() == INDEX_ROWS_MIN - 3 * INDEX_ROWS_MIN // 500


async def test_a_message_embedded_twice_is_forgotten_with_its_first_vectors(store: LanceStore, tmp_path: Path) -> None:
    await store.add([row(1, "MARKER-4711", message_id="m"), *(row(index) for index in range(2, 40))])
    await store.add([row(50, "MARKER-4711", message_id="m", ordinal=1)])

    await store.forget([Erasure("default", "s1", "m", NEVER)])

    assert files_with(tmp_path, "MARKER-4711") == []


async def test_forgetting_again_is_harmless(store: LanceStore) -> None:
    await store.add([row(1), row(2)])
    erasure = Erasure("default", "s1", "m1", 10)

    await store.forget([erasure])
    await store.forget([erasure])
    await reopen(store)
    await store.forget([erasure])

    assert await found_ids(store, ALL) == ["m2"]


async def test_old_versions_do_not_pile_up(store: LanceStore, tmp_path: Path) -> None:
    for index in range(1, 30):
        await store.add([row(index)])

    await store.forget([Erasure("default", "s1", "m1", 10)])

    manifests = list((tmp_path / "lance" / f"{TABLE}.lance" / "_versions").glob("*.manifest"))
    assert len(manifests) <= 2


async def test_an_empty_table_of_another_model_is_made_anew(tmp_path: Path) -> None:
    first = store_at(tmp_path / "lance")
    await first.open(log_last_index=LOG_END)
    await first.stop()
    other = LanceStore(str(tmp_path / "lance"), model="another", dimension=5)

    await other.open(log_last_index=LOG_END)
    count = await other.count()
    await other.stop()

    assert (count, other.cursor) == (0, 0)


@pytest.mark.parametrize(("model", "dimension"), [("model-b", 8), ("model-a", 16)])
async def test_another_model_or_width_is_refused_by_name(tmp_path: Path, model: str, dimension: int) -> None:
    first, second = store_at(tmp_path), store_at(tmp_path, model=model, dimension=dimension)
    await first.open(log_last_index=LOG_END)
    await first.add([row(1)])
    await first.stop()

    with pytest.raises(ConfigError) as refused:
        await second.open(log_last_index=LOG_END)
    await second.stop()

    message = str(refused.value)
    assert "'model-a' with dimension 8" in message
    assert f"{model!r} with dimension {dimension}" in message
    assert "engram reembed" in message


async def test_a_refused_store_can_be_cleared_for_the_new_model(tmp_path: Path) -> None:
    first, second = store_at(tmp_path), store_at(tmp_path, model="model-b", dimension=16)
    await first.open(log_last_index=LOG_END)
    await first.add([row(1)])
    await first.stop()

    await second.clear()
    await second.add([row(1, model="model-b", dimension=16)])

    assert (await second.count(), second.cursor) == (1, 1)
    await second.stop()


async def test_a_table_of_another_format_is_built_afresh(tmp_path: Path) -> None:
    columns = pa.schema([("anything", pa.string()), ("log_index", pa.int64())])
    old = lancedb.connect(tmp_path).create_table(TABLE, schema=columns.with_metadata({"engram.format": f"{FORMAT}0"}))
    old.add(pa.table({"anything": ["x"], "log_index": [5]}, schema=old.schema))

    store = store_at(tmp_path)
    await store.open(log_last_index=LOG_END)

    assert (await store.count(), store.cursor) == (0, 0)
    await store.stop()


def older(columns: pa.Schema, change: str) -> pa.Schema:
    """Return the columns of a table that an engram before this one might have made."""
    place = columns.get_field_index("ordinal" if change == "fewer" else "vector")
    if change == "fewer":
        return columns.remove(place)
    if change == "wider":
        return columns.set(place, pa.field("vector", pa.list_(pa.float32(), 16), nullable=False))
    if change == "float64":
        return columns.set(place, pa.field("vector", pa.list_(pa.float64(), 8), nullable=False))
    if change == "unsaid":
        return columns.with_metadata({"engram.format": FORMAT})
    return columns.remove_metadata()


@pytest.mark.parametrize("change", ["fewer", "wider", "float64", "unsaid", "bare"])
@pytest.mark.parametrize("scheme", ["", "file-object-store://"])
async def test_a_table_of_an_older_layout_is_built_afresh_and_filled(tmp_path: Path, change: str, scheme: str) -> None:
    columns = older(schema(pa, Space("model-a", 8)), change)
    old = lancedb.connect(tmp_path / "lance").create_table(TABLE, schema=columns)
    values = {field.name: [filler(field.type)] for field in columns}
    old.add(pa.table(values, schema=columns))
    store = LanceStore(f"{scheme}{tmp_path / 'lance'}", model="model-a", dimension=8)

    await store.open(log_last_index=LOG_END)
    was_empty = (await store.count(), store.cursor) == (0, 0)
    await store.add([row(1)])

    assert was_empty
    assert (await store.count(), store.cursor) == (1, 1)
    await store.stop()


def filler(kind: pa.DataType) -> Any:
    """Return a value of a column's type."""
    if pa.types.is_fixed_size_list(kind):
        return [0.5] * kind.list_size
    return "x" if pa.types.is_string(kind) else 5


@pytest.mark.parametrize("damaged", ["_versions/*.manifest", "data/*.lance"])
async def test_a_damaged_table_is_built_afresh(store: LanceStore, tmp_path: Path, damaged: str) -> None:
    await store.add([row(1)])
    await store.close()
    for path in (tmp_path / "lance" / f"{TABLE}.lance").glob(damaged):
        path.write_bytes(b"junk")

    await store.open(log_last_index=LOG_END)

    assert (await store.count(), store.cursor) == (0, 0)


async def test_the_table_of_another_log_is_built_afresh(store: LanceStore) -> None:
    await store.add([row(1), row(500)])
    await store.close()

    await store.open(log_last_index=499)

    assert (await store.count(), store.cursor) == (0, 0)


async def test_what_cannot_be_read_far_away_may_be_the_networks_fault_and_is_kept(tmp_path: Path) -> None:
    remote = LanceStore(f"file-object-store://{tmp_path}", model="model-a", dimension=8)
    await remote.open(log_last_index=LOG_END)
    await remote.add([row(1)])
    manifests = list((tmp_path / f"{TABLE}.lance" / "_versions").glob("*.manifest"))
    for path in manifests:
        path.write_bytes(b"junk")

    with pytest.raises(LanceError):
        await remote.open(log_last_index=LOG_END)

    assert all(path.exists() for path in manifests)
    await remote.stop()


async def test_a_uri_that_means_nothing_is_an_error_of_the_store() -> None:
    store = LanceStore("nosuch://bucket/lance", model="model-a", dimension=8)

    with pytest.raises(LanceError):
        await store.open(log_last_index=LOG_END)

    await store.stop()


async def test_any_order_of_work_keeps_exactly_the_rows_that_are_left(store: LanceStore) -> None:
    chance = random.Random(20)
    expected: dict[tuple[str, str], Row] = {}
    for index in range(1, 60):
        session_id, message_id = f"s{chance.randrange(3)}", f"m{chance.randrange(15)}"
        match chance.choice(["add", "add", "add", "forget message", "forget session", "optimize", "reopen"]):
            case "add":
                known = expected.get((session_id, message_id))
                ordinal = index if known is None else known.ordinal
                added = row(index, session_id=session_id, message_id=message_id, ordinal=ordinal)
                await store.add([added])
                expected[session_id, message_id] = added
            case "forget message":
                await store.forget([Erasure("default", session_id, message_id, index)])
                expected.pop((session_id, message_id), None)
            case "forget session":
                await store.forget([Erasure("default", session_id, None, index)])
                expected = {key: kept for key, kept in expected.items() if key[0] != session_id}
            case "optimize":
                await store.optimize()
            case _:
                await reopen(store)
                assert store.cursor == max((kept.log_index for kept in expected.values()), default=0)

    hits = await store.search(as_query(1), ALL, 100)
    assert {(hit.session_id, hit.message_id): hit.log_index for hit in hits} == {
        key: kept.log_index for key, kept in expected.items()
    }
    assert len(hits) == len(expected)
