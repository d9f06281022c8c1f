"""The primary store: what readers get, what survives, and what is thrown away."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.errors import CorruptionError
from engram.events import (
    TENANT_DEFAULT,
    Event,
    MessageAppended,
    SessionCreated,
    SessionDeleted,
    VisibilityChanged,
    WorkAbandoned,
    encode,
)
from engram.projections.lance_rows import Space
from engram.projections.rows import RecallBlob, VectorRow
from engram.projections.sqlite_reads import Counts
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import (
    Entry,
    apply,
    created,
    deleted,
    embedded,
    ended,
    entries_of,
    open_store,
    pinned,
    said,
    unpinned,
    vector,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


async def test_a_session_says_what_is_in_it(store: PrimaryStore) -> None:
    await apply(
        store,
        entries_of(
            [
                SessionCreated(session_id="s", at_ms=10, agent_id="a", user_id="u", metadata={"plan": "pro", "n": 1}),
                [said("m1", "12345", at_ms=20), embedded("m1")],
                said("m2", "123", at_ms=30),
                deleted("m2", at_ms=40),
                said("m3", "1", at_ms=50),
                pinned("f1"),
            ]
        ),
    )

    row = await store.session("s")

    assert row is not None
    assert row._asdict() == {
        "session_key": 1,
        "tenant": TENANT_DEFAULT,
        "session_id": "s",
        "agent_id": "a",
        "user_id": "u",
        "metadata": {"plan": "pro", "n": 1},
        "visibility": "private",
        "created_at_ms": 10,
        "updated_at_ms": 50,
        "updated_index": 6,
        "message_count": 2,
        "fact_count": 1,
        "token_count": 6,
        "pending_embeddings": 1,
        "abandoned_embeddings": 0,
        "next_ordinal": 3,
        "vectors_index": 4,
        "deletions": 1,
    }


@pytest.mark.parametrize(
    "older",
    [
        said("m2", at_ms=9),
        pinned("f1"),
        deleted("m1", at_ms=9),
        VisibilityChanged(session_id="s", at_ms=9, visibility="shared"),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
async def test_what_is_older_than_the_last_change_does_not_take_it_back(
    store: PrimaryStore, older: Event, batch: int
) -> None:
    await apply(store, entries_of([said("m1", at_ms=50), older]), batch=batch)

    row = await store.session("s")

    assert row is not None
    assert (row.created_at_ms, row.updated_at_ms, row.updated_index) == (50, 50, 2)


async def test_a_message_comes_back_as_it_was_written(store: PrimaryStore) -> None:
    event = MessageAppended(
        session_id="s",
        at_ms=10,
        message_id="m1",
        role="tool",
        text="Grüße 🚀",
        name="search",
        occurred_at_ms=-5,
        tokens=4,
        metadata={"ok": True, "score": 0.5, "none": None},
    )
    await apply(store, entries_of([event]))

    row = await store.message(1, "m1")

    assert row is not None
    assert (row.role, row.text, row.name, row.tokens, row.metadata) == ("tool", "Grüße 🚀", "search", 4, event.metadata)
    assert (row.session_key, row.ordinal, row.log_index, row.at_ms, row.when_ms) == (1, 0, 1, 10, -5)
    assert row.embedding == "pending"


async def test_what_is_unknown_is_none_or_empty(store: PrimaryStore) -> None:
    assert await store.session("s") is None
    assert await store.conversation("s") is None
    assert await store.message(1, "m1") is None
    assert await store.recall_blob(1) is None
    assert await store.embedding_space() is None
    assert await store.messages(1, limit=5) == await store.messages_at([(1, 0)]) == []
    assert await store.counts() == Counts(0, 0, 0, 0, 0)


async def test_messages_are_paged_by_ordinal_in_both_directions(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said(f"m{n}") for n in range(5)], deleted("m2")]))

    up = await store.messages(1, after=0, limit=2)
    down = await store.messages(1, after=3, limit=2, descending=True)
    last = await store.messages(1, limit=1, descending=True)

    assert [row.ordinal for row in up] == [1, 3]
    assert [row.ordinal for row in down] == [1, 0]
    assert [row.message_id for row in last] == ["m4"]


async def test_messages_are_fetched_in_the_order_asked_for(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said("a"), said("b")], said("c", session_id="t")]))

    rows = await store.messages_at([(2, 0), (1, 1), (1, 7), (1, 0)])

    assert [row.message_id for row in rows] == ["c", "b", "a"]


async def test_sessions_are_listed_in_the_order_of_their_making(store: PrimaryStore) -> None:
    await apply(
        store,
        entries_of(
            [
                created("c", agent_id="a1"),
                created("b", agent_id="a1", user_id="u1"),
                created("a", agent_id="a2", user_id="u1"),
                SessionCreated(session_id="d", at_ms=1, tenant="other", agent_id="a1"),
            ]
        ),
    )

    everything = await store.sessions(limit=10)
    behind = await store.sessions(after=1, limit=1)
    of_agent = await store.scope(TENANT_DEFAULT, agent_id="a1")
    of_user = await store.sessions(agent_id="a1", user_id="u1", limit=10)

    assert [row.session_id for row in everything] == ["c", "b", "a"]
    assert [row.session_id for row in behind] == ["b"]
    assert [row.session_id for row in of_agent] == ["c", "b"]
    assert [row.session_id for row in of_user] == ["b"]


async def test_tenants_do_not_see_each_other(store: PrimaryStore) -> None:
    theirs = MessageAppended(tenant="other", session_id="s", at_ms=1, message_id="m", role="user", text="x", tokens=1)
    await apply(store, entries_of([said("m"), theirs, SessionDeleted(tenant="other", session_id="s", at_ms=2)]))

    assert await store.session("s", "other") is None
    assert await store.session("s") is not None


async def test_a_conversation_is_the_end_of_a_session_and_its_facts(store: PrimaryStore) -> None:
    await apply(store, entries_of([*(said(f"m{n}") for n in range(4)), pinned("f2", "b"), pinned("f1", "a")]))

    conversation = await store.conversation("s", TENANT_DEFAULT, 2)

    assert conversation is not None
    assert [row.message_id for row in conversation.recent] == ["m2", "m3"]
    assert [(fact.fact_id, fact.log_index) for fact in conversation.facts] == [("f2", 5), ("f1", 6)]


async def test_facts_are_listed_until_they_are_unpinned(store: PrimaryStore) -> None:
    await apply(store, entries_of([pinned("f1", "a"), pinned("f2", "b"), pinned("f3", "c")]))
    await store.apply([Entry(4, encode([unpinned("f2")]))])

    assert [fact.text for fact in await store.facts(1)] == ["a", "c"]
    assert (await store.counts()).facts == 2


async def test_a_recall_delta_is_what_came_behind_the_cursors(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said("m1"), embedded("m1")], said("m2"), [said("m3"), embedded("m3")]]))
    await store.apply([Entry(4, encode([embedded("m2", 2, chunks=[vector(start=1, end=2, fill=7)])]))])

    everything = await store.recall_delta(1, next_ordinal=0, vectors_index=0)
    behind = await store.recall_delta(1, next_ordinal=2, vectors_index=3)

    assert [row.message_id for row in everything.messages] == ["m1", "m2", "m3"]
    assert [row.ordinal for row in everything.vectors] == [0, 2, 1]
    assert [row.message_id for row in behind.messages] == ["m3"]
    assert behind.vectors == [VectorRow(1, 1, 2, bytes([7, 0]) * 4, "model-a")]


async def test_replaced_vectors_are_gone_from_the_next_delta(store: PrimaryStore) -> None:
    await apply(
        store, entries_of([[said("m1"), embedded("m1", chunks=[vector(), vector()])], embedded("m1", 1)]), batch=1
    )

    delta = await store.recall_delta(1, next_ordinal=0, vectors_index=0)

    assert len(delta.vectors) == 1


async def test_waiting_messages_are_paged_without_cutting_an_entry(store: PrimaryStore) -> None:
    await apply(store, entries_of([said("m0"), [said(f"m{n}") for n in range(1, 5)], said("m9", session_id="t")]))

    first = await store.pending_embeddings(limit=2)
    second = await store.pending_embeddings(after=first[-1].log_index, limit=2)

    assert [row.message_id for row in first] == ["m0", "m1", "m2", "m3", "m4"]
    assert [(row.session_id, row.message_id, row.log_index, row.text) for row in second] == [("t", "m9", 3, "hello")]


async def test_given_up_messages_are_listed_apart(store: PrimaryStore) -> None:
    given_up = WorkAbandoned(session_id="s", at_ms=1, work="embedding", message_id="m1", error="away", attempts=3)
    await apply(store, entries_of([said("m1"), said("m2"), given_up]), batch=1)

    assert [row.message_id for row in await store.pending_embeddings(limit=9)] == ["m2"]
    assert [row.message_id for row in await store.abandoned_embeddings(limit=9)] == ["m1"]
    assert await store.counts() == Counts(1, 2, 0, 1, 1)


async def test_the_embedding_space_is_that_of_the_newest_vectors(store: PrimaryStore) -> None:
    await apply(
        store, entries_of([[said("m1"), embedded("m1")], [said("m2"), embedded("m2", model="model-b")], said("m3")])
    )
    space = await store.embedding_space()
    await store.apply([Entry(4, encode([deleted("m2")]))])

    assert space == Space("model-b", 4)
    assert await store.embedding_space() == Space("model-a", 4)


async def test_chunks_are_fed_on_in_the_order_their_vectors_came(store: PrimaryStore) -> None:
    await apply(
        store,
        entries_of(
            [
                created(agent_id="a"),
                said("m1", "one two"),
                [said("m2"), embedded("m2")],
                embedded("m1", 2, chunks=[vector(end=3, fill=1), vector(start=4, end=7, fill=2)]),
            ]
        ),
    )

    rows = await store.embedded_after(0, 1)
    rest = await store.embedded_after(rows[-1].log_index, 1)

    assert [(row.message_id, row.chunk, row.log_index) for row in rows] == [("m2", 0, 3)]
    assert [(row.message_id, row.chunk, row.start, row.end) for row in rest] == [("m1", 0, 0, 3), ("m1", 1, 4, 7)]
    assert (rest[0].agent_id, rest[0].text, rest[0].model, rest[0].vector) == ("a", "one two", "model-a", b"\1\0" * 4)


async def test_the_timeline_names_the_entries_of_a_session(store: PrimaryStore) -> None:
    await apply(store, entries_of([said("m1"), said("m", session_id="t"), said("m1"), said("m2"), pinned("f")]))

    assert await store.timeline(1, limit=9) == [1, 4, 5]
    assert await store.timeline(1, after=1, limit=1) == [4]


BLOB = RecallBlob(next_ordinal=300, vectors_index=1, deletions=0, data=b"sealed")


async def test_a_sealed_index_is_kept_beside_its_session(store: PrimaryStore) -> None:
    await apply(
        store, entries_of([[said(f"m{n}") for n in range(300)], [said(f"m{n}", session_id="t") for n in range(255)]])
    )
    before = await store.unsealed(256, 10)

    kept = await store.save_recall_blob(1, BLOB)

    assert kept
    assert [row.session_id for row in before] == ["s"]
    assert await store.recall_blob(1) == BLOB
    assert await store.unsealed(256, 10) == []


async def test_a_sealed_index_goes_with_the_first_message_that_is_deleted(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said(f"m{n}") for n in range(300)]]))
    await store.save_recall_blob(1, BLOB)

    await store.apply([Entry(2, encode([deleted("m7")]))])

    assert await store.recall_blob(1) is None
    assert [row.session_id for row in await store.unsealed(256, 10)] == ["s"]


@pytest.mark.parametrize("deletion", [deleted("m1"), ended()], ids=["message", "session"])
async def test_an_index_sealed_before_a_deletion_is_not_kept_after_it(
    store: PrimaryStore, deletion: SessionDeleted
) -> None:
    await apply(store, entries_of([said("m1"), deletion]))

    assert not await store.save_recall_blob(1, BLOB)
    assert await store.recall_blob(1) is None


async def test_a_deleted_session_is_gone_from_every_read(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said("m1"), embedded("m1")], said("m2"), pinned("f1"), deleted("m2")]), batch=1)
    await store.save_recall_blob(1, BLOB._replace(deletions=1))

    await store.apply([Entry(5, encode([ended()]))])

    assert await store.session("s") is None
    assert await store.messages(1, limit=9) == []
    assert await store.facts(1) == []
    assert await store.embedded_after(0, 9) == []
    assert await store.recall_blob(1) is None
    assert await store.counts() == Counts(0, 0, 0, 0, 0)


async def test_readers_see_a_batch_once_it_is_applied(store: PrimaryStore) -> None:
    for index in range(1, 20):
        await store.apply([Entry(index, encode([said(f"m{index}")]))])
        assert await store.message(1, f"m{index}") is not None
        assert store.applied_index == index


async def test_entries_that_hold_no_events_only_advance_the_index(store: PrimaryStore) -> None:
    verdicts = await store.apply([Entry(1, b""), Entry(2, b"\xff no events", term=3, kind=1)])

    assert verdicts == [[], []]
    assert (store.applied_index, store.applied_term) == (2, 3)


async def test_an_entry_that_cannot_be_decoded_stops_the_batch_and_says_which(store: PrimaryStore) -> None:
    with pytest.raises(CorruptionError, match="log entry 2"):
        await store.apply([Entry(1, encode([said("m1")])), Entry(2, b"\xff")])

    assert store.applied_index == 0
    assert await store.session("s") is None


async def test_a_store_goes_on_where_it_was_closed(tmp_path: Path) -> None:
    entries = entries_of([said("m1", at_ms=70), said("m2", at_ms=80), said("m1")])
    first = await open_store(tmp_path)
    await first.apply(entries[:2])
    await first.close()

    second = await open_store(tmp_path, "boot-2")
    [[verdict]] = await second.apply(entries[2:])

    assert (second.applied_index, second.last_at_ms, verdict.first_index) == (3, 80, 1)
    await second.close()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_nothing_lies_beside_a_closed_file(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await apply(store, entries_of([said(f"m{n}", "x" * 1000) for n in range(100)]))
    await store.close()

    assert names_in(tmp_path) == ["projections.db"]


def copy_of(tmp_path: Path, name: str) -> Path:
    """Copy the files of an open store as a kill would leave them; they are consistent between batches."""
    copied = tmp_path / name
    copied.mkdir()
    for path in tmp_path.glob("projections.db*"):
        if not path.name.endswith("-shm"):
            (copied / path.name).write_bytes(path.read_bytes())
    return copied


async def test_a_kill_between_batches_loses_nothing_and_replays_to_the_same_state(tmp_path: Path) -> None:
    entries = entries_of([said(f"m{n % 7}", "x" * n) for n in range(30)] + [deleted("m3"), ended(), said("m1")])
    store = await open_store(tmp_path)
    killed = []
    for start in range(0, len(entries), 10):
        await store.apply(entries[start : start + 10])
        killed.append(copy_of(tmp_path, f"killed-{start}"))
    digest = await store.digest()
    await store.close()

    for folder in killed:
        survivor = await open_store(folder)
        assert survivor.applied_index > 0
        if survivor.applied_index < len(entries):
            await survivor.apply(entries[survivor.applied_index :])
        assert await survivor.digest() == digest
        await survivor.close()


async def test_after_a_crash_of_the_machine_the_file_is_built_afresh(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await apply(store, entries_of([said("m1")]))
    crashed = copy_of(tmp_path, "crashed")
    await store.close()

    rebuilt = await open_store(crashed, "boot-2")

    assert rebuilt.applied_index == 0
    assert await rebuilt.session("s") is None
    await rebuilt.close()


async def test_a_file_of_another_version_is_built_afresh(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await apply(store, entries_of([said("m1")]))
    await store.close()
    with sqlite3.connect(tmp_path / "projections.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    rebuilt = await open_store(tmp_path)

    assert rebuilt.applied_index == 0
    await rebuilt.close()


@pytest.mark.parametrize("damage", ["not sqlite", "overwritten", "cut"])
async def test_a_damaged_file_is_built_afresh(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "projections.db"
    store = await open_store(tmp_path)
    await apply(store, entries_of([said(f"m{n}", "x" * 500) for n in range(100)]))
    await store.close()
    sound = path.read_bytes()
    path.write_bytes(
        {"not sqlite": b"forgotten text " * 1000, "overwritten": sound[:100] + b"\xff" * 8000, "cut": sound[:5000]}[
            damage
        ]
    )

    rebuilt = await open_store(tmp_path)

    assert rebuilt.applied_index == 0
    await rebuilt.close()
    assert b"forgotten" not in path.read_bytes()


def damage(path: Path) -> None:
    """Overwrite some pages in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 16 * 4096)


async def test_a_file_found_damaged_while_it_is_read_is_built_afresh_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "projections.db"
    store = await open_store(tmp_path)
    await apply(store, entries_of([said(f"m{n}", "x" * 500) for n in range(200)]))
    assert await store.scrub()
    damage(path)

    with pytest.raises(CorruptionError):
        await store.messages(1, limit=200)
    await store.close()

    rebuilt = await open_store(tmp_path)
    assert rebuilt.applied_index == 0
    await rebuilt.close()


async def test_the_machine_names_its_own_run(tmp_path: Path) -> None:
    store = await PrimaryStore.open(tmp_path / "projections.db")
    await apply(store, entries_of([said("m1")]))
    killed = copy_of(tmp_path, "killed")
    await store.close()

    survivor = await PrimaryStore.open(killed / "projections.db")

    assert survivor.applied_index == 1
    await survivor.close()


async def test_a_file_that_is_mostly_blanked_is_compacted_when_it_is_opened(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    batch = [[said(f"m{n}-{k}", "x" * 200) for k in range(500)] for n in range(21)]
    await apply(store, entries_of([*batch, ended(), said("kept", session_id="t")]), batch=7)
    await store.save_recall_blob(23, BLOB)
    digest = await store.digest()
    await store.close()
    before = (tmp_path / "projections.db").stat().st_size

    compacted = await open_store(tmp_path)

    assert (tmp_path / "projections.db").stat().st_size < before / 10
    assert await compacted.digest() == digest
    assert await compacted.recall_blob(23) == BLOB
    await compacted.close()
