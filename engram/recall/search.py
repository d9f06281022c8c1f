"""Searching: the indexes of a scope brought up to date, ranked by the recipe, and the messages that were found."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engram.clock import Clock, SystemClock
from engram.inference.embedder import LocalEmbedder, RemoteEmbedder
from engram.projections.past import Cut
from engram.projections.rows import MessageRow, SessionRow
from engram.recall import filters, freshness
from engram.recall.explanation import HitExplained, ScopeExplained, rank_and_explain
from engram.recall.filters import Condition, Labels
from engram.recall.index import SessionIndex
from engram.recall.labels import LabelCache
from engram.recall.labels import Reads as LabelReads
from engram.recall.past_index import as_it_was
from engram.recall.query_vectors import NO_POOLS, Pools, QueryVectors
from engram.recall.rank import QUERY_WORDS_MAX, Ranked, rank, understand
from engram.recall.spaces import Towards
from engram.recall.terms import query_terms
from engram.recall.wide import SCOPE_ROWS_MAX, Chooser, Chosen, Neighbours

NO_CUTS: Mapping[int, Cut] = {}


class Reads(freshness.Reads, LabelReads, Protocol):
    """The part of the primary store that searching reads."""

    async def messages_at(self, wanted: Sequence[tuple[int, int]]) -> list[MessageRow]:
        """Return messages by (session key, ordinal) in the order of `wanted`; deleted ones are left out."""


class Observer(Protocol):
    """Told how long each stage of a search took: embed, choose, load, filter, rank, fetch."""

    def searched(self, stage: str, seconds: float) -> None:
        """Take note of one stage of one search."""


class Hit(NamedTuple):
    """A message that was found."""

    session: SessionRow
    message: MessageRow
    score: float
    """How well it fits, between 0 and 1."""
    similarity: float | None
    """Cosine of query and text; None without vectors."""
    explained: HitExplained | None = None
    """Only when asked for."""


class SearchResult(NamedTuple):
    """What a search found."""

    hits: list[Hit]
    """Best first."""
    degraded: bool
    """Whether the query lacked a vector because an embedder failed, or is not to be had here."""
    explained: ScopeExplained | None = None
    """Only when asked for."""
    sessions_left_out: int = 0
    """Not searched, because the scope is too wide."""


class _Asked(NamedTuple):
    """What a search asks of the indexes."""

    query: str
    now_ms: int | None
    top_k: int
    where: Condition | None
    explain: bool


class _Part(NamedTuple):
    """One session of a scope, as it is searched."""

    session: SessionRow
    whole: SessionIndex
    cut: Cut | None
    labels: Labels | None


class _Best(NamedTuple):
    """What the indexes answer."""

    rows: list[Ranked]
    explained: list[HitExplained]
    messages: int
    """In the scope."""
    fitting: int
    """Those of them that fit the filter."""


class Searcher:
    """Searches any number of sessions as one. Any number of searches may run at a time."""

    def __init__(
        self,
        reads: Reads,
        embedder: LocalEmbedder | RemoteEmbedder | None,
        neighbours: Neighbours | None = None,
        *,
        cache_bytes_max: int,
        observer: Observer,
        clock: Clock | None = None,
        scope_rows_max: int = SCOPE_ROWS_MAX,
    ) -> None:
        self._reads = reads
        self._chooser = Chooser(neighbours, scope_rows_max)
        self._vectors = QueryVectors([] if embedder is None else [embedder])
        self._lacks = False
        self._observer = observer
        self._clock = clock if clock is not None else SystemClock()
        self._labels = LabelCache(reads)
        self.indexes = freshness.Indexes(reads, cache_bytes_max=cache_bytes_max)
        """Also for the sealer: every index has one owner."""

    def close(self) -> None:
        """End the thread that owns the indexes; searches that wait for it are cancelled. Does not block the loop."""
        self.indexes.close()

    def use(self, embedders: Sequence[LocalEmbedder | RemoteEmbedder], *, lacks: bool = False) -> None:
        """Ask these embedders for the vectors of queries from now on: one for each model that made vectors.

        `lacks`: for some model there is none here, which every answer says.
        """
        self._vectors.use(embedders)
        self._lacks = lacks

    def drop(self) -> None:
        """Forget all that was read: the read models were built again."""
        self.indexes.drop()
        self._labels.clear()

    async def search(
        self,
        scope: Sequence[SessionRow],
        query: str,
        *,
        top_k: int,
        now_ms: int | None,
        min_score: float | None = None,
        cuts: Mapping[int, Cut] = NO_CUTS,
        where: Condition | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Return the best `top_k` messages of the sessions in `scope`, by statistics of all of them together.

        Of a scope with more messages than `scope_rows_max` some sessions are chosen, and only they are searched.
        Everything that the rows say has happened is seen. Times in the query are relative to `now_ms`; None: to the
        scope's latest message. Hits below `min_score` are left out. `cuts` leave less of a session, by its key. Only
        messages that fit `where` are found, however far down they stand; the statistics stay those of the scope.
        """
        sessions = sorted(scope, key=lambda session: session.session_key)
        took_s: dict[str, float] = {}
        async with asyncio.TaskGroup() as group:
            embedding = group.create_task(self._embedded(query, took_s)) if self._vectors.has_to_wait else None
            chosen = Chosen(sessions)
            if self._chooser.must_choose(sessions):
                towards = NO_POOLS if embedding is None else await embedding
                chosen = await self._choose(sessions, query, towards, where, took_s, is_past=bool(cuts))
                sessions = list(chosen.sessions)
            with self._timed("load", took_s):
                cached = [await self.indexes.current(session) for session in sessions]
        asked_of = NO_POOLS if embedding is None else embedding.result()
        labels = await self._labels_of(sessions, where, took_s)
        parts = [
            _Part(session, entry.index, cuts.get(session.session_key), label)
            for session, entry, label in zip(sessions, cached, labels, strict=True)
        ]
        asked = _Asked(query, now_ms, top_k, where, explain)
        with self._timed("rank", took_s):
            best = await self.indexes.run(_best, parts, asked, self._vectors.of(query, asked_of))
        ranked = [row for row in best.rows if min_score is None or row.score >= min_score]
        with self._timed("fetch", took_s):
            hits = await self._hits(sessions, ranked, best.explained)
        explained = _explained(chosen, best, len(ranked), took_s) if explain else None
        return SearchResult(hits, asked_of.degraded or self._lacks, explained, chosen.sessions_left_out)

    async def _choose(
        self,
        sessions: Sequence[SessionRow],
        query: str,
        pools: Pools,
        where: Condition | None,
        took_s: dict[str, float],
        *,
        is_past: bool,
    ) -> Chosen:
        """Return which sessions of a wide scope to search. What was nearest in the past nobody knows any more."""
        with self._timed("choose", took_s):
            if is_past:
                return await self._chooser.choose(sessions, {}, where)
            # How rare the words are in the scope is not known yet: each counts the same.
            weights = dict.fromkeys(query_terms(query, words_max=QUERY_WORDS_MAX), 1.0)
            towards = await self.indexes.run(self._vectors.of(query, pools), weights)
            return await self._chooser.choose(sessions, towards, where)

    async def _labels_of(
        self, sessions: Sequence[SessionRow], where: Condition | None, took_s: dict[str, float]
    ) -> Sequence[Labels | None]:
        if where is None or not filters.needs_labels(where):
            return [None] * len(sessions)
        with self._timed("filter", took_s):
            return [await self._labels.of(session) for session in sessions]

    async def _embedded(self, query: str, took_s: dict[str, float]) -> Pools:
        with self._timed("embed", took_s):
            return await self._vectors.ask(query)

    async def _hits(
        self, sessions: Sequence[SessionRow], ranked: Sequence[Ranked], explained: Sequence[HitExplained]
    ) -> list[Hit]:
        if not ranked:
            return []
        found = {(sessions[row.place].session_key, row.ordinal): place for place, row in enumerate(ranked)}
        messages = await self._reads.messages_at(list(found))
        hits = []
        for message in messages:
            place = found[message.session_key, message.ordinal]
            row = ranked[place]
            why = explained[place] if explained else None
            hits.append(Hit(sessions[row.place], message, row.score, row.similarity, why))
        return hits

    @contextmanager
    def _timed(self, stage: str, took_s: dict[str, float]) -> Iterator[None]:
        start_s = self._clock.monotonic_s()
        yield
        took_s[stage] = self._clock.monotonic_s() - start_s
        self._observer.searched(stage, took_s[stage])


def _best(parts: Sequence[_Part], asked: _Asked, vectors_of: Callable[[Mapping[str, float]], Towards]) -> _Best:
    indexes = [part.whole if part.cut is None else as_it_was(part.whole, part.cut) for part in parts]
    messages = sum(map(len, indexes))
    among = _among(parts, indexes, asked.where)
    now_ms = asked.now_ms
    if now_ms is None:
        now_ms = max((int(index.rows.whens_ms.max()) for index in indexes if len(index)), default=0)
    query = understand(asked.query, now_ms)
    fitting = messages if among is None else int(np.count_nonzero(among))
    if not asked.explain:
        return _Best(rank(indexes, query, vectors_of, asked.top_k, among), [], messages, fitting)
    rows, explained = rank_and_explain(indexes, query, vectors_of, asked.top_k, among)
    return _Best(rows, explained, messages, fitting)


def _among(
    parts: Sequence[_Part], indexes: Sequence[SessionIndex], where: Condition | None
) -> npt.NDArray[np.bool_] | None:
    """Return which rows of the scope may be found; None: all of them."""
    if where is None:
        return None
    masks = [
        filters.mask(where, part.session, index.rows, part.labels) for part, index in zip(parts, indexes, strict=True)
    ]
    return np.concatenate(masks) if masks else None


def _explained(chosen: Chosen, best: _Best, kept: int, took_s: Mapping[str, float]) -> ScopeExplained:
    return ScopeExplained(
        sessions=len(chosen.sessions),
        messages=best.messages,
        filtered_out=best.messages - best.fitting,
        beyond_top_k=best.fitting - len(best.rows),
        below_min_score=len(best.rows) - kept,
        took_ms={stage: round(1000 * seconds, 3) for stage, seconds in took_s.items()},
        sessions_left_out=chosen.sessions_left_out,
        messages_left_out=chosen.messages_left_out,
        chosen_by=chosen.by,
    )
