"""Worker, store, search and context together: what is written is embedded afterwards, found, and shown."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.commands import delete_message
from engram.inference.openai_embedder import OpenAIEmbedder
from engram.projections.lance_rows import Space
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.reader import Context, ContextReader
from engram.recall.search import Searcher
from engram.workers.embedding import EmbeddingWorker
from engram.workers.reembedding import Reembedded, reembed
from tests.fake_openai import FakeOpenAI
from tests.recall.rows import TOKENS
from tests.recall.stored import AT_MS, AtOnce
from tests.workers.memory import Clock, Notes

DIMENSION = 8


class Observer(Notes):
    def searched(self, stage: str, seconds: float) -> None:
        """Note nothing."""


class Node:
    """The parts of a node that remember and recall."""

    def __init__(self, store: PrimaryStore, server: FakeOpenAI) -> None:
        self.store = store
        self.server = server
        self.log = AtOnce(store, TOKENS)
        self.clock = Clock()
        self.embedder = self.connect("fake-model")
        self.searcher = Searcher(store, self.embedder, cache_bytes_max=1 << 20, observer=Observer(), clock=self.clock)
        self.worker = EmbeddingWorker(
            store,
            self.log,
            self.embedder,
            self.clock,
            random.Random(1),
            max_concurrency=2,
            claim_max=1000,
            observer=Notes(),
        )
        self.contexts = ContextReader(store, self.searcher, TOKENS, short_term_count=2)

    def connect(self, model: str) -> OpenAIEmbedder:
        return OpenAIEmbedder(
            model=model,
            dimension=DIMENSION,
            sends_dimension=False,
            base_url=self.server.url,
            api_key=None,
            clock=self.clock,
            rng=random.Random(1),
            tries_max=1,
        )

    async def read(self, query: str, *, threshold: float | None = None) -> Context:
        return await self.contexts.read(
            "s1",
            tenant="default",
            max_tokens=8000,
            similarity_threshold=threshold,
            long_term_top_k=3,
            query=query,
            now_ms=AT_MS,
            scope="session",
            format="text",
        )


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with FakeOpenAI(DIMENSION) as server:
        store = await PrimaryStore.open(tmp_path / "projections.db")
        made = Node(store, server)
        yield made
        made.searcher.close()
        await made.embedder.close()
        await store.close()


async def fill(node: Node) -> None:
    await node.log.pin("f1", "Lives in Oslo")
    for place in range(10):
        await node.log.say(f"m{place}", f"Saying number {place} is about the {place * 7}th house.")


async def test_what_waits_is_embedded_and_then_found(node: Node) -> None:
    await fill(node)
    before = await node.read("Saying number 3 is about the 21th house.")

    assert await node.worker.embed_pending()
    assert not await node.worker.embed_pending()

    after = await node.read("Saying number 3 is about the 21th house.", threshold=0.9)
    assert [item.similarity for item in before.sections[1].items] == [None] * 3
    (memory,) = after.sections[1].items
    assert (memory.id, memory.index) == ("m3", 5)
    assert memory.similarity == pytest.approx(1.0, abs=0.02)
    assert after.tokens == TOKENS.count(after.context)
    assert after.index == node.store.applied_index


async def test_vectors_are_not_given_to_a_message_that_was_forgotten(node: Node) -> None:
    await fill(node)
    (waiting, *_) = await node.store.pending_embeddings(limit=1)
    await node.log.record(delete_message(session_id="s1", message_id=waiting.message_id, at_ms=AT_MS))

    await node.worker.embed_pending()

    session = await node.store.session("s1")
    assert session is not None
    assert (session.pending_embeddings, session.message_count) == (0, 9)


async def test_a_refused_message_is_given_up_visibly(node: Node) -> None:
    node.server.poison = "number 4"
    await fill(node)

    await node.worker.embed_pending()

    session = await node.store.session("s1")
    assert session is not None
    assert (session.pending_embeddings, session.abandoned_embeddings) == (0, 1)


async def test_everything_can_be_embedded_again_by_another_model(node: Node) -> None:
    node.server.poison = "number 4"
    await fill(node)
    await node.worker.embed_pending()
    node.server.poison = None
    other = node.connect("other-model")

    done = await reembed(node.store, node.log, other, lambda _: None, clock=node.clock)

    assert done == Reembedded(embedded=10, refused=0)
    assert (await node.store.census(after=0, limit=100)).messages == {Space("other-model", other.dimension): 10}
    await other.close()
