"""Rows of the projections as they go over the wire."""

from engram.api.schemas import Counts, FactView, MessageView, SessionView, Work
from engram.api.times import format_time
from engram.projections.rows import FactRow, MessageRow, SessionRow


def view_session(row: SessionRow) -> SessionView:
    """Return a session as clients see it."""
    return SessionView(
        session_id=row.session_id,
        agent_id=row.agent_id,
        user_id=row.user_id,
        metadata=row.metadata,
        visibility="Shared" if row.visibility == "shared" else "Private",
        created_at=format_time(row.created_at_ms),
        updated_at=format_time(row.updated_at_ms),
        index=row.updated_index,
        counts=Counts(messages=row.message_count, facts=row.fact_count, tokens=row.token_count),
        pending=Work(embedding=row.pending_embeddings),
        abandoned=Work(embedding=row.abandoned_embeddings),
    )


def view_message(row: MessageRow) -> MessageView:
    """Return a message as clients see it."""
    return MessageView(
        id=row.message_id,
        role=row.role,
        content=row.text,
        name=row.name,
        timestamp=format_time(row.when_ms),
        created_at=format_time(row.at_ms),
        tokens=row.tokens,
        index=row.log_index,
        embedding=row.embedding,
        metadata=row.metadata,
    )


def view_fact(row: FactRow) -> FactView:
    """Return a fact as clients see it."""
    return FactView(
        id=row.fact_id,
        fact=row.text,
        tokens=row.tokens,
        index=row.log_index,
        pinned_at=format_time(row.at_ms),
    )
