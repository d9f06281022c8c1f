"""Telling the parts of a node which embedders to use."""

from collections.abc import Collection, Sequence
from typing import Protocol

from engram.inference.embedder import LocalEmbedder
from engram.projections.lance_rows import Space
from engram.recall.query_vectors import Embedder, is_local, space_of


class Searches(Protocol):
    """Embeds queries."""

    def use(self, embedders: Sequence[Embedder], *, lacks: bool) -> None: ...


class Ingests(Protocol):
    """Embeds messages while they are written."""

    def use(self, embedder: LocalEmbedder | None) -> None: ...


class Imports(Protocol):
    """Takes vectors as they come."""

    def use(self, space: Space) -> None: ...


class LooksBack(Protocol):
    """Searches the past."""

    def use(self, models: Collection[str]) -> None: ...


class LongTerm(Protocol):
    """Carries vectors into the long-term store."""

    def become(self, space: Space) -> None: ...


class EmbeddingUse:
    """Which embedders are in use, and whether new messages may be embedded already while they are written."""

    def __init__(
        self, target: Embedder, searches: Searches, long_term: LongTerm, ingests: Ingests, *, is_settled: bool
    ) -> None:
        self._target = target
        self._searches = searches
        self._long_term = long_term
        self._ingests = ingests
        self._imports: Imports | None = None
        self._looks_back: LooksBack | None = None
        self.is_settled = is_settled
        """Whether it is known by which embedder to write: before, vectors come later, from a worker."""
        self.settle(is_settled=is_settled)

    def tell(self, imports: Imports | None, looks_back: LooksBack | None) -> None:
        """Let these hear of it, too."""
        self._imports, self._looks_back = imports, looks_back

    def settle(self, *, is_settled: bool) -> None:
        """Note whether it is known by which embedder to write."""
        self.is_settled = is_settled
        target = self._target
        self._ingests.use(target if is_settled and is_local(target) else None)

    def use(self, target: Embedder, others: Sequence[Embedder], *, lacks: bool = False) -> None:
        """Embed new messages by `target`, and queries by all of them; `lacks`: somebody else has read messages, too."""
        self._target = target
        self._searches.use([target, *others], lacks=lacks)
        if self._imports is not None:
            self._imports.use(space_of(target))
        if self._looks_back is not None:
            self._looks_back.use({space_of(embedder).model for embedder in (target, *others)})
        self.settle(is_settled=self.is_settled)

    def moved(self, space: Space) -> None:
        """Let the long-term store hold vectors of `space`."""
        self._long_term.become(space)
