"""The vectors of a query: one of each model that made vectors of what is searched.

Usually that is one model. While messages are moved from one to another it is both: each says how near it sees the
messages that it has read itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeGuard

from engram.inference.embedder import EmbedderError, LocalEmbedder, Pool, QueryReader, RemoteEmbedder
from engram.projections.lance_rows import Space
from engram.recall.spaces import Towards
from engram.recall.vectors import Floats

QUERY_EMBEDDING_S = 2.0
"""How long a search waits for a remote embedder before it answers without its vectors, and says so."""

QUERY_CACHE_MAX = 256
"""Queries whose remote vectors are remembered: 1.5 MB at 1536 numbers each; 25 MB at most of a QueryReader's."""

QUERY_CHARS_MAX = 8000
"""Of a longer query a remote embedder gets the beginning: no model reads more than 8191 tokens."""

Embedder = LocalEmbedder | RemoteEmbedder


class Pools(NamedTuple):
    """What the embedders that had to be waited for made of a query."""

    pools: Mapping[Space, Pool]
    degraded: bool
    """Whether one of them failed: what it has read is found by its words and time only."""


NO_POOLS: Final = Pools({}, degraded=False)


class QueryVectors:
    """Asks the embedders in use."""

    def __init__(self, embedders: Sequence[Embedder]) -> None:
        self._local: dict[Space, LocalEmbedder] = {}
        self._remote: dict[Space, _Remembered] = {}
        self.use(embedders)

    def use(self, embedders: Sequence[Embedder]) -> None:
        """Ask these from now on. What those of them that stay have been asked lately is remembered."""
        self._local = {space_of(embedder): embedder for embedder in embedders if is_local(embedder)}
        known = self._remote
        self._remote = {}
        for embedder in embedders:
            if is_remote(embedder):
                space = space_of(embedder)
                before = known.get(space)
                stays = before is not None and before.embedder is embedder
                self._remote[space] = before if before is not None and stays else _Remembered(embedder)

    @property
    def has_to_wait(self) -> bool:
        """Whether there is an embedder that cannot answer at once."""
        return bool(self._remote)

    async def ask(self, query: str) -> Pools:
        """Ask those that have to be waited for, all at a time."""
        remote = dict(self._remote)
        answers = await asyncio.gather(*(remembered.of(query) for remembered in remote.values()))
        pools = {space: pool for space, pool in zip(remote, answers, strict=True) if pool is not None}
        return Pools(pools, degraded=len(pools) < len(remote))

    def of(self, query: str, asked: Pools) -> Callable[[Mapping[str, float]], Towards]:
        """Return what makes the query's vectors from its words' weights; any thread may call it."""
        local = dict(self._local)

        def vectors(weights: Mapping[str, float]) -> Towards:
            made = {space: _vector(embedder, query, weights) for space, embedder in local.items()}
            return made | {space: pool(weights) for space, pool in asked.pools.items()}

        return vectors


class _Remembered:
    """Vectors of queries from a remote embedder, with a deadline, the latest remembered."""

    def __init__(self, embedder: RemoteEmbedder) -> None:
        self.embedder = embedder
        self._known: OrderedDict[str, Pool] = OrderedDict()

    async def of(self, query: str) -> Pool | None:
        """Return what makes a query's vector; None when the embedder fails or takes too long."""
        text = query[:QUERY_CHARS_MAX]
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
            return known
        try:
            async with asyncio.timeout(QUERY_EMBEDDING_S):
                pool = await self._read(text)
        except (EmbedderError, TimeoutError):
            return None
        self._known[text] = pool
        if len(self._known) > QUERY_CACHE_MAX:
            self._known.popitem(last=False)
        return pool

    async def _read(self, text: str) -> Pool:
        if isinstance(self.embedder, QueryReader):
            return await self.embedder.read_query(text)
        vector: Floats = (await self.embedder.embed([text]))[0]
        return lambda _: vector


def space_of(embedder: Embedder) -> Space:
    """Return what an embedder's vectors can be compared with."""
    return Space(embedder.model, embedder.dimension)


def _vector(local: LocalEmbedder, query: str, weights: Mapping[str, float]) -> Floats:
    # A query without terms ("who are you", an emoji) has no weights; its plain vector still says something.
    vector: Floats = local.embed_query(weights) if weights else local.embed([query])[0]
    return vector


def is_local(embedder: Embedder) -> TypeGuard[LocalEmbedder]:
    """Return whether an embedder answers at once."""
    return hasattr(embedder, "embed_query")


def is_remote(embedder: Embedder) -> TypeGuard[RemoteEmbedder]:
    """Return whether an embedder has to be waited for."""
    return not is_local(embedder)
