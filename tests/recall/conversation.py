"""Conversations for recall tests, and a store of them with the primary store's reads."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from engram.events import TENANT_DEFAULT, Role
from engram.projections.rows import LabelRow, MessageRow, RecallBlob, RecallDelta, SessionRow, VectorRow
from engram.recall.index import SessionIndex

START_MS = 1_683_504_000_000
"""2023-05-08T00:00:00Z, a Monday."""

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def said(
    ordinal: int,
    text: str,
    role: Role = "user",
    *,
    name: str | None = None,
    when_ms: int | None = None,
    session_key: int = 1,
) -> MessageRow:
    """Return a message, said a minute after the one before it."""
    return MessageRow(
        session_key=session_key,
        ordinal=ordinal,
        message_id=f"m{ordinal}",
        role=role,
        name=name,
        text=text,
        tokens=1,
        occurred_at_ms=START_MS + ordinal * MINUTE_MS if when_ms is None else when_ms,
        at_ms=0,
        log_index=ordinal + 1,
        metadata={},
        embedding="done",
    )


def vector(ordinal: int, numbers: Sequence[float], model: str = "") -> VectorRow:
    """Return a message's vector as the projections keep it."""
    return VectorRow(ordinal, 0, 1, struct.pack(f"<{len(numbers)}e", *numbers), model)


def index_of(messages: Sequence[MessageRow], vectors: Sequence[VectorRow] = ()) -> SessionIndex:
    index = SessionIndex.empty()
    index.fold(RecallDelta(list(messages), list(vectors)))
    return index


@dataclass
class Stored:
    """One session as the store holds it; `vectors` has (log index, row) by ordinal, the latest last."""

    messages: dict[int, MessageRow] = field(default_factory=dict)
    vectors: dict[int, tuple[int, VectorRow]] = field(default_factory=dict)
    next_ordinal: int = 0
    deletions: int = 0
    blob: RecallBlob | None = None


class MemoryReads:
    """The reads of the primary store that recall uses, on sessions in memory; counts what it is asked for."""

    def __init__(self) -> None:
        self.sessions: dict[int, Stored] = {}
        self.asked: list[str] = []
        self._log_index = 0

    def say(self, text: str, role: Role = "user", *, session_key: int = 1, numbers: Sequence[float] = ()) -> int:
        """Add a message, with a vector when given; return its ordinal."""
        stored = self.sessions.setdefault(session_key, Stored())
        ordinal = stored.next_ordinal
        stored.messages[ordinal] = said(ordinal, text, role, session_key=session_key)
        stored.next_ordinal += 1
        if numbers:
            self.embed(ordinal, numbers, session_key=session_key)
        return ordinal

    def embed(self, ordinal: int, numbers: Sequence[float], *, session_key: int = 1, model: str = "compass") -> None:
        """Give a message its vector, in place of the one it had."""
        self._log_index += 1
        vectors = self.sessions[session_key].vectors
        vectors.pop(ordinal, None)
        vectors[ordinal] = (self._log_index, vector(ordinal, numbers, model))

    def delete(self, ordinal: int, *, session_key: int = 1) -> None:
        """Forget a message, and with it what was sealed."""
        stored = self.sessions[session_key]
        del stored.messages[ordinal]
        stored.vectors.pop(ordinal, None)
        stored.deletions += 1
        stored.blob = None

    def row(self, session_key: int = 1) -> SessionRow:
        """Return the session as it is now."""
        stored = self.sessions.setdefault(session_key, Stored())
        return SessionRow(
            session_key=session_key,
            tenant=TENANT_DEFAULT,
            session_id=f"s{session_key}",
            agent_id=None,
            user_id=None,
            metadata={},
            visibility="private",
            created_at_ms=START_MS,
            updated_at_ms=START_MS,
            updated_index=session_key,
            message_count=len(stored.messages),
            fact_count=0,
            token_count=0,
            pending_embeddings=0,
            abandoned_embeddings=0,
            next_ordinal=stored.next_ordinal,
            vectors_index=next((index for index, _ in reversed(stored.vectors.values())), 0),
            deletions=stored.deletions,
        )

    async def recall_blob(self, session_key: int) -> RecallBlob | None:
        self.asked.append("recall_blob")
        return self.sessions[session_key].blob

    async def recall_delta(self, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
        self.asked.append("recall_delta")
        stored = self.sessions[session_key]
        messages = [message for ordinal, message in stored.messages.items() if ordinal >= next_ordinal]
        vectors = sorted(row for index, row in stored.vectors.values() if index > vectors_index)
        return RecallDelta(messages, vectors)

    async def messages(self, session_key: int, *, after: int | None, limit: int, descending: bool) -> list[MessageRow]:
        self.asked.append("messages")
        assert not descending
        first = 0 if after is None else after + 1
        messages = self.sessions[session_key].messages
        return [message for ordinal, message in messages.items() if ordinal >= first][:limit]

    async def messages_at(self, wanted: Sequence[tuple[int, int]]) -> list[MessageRow]:
        self.asked.append("messages_at")
        found = [self.sessions[key].messages.get(ordinal) for key, ordinal in wanted if key in self.sessions]
        return [message for message in found if message is not None]

    async def labels(self, session_key: int, *, first: int, limit: int) -> list[LabelRow]:
        self.asked.append("labels")
        rows = self.sessions[session_key].messages.values()
        labels = [LabelRow(row.ordinal, row.role, row.name, row.metadata) for row in rows if row.ordinal >= first]
        return labels[:limit]

    async def unsealed(self, min_rows: int, limit: int) -> list[SessionRow]:
        due = []
        for key, stored in self.sessions.items():
            sealed = 0 if stored.blob is None else stored.blob.next_ordinal
            if stored.next_ordinal - sealed >= min_rows:
                due.append(self.row(key))
        return due[:limit]

    async def save_recall_blob(self, session_key: int, blob: RecallBlob) -> bool:
        stored = self.sessions.get(session_key)
        if stored is None or stored.deletions != blob.deletions:
            return False
        stored.blob = blob
        return True
