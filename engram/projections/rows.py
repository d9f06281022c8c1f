"""What a reader gets out of the projections: one frozen row type a read model.

`session_key` is the log index that created the session: a session that is deleted and made again under the same
id has another key, so nothing that was cached for the first life can be taken for the second.
`ordinal` counts a session's messages from 0 in log order; a deleted message leaves a gap.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from engram.events import Role, Scalar, Visibility

EmbeddingStatus = Literal["done", "pending", "abandoned"]


class SessionRow(NamedTuple):
    """A session, with what a reader needs to know whether something cached about it is current."""

    session_key: int
    tenant: str
    session_id: str
    agent_id: str | None
    user_id: str | None
    metadata: Mapping[str, Scalar]
    visibility: Visibility
    created_at_ms: int
    updated_at_ms: int
    updated_index: int
    message_count: int
    """Messages that are there now."""
    fact_count: int
    token_count: int
    """Sum of the tokens of the messages that are there now."""
    pending_embeddings: int
    abandoned_embeddings: int
    next_ordinal: int
    """Ordinal of the next message: grows with every message."""
    vectors_index: int
    """Log index of the last entry that gave one of its messages vectors."""
    deletions: int
    """Messages deleted so far: when it grows, a cached recall index must be built afresh."""


class MessageRow(NamedTuple):
    """A message as it stands."""

    session_key: int
    ordinal: int
    message_id: str
    role: Role
    name: str | None
    text: str
    tokens: int
    occurred_at_ms: int | None
    at_ms: int
    log_index: int
    metadata: Mapping[str, Scalar]
    embedding: EmbeddingStatus

    @property
    def when_ms(self) -> int:
        """The time a reader should think of: the client's, else when it was accepted."""
        return self.at_ms if self.occurred_at_ms is None else self.occurred_at_ms


class LabelRow(NamedTuple):
    """What was said about a message beside its text: what filters ask for."""

    ordinal: int
    role: Role
    name: str | None
    metadata: Mapping[str, Scalar]


class FactRow(NamedTuple):
    """A pinned fact."""

    fact_id: str
    text: str
    tokens: int
    log_index: int
    at_ms: int


class VectorRow(NamedTuple):
    """One chunk's vector: float16 little-endian, L2-normalized."""

    ordinal: int
    start: int
    end: int
    vector: bytes
    model: str = ""
    """Who made it; vectors of two models are never compared."""


class RecallDelta(NamedTuple):
    """What a session's recall index has not folded yet."""

    messages: list[MessageRow]
    vectors: list[VectorRow]


class RecallBlob(NamedTuple):
    """A sealed recall index as it lies on disk, with the cursors it was sealed at."""

    next_ordinal: int
    vectors_index: int
    deletions: int
    data: bytes


class PendingEmbedding(NamedTuple):
    """A message that waits for its vectors."""

    tenant: str
    session_id: str
    message_id: str
    log_index: int
    text: str
