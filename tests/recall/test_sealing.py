"""Sealing: which sessions' indexes are written down, and what comes of it."""

import asyncio

from engram.clock import SystemClock
from engram.projections.rows import RecallBlob, RecallDelta
from engram.recall.freshness import Indexes
from engram.recall.index import SessionIndex
from engram.recall.sealing import ROWS_MIN, SHARE, Sealer
from tests.recall.conversation import MemoryReads


def talk(reads: MemoryReads, messages: int, session_key: int = 1) -> None:
    for _ in range(messages):
        reads.say("the lake", session_key=session_key, numbers=[1, 0])


async def test_a_session_that_grew_is_sealed() -> None:
    reads = MemoryReads()
    talk(reads, ROWS_MIN)
    indexes = Indexes(reads, cache_bytes_max=10**8)

    sealed = await Sealer(reads, indexes, SystemClock(), rests=0).seal_due()

    blob, row = reads.sessions[1].blob, reads.row()
    indexes.close()
    assert sealed == 1
    assert blob is not None
    assert (blob.next_ordinal, blob.vectors_index, blob.deletions) == (ROWS_MIN, row.vectors_index, 0)
    assert len(SessionIndex.from_bytes(blob.data)) == ROWS_MIN


async def test_a_session_that_grew_a_little_is_left_alone() -> None:
    reads = MemoryReads()
    talk(reads, ROWS_MIN - 1)
    indexes = Indexes(reads, cache_bytes_max=10**8)

    sealed = await Sealer(reads, indexes, SystemClock(), rests=0).seal_due()

    indexes.close()
    assert (sealed, reads.sessions[1].blob) == (0, None)


async def test_a_sealed_session_is_not_sealed_again() -> None:
    reads = MemoryReads()
    talk(reads, ROWS_MIN)
    indexes = Indexes(reads, cache_bytes_max=10**8)
    sealer = Sealer(reads, indexes, SystemClock(), rests=0)
    await sealer.seal_due()

    assert await sealer.seal_due() == 0
    indexes.close()


async def test_a_long_session_waits_for_its_share() -> None:
    reads = MemoryReads()
    talk(reads, ROWS_MIN * SHARE * 2)
    indexes = Indexes(reads, cache_bytes_max=10**8)
    sealer = Sealer(reads, indexes, SystemClock(), rests=0)
    assert await sealer.seal_due() == 1

    talk(reads, ROWS_MIN)
    assert await sealer.seal_due() == 0

    talk(reads, ROWS_MIN * 2)
    assert await sealer.seal_due() == 1
    indexes.close()


async def test_sealing_goes_on_until_it_is_cancelled() -> None:
    class Counting(MemoryReads):
        def __init__(self) -> None:
            super().__init__()
            self.saved = asyncio.Queue[int]()

        async def save_recall_blob(self, session_key: int, blob: RecallBlob) -> bool:
            self.saved.put_nowait(session_key)
            return await super().save_recall_blob(session_key, blob)

    reads = Counting()
    indexes = Indexes(reads, cache_bytes_max=10**8)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Sealer(reads, indexes, SystemClock(), interval_s=0, rests=0).run())
        for key in (1, 2):
            talk(reads, ROWS_MIN, key)
            assert await reads.saved.get() == key

        task.cancel()

    assert task.cancelled()
    indexes.close()


async def test_a_session_that_lost_a_message_meanwhile_is_not_sealed() -> None:
    class Forgetting(MemoryReads):
        async def recall_delta(self, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
            delta = await super().recall_delta(session_key, next_ordinal=next_ordinal, vectors_index=vectors_index)
            self.delete(0)
            return delta

    reads = Forgetting()
    talk(reads, ROWS_MIN)
    indexes = Indexes(reads, cache_bytes_max=10**8)

    await Sealer(reads, indexes, SystemClock(), rests=0).seal_due()

    indexes.close()
    assert reads.sessions[1].blob is None


async def test_read_models_that_were_built_again_have_no_blob_and_get_one() -> None:
    reads = MemoryReads()
    talk(reads, ROWS_MIN * SHARE * 2)
    indexes = Indexes(reads, cache_bytes_max=10**8)
    sealer = Sealer(reads, indexes, SystemClock(), rests=0)
    await sealer.seal_due()
    talk(reads, ROWS_MIN)
    assert await sealer.seal_due() == 0

    reads.sessions[1].blob = None
    indexes.drop()

    assert await sealer.seal_due() == 1
    indexes.close()
