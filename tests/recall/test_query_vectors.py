"""The vectors of a query: of each embedder in use, those of MiniLM by the weights of its words."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec

import numpy as np
import pytest

from engram.inference import minilm
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.embedder import Matrix
from engram.inference.minilm import HINT, MiniLmEmbedder
from engram.projections.lance_rows import Space
from engram.recall.query_vectors import QueryVectors, space_of
from engram.recall.search import Searcher
from tests.recall.conversation import MemoryReads
from tests.recall.test_search import Compass, RemoteCompass, Stages

HAS_MINILM = find_spec(minilm.PACKAGE) is not None and find_spec(minilm.RUNTIME) is not None
needs_minilm = pytest.mark.skipif(not HAS_MINILM, reason=f"NOT CHECKED: the extra is not installed: {HINT}")


class Wide(RemoteCompass):
    model = "wide"
    dimension = 3

    async def embed(self, texts: Sequence[str]) -> Matrix:
        rows = await super().embed(texts)
        return np.hstack([rows, np.zeros((len(rows), 1), np.float32)])


@pytest.fixture
async def minilm_embedder() -> AsyncIterator[MiniLmEmbedder]:
    made = await asyncio.to_thread(MiniLmEmbedder)
    yield made
    await made.close()


async def test_every_embedder_in_use_gives_a_vector() -> None:
    queries = QueryVectors([Compass(), Wide()])

    vectors = queries.of("to the east", await queries.ask("to the east"))({"east": 1.0})

    assert {space: vector.tolist() for space, vector in vectors.items()} == {
        Space("compass", 2): [1.0, 0.0],
        Space("wide", 3): [1.0, 0.0, 0.0],
    }


async def test_one_that_fails_leaves_the_others_and_is_told() -> None:
    queries = QueryVectors([Compass(), Wide(fails=True)])

    asked = await queries.ask("to the east")

    assert asked.degraded
    assert list(queries.of("to the east", asked)({"east": 1.0})) == [Space("compass", 2)]


async def test_who_stays_in_use_remembers_what_it_was_asked() -> None:
    old, new = RemoteCompass(), Wide()
    queries = QueryVectors([old])
    await queries.ask("east")

    queries.use([new, old])
    await queries.ask("east")
    queries.use([new])
    await queries.ask("east")

    assert (old.asked, new.asked) == (["east"], ["east"])


async def test_a_new_one_of_the_same_name_is_asked_anew() -> None:
    queries = QueryVectors([RemoteCompass()])
    await queries.ask("east")
    other = RemoteCompass()

    queries.use([other])
    await queries.ask("east")

    assert other.asked == ["east"]


async def test_a_searcher_finds_what_either_embedder_has_read_and_says_when_one_is_away() -> None:
    reads = MemoryReads()
    for number in range(6):
        reads.say(f"alpha{number}", numbers=[0, 1])
    reads.say("beta", numbers=[1, 0])
    reads.embed(2, [1, 0, 0], model="wide")
    away = Wide(fails=True)
    searcher = Searcher(reads, Compass(), cache_bytes_max=1_000_000, observer=Stages())
    searcher.use([Wide(), Compass()])

    both = await searcher.search([reads.row()], "eastwards", top_k=2, now_ms=None)
    searcher.use([away, Compass()])
    one = await searcher.search([reads.row()], "east side", top_k=1, now_ms=None)
    searcher.use([Compass()], lacks=True)
    lacking = await searcher.search([reads.row()], "east side", top_k=1, now_ms=None)
    searcher.close()

    assert {hit.message.text for hit in both.hits} == {"beta", "alpha2"}
    assert not both.degraded
    assert one.degraded
    assert lacking.degraded
    assert [hit.message.text for hit in one.hits] == ["beta"]


@needs_minilm
async def test_minilm_reads_a_query_by_the_weights_of_its_words(minilm_embedder: MiniLmEmbedder) -> None:
    queries = QueryVectors([minilm_embedder])
    query = "Did the doctor take the train?"
    vectors = queries.of(query, await queries.ask(query))
    space = space_of(minilm_embedder)
    doctor, train = await minilm_embedder.embed(["a physician", "a railway"])

    of_doctor, of_train = vectors({"doctor": 5.0})[space], vectors({"train": 5.0})[space]

    assert queries.has_to_wait
    assert float(of_doctor @ doctor) > float(of_train @ doctor)
    assert float(of_train @ train) > float(of_doctor @ train)


@needs_minilm
async def test_a_searcher_finds_by_minilm_and_the_builtin_one_at_once(minilm_embedder: MiniLmEmbedder) -> None:
    builtin = await asyncio.to_thread(BuiltinEmbedder)
    said = ["The physician gave her medication", "We sailed across the lake", "Quarterly taxes are due in May"]
    reads = MemoryReads()
    rows = [builtin.embed(said[:2])[0], *(await minilm_embedder.embed(said[1:]))]
    for text in said:
        reads.say(text)
    reads.embed(0, rows[0].tolist(), model=builtin.model)
    for ordinal in (1, 2):
        reads.embed(ordinal, rows[ordinal].tolist(), model=minilm_embedder.model)
    searcher = Searcher(reads, builtin, cache_bytes_max=1_000_000, observer=Stages())
    searcher.use([minilm_embedder, builtin])

    doctor = await searcher.search([reads.row()], "a doctor prescribing pills", top_k=1, now_ms=None)
    boat = await searcher.search([reads.row()], "boating", top_k=1, now_ms=None)
    searcher.close()

    assert [hit.message.text for hit in doctor.hits] == [said[0]]
    assert [hit.message.text for hit in boat.hits] == [said[1]]
    assert all(hit.similarity is not None for hit in (*doctor.hits, *boat.hits))
