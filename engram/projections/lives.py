"""The state that a fold works on: the sessions that a batch of entries is about, with the batch's own effects.

A `Life` is a session from the entry that made it to the entry that deletes it; a session made again under the same id
is another life. A life knows the messages and facts that the batch names, not all of them: what is not here is not
there. Effects are collected in the life itself, so that deleting a session drops the effects it had in this batch.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

from engram.events import Event, MessageAppended, Role, Scalar, Visibility
from engram.projections.erasures import Erasure, Kind
from engram.projections.slots import first_slot, log_index_of

Embedding = Literal[0, 1, 2]
"""Where the embedding of a message stands, as it is stored."""

DONE: Final = 0
PENDING: Final = 1
ABANDONED: Final = 2


class MessageState:
    """A message as the fold sees it; the fields behind `at_ms` may be changed by it."""

    __slots__ = ("at_ms", "embedding", "event", "model", "ordinal", "role", "slot", "text", "tokens", "vectors_index")

    def __init__(
        self,
        slot: int,
        ordinal: int,
        role: Role,
        text: str,
        tokens: int,
        at_ms: int,
        embedding: Embedding,
        vectors_index: int = 0,
        model: str | None = None,
        event: MessageAppended | None = None,
    ) -> None:
        self.slot = slot
        self.ordinal = ordinal
        self.role = role
        self.text = text
        self.tokens = tokens
        self.at_ms = at_ms
        self.embedding = embedding
        self.vectors_index = vectors_index
        """Log index of the entry that gave its vectors; 0 without."""
        self.model = model
        """The model of its vectors."""
        self.event = event
        """Only for a message that this batch appended: the rest of its columns."""

    @property
    def log_index(self) -> int:
        """The entry that it was appended by."""
        return log_index_of(self.slot)


class FactState(NamedTuple):
    """A fact as the fold sees it."""

    slot: int
    fact_id: str
    text: str
    tokens: int
    at_ms: int


class VectorWrite(NamedTuple):
    """A row of the table of vectors, without its session."""

    slot: int
    ordinal: int
    chunk: int
    start: int
    end: int
    vector: bytes


class Counters(NamedTuple):
    """What a life adds to the totals of the store."""

    sessions: int = 0
    messages: int = 0
    facts: int = 0
    pending: int = 0
    abandoned: int = 0


class Life:
    """One life of a session, and what the batch did to it."""

    __slots__ = (
        "abandoned",
        "agent_id",
        "changed_messages",
        "created_at_ms",
        "deletions",
        "fact_count",
        "facts",
        "gone_facts",
        "gone_messages",
        "gone_vectors",
        "key",
        "loaded",
        "message_count",
        "messages",
        "metadata",
        "new_facts",
        "new_messages",
        "new_tombstones",
        "new_vectors",
        "next_ordinal",
        "pending",
        "repeated",
        "session_id",
        "tenant",
        "token_count",
        "tombstones",
        "touched_index",
        "updated_at_ms",
        "updated_index",
        "user_id",
        "vectors_index",
        "visibility",
    )

    def __init__(
        self,
        key: int,
        tenant: str,
        session_id: str,
        created_at_ms: int,
        agent_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
    ) -> None:
        self.key = key
        self.tenant = tenant
        self.session_id = session_id
        self.agent_id = agent_id
        self.user_id = user_id
        self.metadata: Mapping[str, Scalar] = metadata or {}
        self.visibility: Visibility = "private"
        self.created_at_ms = created_at_ms
        self.updated_at_ms = created_at_ms
        self.updated_index = key
        self.message_count = 0
        self.fact_count = 0
        self.token_count = 0
        self.pending = 0
        self.abandoned = 0
        self.next_ordinal = 0
        self.vectors_index = 0
        self.deletions = 0

        self.loaded: Counters | None = None
        """What it counted for before the batch; None for a life that the batch began."""
        self.touched_index = 0
        """The last entry of this batch that had an effect on it."""
        self.messages: dict[str, MessageState] = {}
        self.tombstones: set[str] = set()
        self.facts: dict[str, FactState] = {}
        self.repeated: dict[str, int] = {}
        """Messages that came again in this batch with the same content: message id -> log index of the repetition."""

        self.new_messages: dict[str, MessageState] = {}
        self.changed_messages: dict[str, MessageState] = {}
        self.gone_messages: list[int] = []
        self.new_vectors: dict[int, list[VectorWrite]] = {}
        self.gone_vectors: list[tuple[int, int]] = []
        """(ordinal, log index that gave them) of stored vectors that are replaced or deleted."""
        self.new_facts: dict[str, FactState] = {}
        self.gone_facts: list[int] = []
        self.new_tombstones: list[str] = []

    def counters(self) -> Counters:
        """Return what it adds to the totals now."""
        return Counters(1, self.message_count, self.fact_count, self.pending, self.abandoned)


class View:
    """The lives that a batch is about, by session, and what it writes about no single one of them."""

    def __init__(self, last_at_ms: int = 0) -> None:
        self.lives: dict[tuple[str, str], Life] = {}
        """The current life of each session that the batch names and that is there."""
        self.ended: list[Life] = []
        """Lives that the batch ended and that are in the store."""
        self.timeline: list[tuple[int, int]] = []
        """(session key, log index) of entries that had an effect."""
        self.traces: list[tuple[int, str, int]] = []
        """(session key, subject, log index) of entries that carry what may have to be erased without being in effect."""
        self.erasures: list[Erasure] = []
        self.brief_facts: list[FactState] = []
        """Facts that the batch pinned and unpinned: only the eraser still looks at them."""
        self.last_at_ms = last_at_ms
        """The latest stamp of any event so far."""
        self.log_index = 0
        """The entry that is being folded."""
        self._slot = 0

    def begin_entry(self, log_index: int) -> None:
        """Turn to the entry at `log_index`."""
        self.log_index = log_index
        self._slot = first_slot(log_index)

    def take_slot(self) -> int:
        """Return the next free slot of the entry."""
        slot = self._slot
        self._slot = slot + 1
        return slot

    def find(self, event: Event) -> Life | None:
        """Return the current life of the session that `event` is about."""
        return self.lives.get((event.tenant, event.session_id))

    def open(self, event: Event) -> Life:
        """Return the current life of the session that `event` is about; it begins here when there is none."""
        life = self.lives.get((event.tenant, event.session_id))
        if life is None:
            life = Life(self.log_index, event.tenant, event.session_id, event.at_ms)
            self.lives[event.tenant, event.session_id] = life
        return life

    def touch(self, life: Life, event: Event) -> None:
        """Note that `event` had an effect on `life`.

        What is imported keeps its times, so an event may be older than those before it. The last change is the latest
        by these times: that is the same whatever order things came in, and does not go back.
        """
        life.updated_at_ms = max(life.updated_at_ms, event.at_ms)
        if life.touched_index != self.log_index:
            life.touched_index = life.updated_index = self.log_index
            self.timeline.append((life.key, self.log_index))

    def trace(self, life: Life, subject: str) -> None:
        """Note that the entry carries `subject`, for the day when it is forgotten."""
        self.traces.append((life.key, subject, self.log_index))

    def erase(self, event: Event, kind: Kind, subject: str, life: Life | None, source_index: int = 0) -> None:
        """Ask for an erasure because of `event`."""
        key = 0 if life is None else life.key
        self.erasures.append(Erasure(self.log_index, kind, subject, key, event.tenant, event.session_id, source_index))

    def written(self) -> Iterator[Life]:
        """Yield the lives that the batch had an effect on and that are still there."""
        return (life for life in self.lives.values() if life.touched_index)
