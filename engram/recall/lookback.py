"""Looking back: the same reader, searcher and recipe, over reads and indexes that are cut where the past ends."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from engram.projections import places
from engram.projections.past import Cut, Log, PastReads
from engram.projections.past import Reads as PresentReads
from engram.projections.rows import SessionRow
from engram.recall.differences import Reads as DifferenceReads
from engram.recall.filters import Condition
from engram.recall.reader import ContextReader, Tokens
from engram.recall.search import SearchResult


class Searcher(Protocol):
    """The part of the searcher that the past needs."""

    async def search(
        self,
        scope: Sequence[SessionRow],
        query: str,
        *,
        top_k: int,
        now_ms: int | None,
        min_score: float | None = None,
        cuts: Mapping[int, Cut],
        where: Condition | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Return the messages of `scope` that fit `query` best, of what `cuts` leave of each session, by its key."""


class PastSearches:
    """Searches sessions as they were."""

    def __init__(self, reads: PastReads, searcher: Searcher, *, models: Collection[str]) -> None:
        self._reads = reads
        self._searcher = searcher
        self._models = frozenset(models)
        """Who makes the vectors of queries: vectors of other models cannot be compared with them."""

    async def search(
        self,
        scope: Sequence[SessionRow],
        query: str,
        *,
        top_k: int,
        now_ms: int | None,
        min_score: float | None = None,
        where: Condition | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Return the messages of `scope` that fit `query` best; the rows come from the same past.

        Degraded also where messages had vectors of another model then: they are found by their words and times.
        """
        cuts = {row.session_key: await self._reads.cut(row) for row in scope}
        foreign = {key: cut._replace(vectors=()) for key, cut in cuts.items() if not cut.models <= self._models}
        found = await self._searcher.search(
            scope,
            query,
            top_k=top_k,
            now_ms=now_ms,
            min_score=min_score,
            cuts=cuts | foreign,
            where=where,
            explain=explain,
        )
        return found._replace(degraded=found.degraded or bool(foreign))


class Past(NamedTuple):
    """What reads are answered by at one log index."""

    reads: PastReads
    searches: PastSearches
    contexts: ContextReader
    at_ms: int
    """The time that it was."""


class Present(PresentReads, DifferenceReads, Protocol):
    """The part of the primary store that looking back needs."""


class Lookback:
    """Answers reads as of earlier log indexes. Holds no state: what it looks at is what is there now."""

    def __init__(
        self, reads: Present, log: Log, searcher: Searcher, tokens: Tokens, *, model: str, short_term_count: int
    ) -> None:
        self.present = reads
        self.log = log
        self._searcher = searcher
        self._tokens = tokens
        self._models: Collection[str] = (model,)
        self._short_term_count = short_term_count

    def use(self, models: Collection[str]) -> None:
        """Hear who makes the vectors of queries from now on."""
        self._models = models

    async def index_at(self, at_ms: int) -> int:
        """Return the last log index before the first entry that is later than `at_ms`; 0 when all are."""
        return await places.index_at(self.present, self.log, at_ms)

    async def at(self, log_index: int) -> Past:
        """Return what answers reads as of `log_index`, which has been applied."""
        reads = PastReads(self.present, self.log, log_index)
        searches = PastSearches(reads, self._searcher, models=self._models)
        contexts = ContextReader(reads, searches, self._tokens, short_term_count=self._short_term_count)
        return Past(reads, searches, contexts, await places.time_at(self.present, self.log, log_index))
