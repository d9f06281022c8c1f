"""What the handlers work with; `node.py` fills it in."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from engram.api.bodies import BODY_DEADLINE_S
from engram.api.ingest import Ingest
from engram.api.intake import Intake
from engram.api.open_streams import OpenStreams
from engram.clock import Clock
from engram.inference.choice import Move, Wanted
from engram.log.status import ClusterStatus
from engram.metrics import Metrics
from engram.moving.copying import Copier
from engram.projections.digests import Digests
from engram.projections.erasures import Erasure
from engram.projections.ledger import Decoded
from engram.projections.past import Log
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.projections.upkeep import Upkeep
from engram.recall.filters import Condition
from engram.recall.lookback import Lookback
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

    async def timeline(self, session_key: int, *, after: int, limit: int) -> list[int]:
        """Return the log indexes of the entries that had an effect on a session, from behind `after`."""

    async def named(self, session_key: int, *, after: int, limit: int) -> list[int]:
        """Return the log indexes of the entries that are about a session, from behind `after`."""

    async def effective(self, entries: Sequence[Decoded]) -> list[list[bool]]:
        """Return for each event of each entry whether it counts."""

    async def erasures(self, *, limit: int, log_is_clean: bool) -> list[Erasure]:
        """Return what is still to be erased of the log, or behind it."""


class Core(Protocol):
    """Who answers for core memory."""

    async def core(self, session_id: str, tenant: str) -> Sequence[FactRow] | None:
        """Return the pinned facts in order of pinning; None when the session is unknown."""


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
        where: Condition | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Return the messages of `scope` that fit `query` best, of those that fit `where`."""


class Cluster(Protocol):
    """The replicated log, as far as the handlers see it.

    What only the leader can do raises NotLeaderError or NoLeaderError elsewhere: leadership can be lost at any await.
    """

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows. Costs nothing: asked before every write."""

    def leader_http(self) -> str | None:
        """Return `host:port` of the leader's HTTP; None while no leader that lives, or no address of it, is known."""

    def status(self) -> ClusterStatus:
        """Return what this node knows of its cluster now."""

    async def initialize(self) -> None:
        """Make a cluster of this node and its configured peers. Again on the same cluster: nothing changes.

        Raises:
            ConflictError: A peer belongs to a cluster already: `already_clustered`.
            InvalidError: Another node than the settings say answers at a peer's address.
            NotReadyError: A peer cannot be reached. The message names it; nothing was changed.
        """

    async def add_learner(self, node_id: int, address: str, http_address: str | None) -> None:
        """Make a node a learner, and return when it has caught up. Again: wait on.

        Raises:
            CatchUpError: It has not within the time for it; it remains a learner.
            ConflictError: Another change is under way (`membership_change_pending`), the node belongs to another
                cluster (`already_clustered`), or the id is that of a member with another disk (`member_conflict`).
            InvalidError: Another node answers at that address.
            NotReadyError: Nobody does.
        """

    async def change_membership(self, members: Sequence[int], *, retain: bool, remove: Sequence[int] = ()) -> None:
        """Make `members` the voters, and return when they are.

        A voter that is dropped is removed, or stays as a learner with `retain`. Learners stay, but for those in
        `remove`; who is no member there changes nothing.

        Raises:
            CatchUpError: One of `members` is too far behind to vote.
            ConflictError: Another change is under way: `membership_change_pending`.
            InvalidError: One of `members` is no member.
            TimedOutError: It did not take effect in time.
        """

    async def transfer_leadership(self, node_id: int | None) -> int:
        """Hand leadership to a voter, by default the one that is furthest; return who leads.

        Raises:
            TransferError: It did not take over in time.
            InvalidError: It is no voter.
        """

    async def snapshot(self) -> int:
        """Move the base of the log up to what is applied; return its index."""

    async def read_index(self) -> int:
        """Return the index that a read must see to miss nothing that was acknowledged before.

        Raises:
            NoLeaderError: There is none to ask.
            NotReadyError: The leader did not answer, or has not heard a majority, in time.
        """


class Reembeds(Protocol):
    """Who moves memory to another embedder."""

    async def begin(self, wanted: Wanted) -> Move:
        """Begin a move; the first vectors are in the log when this returns.

        Raises:
            InvalidError: There is no such embedder, or not for this node.
            ConflictError: A move is under way, or the embedder is in use already.
            UnavailableError, TimedOutError: It does not work, or the log does not take its vectors now.
        """

    async def status(self) -> Move:
        """Return how far the move is."""


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
    log: Log
    reads: Reads
    core: Core
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
    cluster: Cluster | None = None
    """None: the node runs standalone."""
    lookback: Lookback | None = None
    """None: reads are answered as of one log index only."""
    copier: Copier | None = None
    """None: no copies of the log are made."""
    intake: Intake | None = None
    """None: no imports are taken."""
    digests: Callable[[], Digests | None] = lambda: None
    """The latest digests of the read models; None before the first."""
    upkeep: Upkeep | None = None
    """None: nothing is verified or rebuilt here."""
    reembeds: Reembeds | None = None
    """None: nothing is embedded here."""
    read_only: str | None = None
    """Why nothing can be written here; None: it can."""
    streams: OpenStreams = field(default_factory=OpenStreams)
    floor_index: int = 0
    """What was committed when the node started. Projections that are behind it still lack what was acknowledged."""
    wait_s: float = WAIT_S
    body_deadline_s: float = BODY_DEADLINE_S
