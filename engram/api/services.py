"""What the handlers work with; `node.py` fills it in."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engram.api.bodies import BODY_DEADLINE_S
from engram.api.ingest import Ingest
from engram.clock import Clock
from engram.metrics import Metrics
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.recall.reader import ContextReader
from engram.recall.search import SearchResult
from engram.recorder import Recorder

WAIT_S = 5.0
"""How long a request waits for an index to be applied or an erasure to be done, before it says that it was not."""


class Reads(Protocol):
    """The part of the primary store that the handlers read."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def session(self, session_id: str, tenant: str) -> SessionRow | None:
        """Return a session."""

    async def sessions(
        self, *, tenant: str, agent_id: str | None, user_id: str | None, after: int | None, limit: int
    ) -> list[SessionRow]:
        """Return sessions in order of their making, from behind the session key `after`."""

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        """Return every session of an agent or user."""

    async def messages(self, session_key: int, *, after: int | None, limit: int, descending: bool) -> list[MessageRow]:
        """Return messages by ordinal, from behind the ordinal `after`."""

    async def message(self, session_key: int, message_id: str) -> MessageRow | None:
        """Return a message."""

    async def facts(self, session_key: int) -> list[FactRow]:
        """Return the pinned facts in order of pinning."""


class Applied(Protocol):
    """The part of the projector that the handlers wait on."""

    async def wait_applied(self, index: int, timeout_s: float) -> None:
        """Return when reads here see the entry at `index`.

        Raises:
            NotReadyError: They did not within `timeout_s`.
        """


class Erased(Protocol):
    """The part of the eraser that the handlers wait on."""

    async def wait_erased(self, index: int) -> None:
        """Return when what the deletion at `index` forgets is gone from the log's and the projections' files."""


class Searches(Protocol):
    """The part of the searcher that the handlers use."""

    async def search(
        self,
        scope: Sequence[SessionRow],
        query: str,
        *,
        top_k: int,
        now_ms: int | None,
        min_score: float | None = None,
    ) -> SearchResult:
        """Return the messages of `scope` that fit `query` best."""


class Dependency(NamedTuple):
    """One thing that the node stands on."""

    name: str
    ready: bool
    detail: str
    required: bool = True
    """Without it the node is not ready; otherwise the node works with less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The parts of a node that HTTP reaches."""

    recorder: Recorder
    reads: Reads
    applied: Applied
    erased: Erased
    searches: Searches
    contexts: ContextReader
    ingest: Ingest
    clock: Clock
    metrics: Metrics
    new_id: Callable[[], str]
    readiness: Callable[[], Awaitable[Sequence[Dependency]]]
    version: str
    floor_index: int = 0
    """What was committed when the node started. Projections that are behind it still lack what was acknowledged."""
    wait_s: float = WAIT_S
    body_deadline_s: float = BODY_DEADLINE_S
