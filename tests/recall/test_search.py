"""Searching sessions in a store: fresh, together, with a local or a remote embedder or none."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest

from engram.inference.embedder import EmbedderError, LocalEmbedder, RemoteEmbedder
from engram.recall import query_vectors as searching
from engram.recall.search import Searcher, SearchResult
from tests.recall.conversation import DAY_MS, START_MS, MemoryReads

Vector = npt.NDArray[np.float32]


class Compass:
    """A local embedder of two directions: "east" in a text points there, everything else north."""

    model = "compass"
    dimension = 2

    def embed(self, texts: Sequence[str]) -> Vector:
        return np.array([[1, 0] if "east" in text else [0, 1] for text in texts], np.float32)

    def embed_query(self, weights: Mapping[str, float]) -> Vector:
        direction: Vector = self.embed(list(weights)).sum(axis=0)
        return direction / np.float32(np.linalg.norm(direction))


class RemoteCompass:
    """The same far away: it can fail, and it can be slow."""

    model = "compass"
    dimension = 2
    chunk_bytes_max = None

    def __init__(self, *, fails: bool = False, answers: bool = True) -> None:
        self.asked: list[str] = []
        self._fails = fails
        self._answers = answers

    async def embed(self, texts: Sequence[str]) -> Vector:
        self.asked += texts
        if self._fails:
            raise EmbedderError("away", permanent=False)
        if not self._answers:
            await asyncio.Event().wait()
        return Compass().embed(texts)


class Stages:
    """Notes which stages it was told of."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def searched(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append(stage)


@asynccontextmanager
async def searcher_of(
    reads: MemoryReads, embedder: LocalEmbedder | RemoteEmbedder | None = None, stages: Stages | None = None
) -> AsyncIterator[Searcher]:
    searcher = Searcher(reads, embedder, cache_bytes_max=10**8, observer=stages or Stages())
    try:
        yield searcher
    finally:
        searcher.close()


def texts(result: SearchResult) -> list[str]:
    return [hit.message.text for hit in result.hits]


async def test_the_message_that_fits_comes_first() -> None:
    reads = MemoryReads()
    for text in ("tea in the garden", "a boat on the lake", "the old violin"):
        reads.say(text)

    async with searcher_of(reads) as searcher:
        result = await searcher.search([reads.row()], "Who has a violin?", top_k=2, now_ms=None)

    assert texts(result)[0] == "the old violin"
    assert len(result.hits) == 2
    assert result.hits[0].session == reads.row()
    assert all(0 < hit.score < 1 and hit.similarity is None for hit in result.hits)
    assert not result.degraded


async def test_a_message_is_found_by_the_next_search() -> None:
    reads = MemoryReads()
    reads.say("tea")
    async with searcher_of(reads) as searcher:
        await searcher.search([reads.row()], "violin", top_k=1, now_ms=None)
        reads.say("the old violin")

        result = await searcher.search([reads.row()], "violin", top_k=1, now_ms=None)

    assert texts(result) == ["the old violin"]


async def test_a_deleted_message_is_not_found() -> None:
    reads = MemoryReads()
    reads.say("tea")
    ordinal = reads.say("the old violin")
    async with searcher_of(reads) as searcher:
        await searcher.search([reads.row()], "violin", top_k=5, now_ms=None)
        reads.delete(ordinal)

        result = await searcher.search([reads.row()], "violin", top_k=5, now_ms=None)

    assert texts(result) == ["tea"]


async def test_a_message_deleted_after_the_row_was_read_is_left_out() -> None:
    reads = MemoryReads()
    reads.say("tea")
    ordinal = reads.say("the old violin")
    row = reads.row()
    async with searcher_of(reads) as searcher:
        await searcher.search([row], "violin", top_k=5, now_ms=None)
        reads.delete(ordinal)

        result = await searcher.search([row], "violin", top_k=5, now_ms=None)

    assert texts(result) == ["tea"]


async def test_sessions_are_searched_as_one() -> None:
    reads = MemoryReads()
    for key in (1, 2, 3):
        reads.say(f"tea number {key}", session_key=key)
    reads.say("the old violin", session_key=2)
    scope = [reads.row(key) for key in (3, 1, 2)]

    async with searcher_of(reads) as searcher:
        result = await searcher.search(scope, "violin", top_k=2, now_ms=None)

    assert (result.hits[0].session.session_id, result.hits[0].message.text) == ("s2", "the old violin")


async def test_the_order_of_the_scope_changes_nothing() -> None:
    reads = MemoryReads()
    for key in (1, 2, 3):
        reads.say("tea", session_key=key)
    scope = [reads.row(key) for key in (1, 2, 3)]

    async with searcher_of(reads) as searcher:
        forwards = await searcher.search(scope, "lake", top_k=3, now_ms=None)
        backwards = await searcher.search(scope[::-1], "lake", top_k=3, now_ms=None)

    assert forwards == backwards


async def test_no_sessions_have_no_hits() -> None:
    reads = MemoryReads()

    async with searcher_of(reads, Compass()) as searcher:
        nowhere = await searcher.search([], "lake", top_k=3, now_ms=None)
        empty = await searcher.search([reads.row()], "lake", top_k=3, now_ms=None)

    assert nowhere == empty == SearchResult([], degraded=False)


async def test_hits_below_the_least_score_are_left_out() -> None:
    reads = MemoryReads()
    for text in ("tea", "coffee", "milk", "the old violin"):
        reads.say(text)

    async with searcher_of(reads) as searcher:
        result = await searcher.search([reads.row()], "violin", top_k=5, now_ms=None, min_score=0.5)

    assert texts(result) == ["the old violin"]


async def test_a_local_embedder_finds_what_words_do_not() -> None:
    reads = MemoryReads()
    reads.say("alpha", numbers=[0, 1])
    reads.say("beta", numbers=[1, 0])
    reads.say("gamma", numbers=[0, 1])

    async with searcher_of(reads, Compass()) as searcher:
        result = await searcher.search([reads.row()], "eastwards", top_k=1, now_ms=None)

    assert texts(result) == ["beta"]
    assert result.hits[0].similarity == pytest.approx(1.0, abs=0.01)


async def test_a_query_of_stop_words_is_embedded_as_it_stands() -> None:
    reads = MemoryReads()
    for numbers in ([1, 0], [0, 1]):
        reads.say("alpha", numbers=numbers)

    async with searcher_of(reads, Compass()) as searcher:
        result = await searcher.search([reads.row()], "who are you?", top_k=2, now_ms=None)

    assert [hit.similarity for hit in result.hits] == pytest.approx([1.0, 0.0], abs=0.01)


async def test_a_remote_embedder_is_asked_once_for_a_query() -> None:
    reads, embedder = MemoryReads(), RemoteCompass()
    reads.say("alpha", numbers=[0, 1])
    reads.say("beta", numbers=[1, 0])

    async with searcher_of(reads, embedder) as searcher:
        for _ in range(2):
            await searcher.search([reads.row()], "to the east", top_k=1, now_ms=None)
        result = await searcher.search([reads.row()], "to the east", top_k=1, now_ms=None)

    assert embedder.asked == ["to the east"]
    assert texts(result) == ["beta"]
    assert not result.degraded


async def test_only_the_latest_queries_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "QUERY_CACHE_MAX", 2)
    reads, embedder = MemoryReads(), RemoteCompass()

    async with searcher_of(reads, embedder) as searcher:
        for query in ("a", "b", "a", "c", "a", "b"):
            await searcher.search([reads.row()], query, top_k=1, now_ms=None)

    assert embedder.asked == ["a", "b", "c", "b"]


async def test_a_failing_embedder_leaves_words_and_says_so() -> None:
    reads, stages = MemoryReads(), Stages()
    reads.say("tea")
    reads.say("the old violin", numbers=[1, 0])

    async with searcher_of(reads, RemoteCompass(fails=True), stages) as searcher:
        result = await searcher.search([reads.row()], "violin", top_k=1, now_ms=None)

    assert result.degraded
    assert texts(result) == ["the old violin"]
    assert result.hits[0].similarity is None


async def test_a_slow_embedder_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "QUERY_EMBEDDING_S", 0.001)
    reads = MemoryReads()
    reads.say("the old violin")

    async with searcher_of(reads, RemoteCompass(answers=False)) as searcher:
        result = await searcher.search([reads.row()], "violin", top_k=1, now_ms=None)

    assert result.degraded
    assert texts(result) == ["the old violin"]


async def test_times_are_relative_to_now_or_to_the_latest_message() -> None:
    reads = MemoryReads()
    for days in range(4):
        reads.say("we saw the lake")
        stored = reads.sessions[1].messages
        stored[days] = stored[days]._replace(occurred_at_ms=START_MS + days * 10 * DAY_MS)

    async with searcher_of(reads) as searcher:
        latest = await searcher.search([reads.row()], "What did we see 10 days ago?", top_k=1, now_ms=None)
        given = START_MS + 20 * DAY_MS
        then = await searcher.search([reads.row()], "What did we see 10 days ago?", top_k=1, now_ms=given)

    assert [hit.message.ordinal for hit in latest.hits] == [2]
    assert [hit.message.ordinal for hit in then.hits] == [1]


async def test_many_searches_at_a_time_see_the_same() -> None:
    reads = MemoryReads()
    for number in range(50):
        reads.say(f"tea number {number}", numbers=[1, 0])

    async with searcher_of(reads, Compass()) as searcher:
        found = await asyncio.gather(
            *(searcher.search([reads.row()], "number 7", top_k=3, now_ms=None) for _ in range(20))
        )

    assert all(result == found[0] for result in found)


async def test_every_stage_is_timed() -> None:
    reads, stages = MemoryReads(), Stages()
    reads.say("tea")

    async with searcher_of(reads, RemoteCompass(), stages) as searcher:
        await searcher.search([reads.row()], "tea", top_k=1, now_ms=None)

    assert sorted(stages.seen) == ["embed", "fetch", "load", "rank"]
