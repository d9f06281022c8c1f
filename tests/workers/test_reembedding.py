"""Embedding everything again, with another model."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.inference.embedder import EmbedderError, Matrix
from engram.inference.openai_embedder import OpenAIEmbedder
from engram.workers.reembedding import PAGE_MESSAGES, InThread, Reembedded, reembed
from tests.fake_openai import FakeOpenAI, refuses
from tests.workers.memory import Clock, Memory

DIMENSION = 4


class Letters:
    """A local model: counts four letters."""

    model = "letters"
    dimension = DIMENSION

    def embed(self, texts: Sequence[str]) -> Matrix:
        return np.array([[text.count(letter) for letter in "etao"] for text in texts], np.float32)

    def embed_query(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        counts: NDArray[np.float32] = self.embed([" ".join(weights)])[0]
        return counts


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI(DIMENSION) as running:
        yield running


@pytest.fixture
async def embedder(server: FakeOpenAI) -> AsyncIterator[OpenAIEmbedder]:
    made = OpenAIEmbedder(
        model="fake-model",
        dimension=DIMENSION,
        sends_dimension=False,
        base_url=server.url,
        api_key=None,
        clock=Clock(),
        rng=random.Random(1),
        tries_max=1,
    )
    yield made
    await made.close()


def numbered(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


@pytest.mark.parametrize("entry_messages", [1, 7, 500])
async def test_every_message_gets_vectors_of_the_other_model_once(entry_messages: int) -> None:
    count = 2 * PAGE_MESSAGES + 3
    memory = Memory(numbered(count), entry_messages=entry_messages)
    steps: list[int] = []

    done = await reembed(memory, memory, InThread(Letters()), steps.append, clock=Clock())

    assert done == Reembedded(embedded=count, refused=0)
    assert {event.model for event in memory.vectors.values()} == {"letters"}
    assert len(memory.vectors) == sum(map(len, memory.entries)) == sum(steps) == count


async def test_a_long_text_stays_whole_for_a_model_that_takes_it() -> None:
    memory = Memory(["e " * 50_000])

    await reembed(memory, memory, InThread(Letters()), lambda _: None, clock=Clock())

    assert len(memory.vectors["m0"].chunks) == 1


async def test_messages_that_have_such_vectors_are_left_alone(server: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    memory = Memory(numbered(3))
    await reembed(memory, memory, embedder, lambda _: None, clock=Clock())
    memory.append("one more")

    done = await reembed(memory, memory, embedder, lambda _: None, clock=Clock())

    assert done == Reembedded(embedded=1, refused=0)
    assert server.texts == [*numbered(3), "one more"]


async def test_a_refused_message_is_counted_and_stops_nobody(server: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    server.poison = "text 1500"
    memory = Memory(numbered(2000), entry_messages=400)

    done = await reembed(memory, memory, embedder, lambda _: None, clock=Clock())

    assert done == Reembedded(embedded=1999, refused=1)
    assert memory.abandoned == {}


async def test_it_goes_on_where_an_outage_stopped_it(server: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    server.always = refuses(401)
    memory = Memory(numbered(10))

    with pytest.raises(EmbedderError, match="it refuses the key"):
        await reembed(memory, memory, embedder, lambda _: None, clock=Clock())
    server.always = None

    assert await reembed(memory, memory, embedder, lambda _: None, clock=Clock()) == Reembedded(10, 0)
