"""Indexes brought up to date: what is read, what is folded, what is built afresh."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engram.projections.rows import RecallBlob, RecallDelta
from engram.recall.freshness import PAGE_ROWS, SLICE_CHARS, SLICE_ROWS, SLICE_VECTORS, Indexes, slices
from tests.recall.conversation import MemoryReads, index_of, said, vector


@asynccontextmanager
async def indexes_of(reads: MemoryReads, *, cache_bytes_max: int = 10**8) -> AsyncIterator[Indexes]:
    indexes = Indexes(reads, cache_bytes_max=cache_bytes_max)
    try:
        yield indexes
    finally:
        indexes.close()


async def sealed(indexes: Indexes, reads: MemoryReads) -> RecallBlob:
    row = reads.row()
    cached = await indexes.current(row)
    return RecallBlob(row.next_ordinal, row.vectors_index, row.deletions, cached.index.to_bytes())


async def test_an_index_that_is_current_costs_no_read() -> None:
    reads = MemoryReads()
    reads.say("the lake", numbers=[1, 0])
    async with indexes_of(reads) as indexes:
        first = await indexes.current(reads.row())
        reads.asked.clear()

        again = await indexes.current(reads.row())

    assert again is first
    assert reads.asked == []


async def test_what_came_since_is_folded() -> None:
    reads = MemoryReads()
    reads.say("the lake")
    async with indexes_of(reads) as indexes:
        await indexes.current(reads.row())
        reads.say("the garden", numbers=[1, 0])
        reads.asked.clear()

        cached = await indexes.current(reads.row())

    assert len(cached.index) == 2
    assert reads.asked == ["recall_delta"]


async def test_vectors_that_come_later_are_folded() -> None:
    reads = MemoryReads()
    reads.say("the lake")
    async with indexes_of(reads) as indexes:
        before = (await indexes.current(reads.row())).index.to_bytes()
        reads.embed(0, [1, 0])

        cached = await indexes.current(reads.row())

    assert cached.index.to_bytes() != before


async def test_a_deletion_builds_the_index_without_the_row() -> None:
    reads = MemoryReads()
    for text in ("the lake", "the secret garden", "tea"):
        reads.say(text, numbers=[1, 0])
    async with indexes_of(reads) as indexes:
        await indexes.current(reads.row())
        reads.delete(1)

        cached = await indexes.current(reads.row())

    stored = reads.sessions[1]
    expected = index_of(list(stored.messages.values()), [row for _, row in stored.vectors.values()])
    assert cached.index.to_bytes() == expected.to_bytes()


async def test_a_deleted_last_message_is_not_looked_for_again() -> None:
    reads = MemoryReads()
    reads.say("the lake")
    reads.say("tea")
    reads.delete(1)
    async with indexes_of(reads) as indexes:
        await indexes.current(reads.row())
        reads.asked.clear()

        await indexes.current(reads.row())

    assert reads.asked == []


async def test_a_sealed_index_is_opened_and_caught_up() -> None:
    reads = MemoryReads()
    reads.say("the lake", numbers=[1, 0])
    async with indexes_of(reads) as indexes:
        reads.sessions[1].blob = await sealed(indexes, reads)
    reads.say("the garden", numbers=[0, 1])
    del reads.sessions[1].messages[0]  # Only the blob knows it now.

    async with indexes_of(reads) as indexes:
        cached = await indexes.current(reads.row())

    assert len(cached.index) == 2


async def test_a_damaged_blob_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    reads = MemoryReads()
    reads.say("the lake")
    reads.sessions[1].blob = RecallBlob(1, 0, 0, b"damaged")

    async with indexes_of(reads) as indexes:
        cached = await indexes.current(reads.row())

    assert len(cached.index) == 1
    assert "built afresh" in caplog.text


async def test_a_blob_from_before_a_deletion_is_not_used() -> None:
    reads = MemoryReads()
    reads.say("the lake")
    reads.say("the secret")
    async with indexes_of(reads) as indexes:
        blob = await sealed(indexes, reads)
    reads.delete(1)
    reads.sessions[1].blob = blob

    async with indexes_of(reads) as indexes:
        cached = await indexes.current(reads.row())

    assert len(cached.index) == 1


async def test_a_long_session_is_read_in_pages() -> None:
    reads = MemoryReads()
    for number in range(PAGE_ROWS * 2 + 10):
        reads.say(f"word{number}", numbers=[1, 0])

    async with indexes_of(reads) as indexes:
        cached = await indexes.current(reads.row())

    assert reads.asked == ["recall_blob", "messages", "messages", "recall_delta"]
    stored = reads.sessions[1]
    expected = index_of(list(stored.messages.values()), [row for _, row in stored.vectors.values()])
    assert cached.index.to_bytes() == expected.to_bytes()


async def test_a_session_that_is_gone_ends_the_paging() -> None:
    reads = MemoryReads()
    row = reads.row()._replace(next_ordinal=PAGE_ROWS * 3)

    async with indexes_of(reads) as indexes:
        cached = await indexes.current(row)

    assert len(cached.index) == 0


async def test_searches_at_a_time_load_a_session_once() -> None:
    reads = MemoryReads()
    reads.say("the lake")

    async with indexes_of(reads) as indexes:
        found = await asyncio.gather(*(indexes.current(reads.row()) for _ in range(10)))

    assert reads.asked == ["recall_blob", "recall_delta"]
    assert all(cached is found[0] for cached in found)


async def test_what_was_dropped_from_the_cache_is_loaded_again() -> None:
    reads = MemoryReads()
    reads.say("the lake", session_key=1)
    reads.say("the garden", session_key=2)
    async with indexes_of(reads, cache_bytes_max=1) as indexes:
        await indexes.current(reads.row(1))
        await indexes.current(reads.row(2))

        cached = await indexes.current(reads.row(1))

        assert len(cached.index) == 1
        assert indexes.size_bytes == cached.index.size_bytes


async def test_a_load_that_failed_is_done_again() -> None:
    class Failing(MemoryReads):
        async def recall_delta(self, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
            delta = await super().recall_delta(session_key, next_ordinal=next_ordinal, vectors_index=vectors_index)
            if self.asked.count("recall_delta") == 2:
                raise OSError("away")
            return delta

    reads = Failing()
    reads.say("the lake")
    async with indexes_of(reads) as indexes:
        await indexes.current(reads.row())
        reads.say("tea")
        with pytest.raises(OSError, match="away"):
            await indexes.current(reads.row())

        cached = await indexes.current(reads.row())

    assert len(cached.index) == 2


def test_a_small_delta_is_folded_whole() -> None:
    delta = RecallDelta([said(0, "tea")], [vector(0, [1, 0])])

    assert list(slices(delta)) == [delta]


def test_a_large_delta_is_cut_into_slices() -> None:
    messages = [said(ordinal, "tea") for ordinal in range(2 * SLICE_ROWS + 1)]
    vectors = [vector(0, [1, 0])] * (SLICE_VECTORS + 1)

    parts = list(slices(RecallDelta(messages, vectors)))

    assert [len(part.messages) for part in parts] == [SLICE_ROWS, SLICE_ROWS, 1, 0]
    assert [len(part.vectors) for part in parts] == [0, 0, SLICE_VECTORS, 1]
    assert [row for part in parts for row in part.messages] == messages


def test_long_messages_make_short_slices() -> None:
    messages = [said(ordinal, "x" * SLICE_CHARS) for ordinal in range(3)]

    assert [len(part.messages) for part in slices(RecallDelta(messages, []))] == [1, 1, 1]


def test_an_empty_delta_has_no_slices() -> None:
    assert list(slices(RecallDelta([], []))) == []
