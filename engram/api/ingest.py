"""What a text needs before it is recorded: its tokens counted, and its vector where the model runs in this process."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from engram.api.services import Services
from engram.commands import Vectors
from engram.events import Chunk

INLINE_CHARACTERS_MAX = 16 * 1024
"""Up to here the work is shorter than a few hops to a thread; beyond, it would hold up every other request."""


class Prepared(NamedTuple):
    """In the order of the texts."""

    tokens: Sequence[int]
    vectors: Sequence[Vectors | None]


async def prepare(services: Services, texts: Sequence[str]) -> Prepared:
    """Return what `texts` need; long ones are worked on in a thread."""
    if sum(map(len, texts)) <= INLINE_CHARACTERS_MAX:
        return _prepare(services, texts)
    return await asyncio.to_thread(_prepare, services, texts)


async def count_tokens(services: Services, text: str) -> int:
    """Return the tokens of `text`."""
    if len(text) <= INLINE_CHARACTERS_MAX:
        return services.tokens.count(text)
    return await asyncio.to_thread(services.tokens.count, text)


def _prepare(services: Services, texts: Sequence[str]) -> Prepared:
    tokens = services.tokens.count_all(texts)
    embedder = services.embedder
    if embedder is None:
        return Prepared(tokens, [None] * len(texts))
    started_s = services.clock.monotonic_s()
    rows = embedder.embed(texts).astype("<f2")
    seconds = services.clock.monotonic_s() - started_s
    services.metrics.embedding_duration_seconds.labels(embedder.model).observe(seconds)
    return Prepared(
        tokens,
        [
            Vectors(embedder.model, embedder.dimension, [Chunk(start=0, end=len(text), vector=row.tobytes())])
            for text, row in zip(texts, rows, strict=True)
        ],
    )
