"""Rows to pack contexts from, counted with the real cl100k_base."""

from typing import NamedTuple

from engram.events import TENANT_DEFAULT, Role
from engram.inference.tokens import TokenCounter
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.recall.explanation import HitExplained

TOKENS = TokenCounter()

NOON_MS = 1_777_636_800_000
"""2026-05-01T12:00:00Z."""

DAY_MS = 24 * 60 * 60 * 1000


class Found(NamedTuple):
    """A hit as the searcher gives it."""

    session: SessionRow
    message: MessageRow
    score: float = 0.5
    similarity: float | None = 0.5
    explained: HitExplained | None = None


def session(session_key: int = 1, *, session_id: str = "s1", agent_id: str | None = None) -> SessionRow:
    return SessionRow(
        session_key=session_key,
        tenant=TENANT_DEFAULT,
        session_id=session_id,
        agent_id=agent_id,
        user_id=None,
        metadata={},
        visibility="private",
        created_at_ms=NOON_MS,
        updated_at_ms=NOON_MS,
        updated_index=session_key,
        message_count=0,
        fact_count=0,
        token_count=0,
        pending_embeddings=0,
        abandoned_embeddings=0,
        next_ordinal=0,
        vectors_index=0,
        deletions=0,
    )


def message(
    ordinal: int,
    text: str,
    role: Role = "user",
    *,
    session_key: int = 1,
    name: str | None = None,
    at_ms: int | None = None,
    tokens: int | None = None,
) -> MessageRow:
    return MessageRow(
        session_key=session_key,
        ordinal=ordinal,
        message_id=f"m{ordinal}",
        role=role,
        name=name,
        text=text,
        tokens=TOKENS.count(text) if tokens is None else tokens,
        occurred_at_ms=at_ms,
        at_ms=NOON_MS,
        log_index=ordinal + 2,
        metadata={},
        embedding="done",
    )


def fact(number: int, text: str) -> FactRow:
    return FactRow(fact_id=f"f{number}", text=text, tokens=TOKENS.count(text), log_index=number, at_ms=NOON_MS)


def hit(found: MessageRow, *, score: float = 0.5, similarity: float | None = 0.5) -> Found:
    return Found(session(found.session_key), found, score, similarity)
