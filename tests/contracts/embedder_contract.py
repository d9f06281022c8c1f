"""What every embedder promises, wherever it runs: one suite, run by each of them."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from engram.commands import TEXT_BYTES_MAX
from engram.inference.embedder import Matrix, RemoteEmbedder
from engram.projections.lance_rows import Space
from engram.recall.query_vectors import Embedder, QueryVectors

TEXTS = [
    "We painted the lake at sunset",
    "lake",
    "Der Zug nach Hamburg war verspätet",
    "湖のほとりで絵を描いた",
    "שלום עולם",
    "😀😀",
    "line one\nline two\ttab",
    "a\x00b",
    "ﬁ Å e\u0301",
]


def lengths(vectors: Matrix) -> list[float]:
    return [float(length) for length in np.linalg.norm(vectors.astype(np.float64), axis=1)]


class EmbedderContract:
    """Subclasses give a fixture `embedder`; one that answers at once is asked for queries as `asked`."""

    @pytest.fixture
    def asked(self, embedder: RemoteEmbedder) -> Embedder:
        return embedder

    def test_it_has_a_name_and_a_width_that_fit_an_event(self, embedder: RemoteEmbedder) -> None:
        assert 0 < len(embedder.model) <= 200
        assert 0 < embedder.dimension <= 65_536
        assert embedder.chunk_bytes_max is None or embedder.chunk_bytes_max >= 100

    async def test_no_text_has_no_rows(self, embedder: RemoteEmbedder) -> None:
        assert (await embedder.embed([])).shape == (0, embedder.dimension)

    async def test_every_text_has_a_row_of_length_one(self, embedder: RemoteEmbedder) -> None:
        vectors = await embedder.embed(TEXTS)

        assert vectors.shape == (len(TEXTS), embedder.dimension)
        assert vectors.dtype == np.float32
        assert lengths(vectors) == pytest.approx([1.0] * len(TEXTS), abs=1e-5)

    async def test_a_text_has_the_same_row_alone_and_in_any_company(self, embedder: RemoteEmbedder) -> None:
        together, backwards = await embedder.embed(TEXTS), await embedder.embed(TEXTS[::-1])
        alone = np.concatenate([await embedder.embed([text]) for text in TEXTS])

        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_allclose(backwards[::-1], alone, atol=1e-5)

    async def test_texts_that_differ_have_rows_that_differ(self, embedder: RemoteEmbedder) -> None:
        first, second, third = await embedder.embed(TEXTS[:3])

        assert max(float(first @ second), float(first @ third), float(second @ third)) < 0.99

    async def test_calls_at_the_same_time_do_not_mix(self, embedder: RemoteEmbedder) -> None:
        parts: Sequence[Sequence[str]] = [TEXTS[place : place + 2] for place in range(len(TEXTS) - 1)]

        answers = await asyncio.gather(*map(embedder.embed, parts))

        for part, answer in zip(parts, answers, strict=True):
            np.testing.assert_allclose(answer, await embedder.embed(part), atol=1e-5)

    async def test_a_row_is_still_one_in_the_half_floats_of_an_event(self, embedder: RemoteEmbedder) -> None:
        halves = (await embedder.embed(TEXTS)).astype("<f2")

        assert np.isfinite(halves).all()
        assert lengths(halves.astype(np.float32)) == pytest.approx([1.0] * len(TEXTS), abs=0.01)

    async def test_the_longest_message_has_a_row(self, embedder: RemoteEmbedder) -> None:
        text = ("lake sunset " * (TEXT_BYTES_MAX // 12 + 1))[:TEXT_BYTES_MAX]

        assert lengths(await embedder.embed([text])) == pytest.approx([1.0], abs=1e-4)

    async def test_a_query_has_a_vector_of_the_same_space(self, embedder: RemoteEmbedder, asked: Embedder) -> None:
        query = "the lake at sunset"
        queries = QueryVectors([asked])
        vectors = queries.of(query, await queries.ask(query))
        space = Space(embedder.model, embedder.dimension)
        first, again, plain = (vectors(weights)[space] for weights in ({"lake": 3.0, "sunset": 1.0},) * 2 + ({},))

        assert first.shape == plain.shape == (embedder.dimension,)
        assert lengths(np.stack([first, plain])) == pytest.approx([1.0, 1.0], abs=1e-4)
        np.testing.assert_array_equal(first, again)
        near, far = await embedder.embed([query, "quarterly tax report"])
        assert float(first @ near) > float(first @ far)
        assert float(plain @ near) > float(plain @ far)
