"""Reading projections.db: one function a question, each a whole hop into the connection's thread."""

# ruff: noqa: S608 - queries are put together from this module's own constants; values are always bound

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from engram.database import Connection
from engram.events import Role
from engram.projections.erasures import Erasure, Kind, subject_of
from engram.projections.lance_rows import Space
from engram.projections.rows import (
    EmbeddingStatus,
    FactRow,
    LabelRow,
    MessageRow,
    PendingEmbedding,
    RecallBlob,
    RecallDelta,
    SessionRow,
    VectorRow,
)
from engram.projections.schema import FORGET_BLOB, UNSEALED_ROWS_MIN
from engram.projections.slots import first_slot, log_index_of
from engram.projections.sqlite_load import hash_of, metadata_of

_SESSION: Final = """
s.session_key, tenant, session_id, agent_id, user_id, metadata, visibility, created_at_ms, updated_at_ms, updated_index,
message_count, fact_count, token_count, pending_embeddings, abandoned_embeddings, next_ordinal, vectors_index, deletions
FROM sessions s LEFT JOIN profiles p ON p.session_key = s.session_key
"""
_MESSAGE: Final = """
session_key, ordinal, message_id, role, name, text, tokens, occurred_at_ms, at_ms, slot, metadata, embedding
FROM messages CROSS JOIN contents USING (slot)
"""
_TRACES_OF_SESSION: Final = """
SELECT log_index, 1 FROM timeline WHERE session_key = ?1 AND log_index < ?2
UNION SELECT log_index, 1 FROM traces WHERE session_key = ?1 AND log_index < ?2
LIMIT ?3
"""
_TRACES_OF_SUBJECT: Final = """
SELECT r.log_index, t.log_index IS NOT NULL
FROM traces r LEFT JOIN timeline t ON t.session_key = r.session_key AND t.log_index = r.log_index
WHERE r.session_key = ?1 AND r.log_index <= ?2 AND r.subject = ?4
LIMIT ?3
"""
_SLOT_MAX: Final = 2**63 - 1
_STATUS: Final[tuple[EmbeddingStatus, EmbeddingStatus, EmbeddingStatus]] = ("done", "pending", "abandoned")


class Conversation(NamedTuple):
    """A session with its latest messages, oldest first, and its facts in order of pinning."""

    session: SessionRow
    recent: list[MessageRow]
    facts: list[FactRow]


class EmbeddedRow(NamedTuple):
    """One chunk of a message with its vector, for the long-term store. `log_index` is the entry that gave the vector."""

    tenant: str
    session_id: str
    agent_id: str | None
    user_id: str | None
    message_id: str
    ordinal: int
    chunk: int
    start: int
    end: int
    role: Role
    name: str | None
    when_ms: int
    text: str
    model: str
    vector: bytes
    log_index: int


class Counts(NamedTuple):
    """What is there, in all sessions."""

    sessions: int
    messages: int
    facts: int
    pending_embeddings: int
    abandoned_embeddings: int


class Trace(NamedTuple):
    """An entry that carries something to be erased, and whether the entry had an effect on its session."""

    log_index: int
    is_effective: bool


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Let several queries see the same state; nothing is held open afterwards."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def session(connection: Connection, tenant: str, session_id: str) -> SessionRow | None:
    """Return a session."""
    row = connection.execute(f"SELECT {_SESSION} WHERE tenant = ? AND session_id = ?", (tenant, session_id)).fetchone()
    return None if row is None else _session(row)


def sessions(
    connection: Connection, *, tenant: str, agent_id: str | None, user_id: str | None, after: int | None, limit: int
) -> list[SessionRow]:
    """Return sessions in order of their making, from behind the session key `after`; a limit of -1 is none."""
    query = f"SELECT {_SESSION} WHERE tenant = ? AND s.session_key > ?"
    values: list[str | int | None] = [tenant, -1 if after is None else after]
    for column, value in (("agent", agent_id), ("user", user_id)):
        if value is not None:
            query += f" AND {column}_hash = ? AND {column}_id = ?"
            values += [hash_of(tenant, value), value]
    query += " ORDER BY s.session_key LIMIT ?"
    return [_session(row) for row in connection.execute(query, (*values, limit)).fetchall()]


def unsealed(connection: Connection, min_rows: int, limit: int) -> list[SessionRow]:
    """Return the sessions with the most messages beyond their sealed recall index."""
    query = (
        f"SELECT {_SESSION} WHERE next_ordinal - sealed_ordinal >= {UNSEALED_ROWS_MIN}"
        " AND next_ordinal - sealed_ordinal >= ? ORDER BY next_ordinal - sealed_ordinal DESC, s.session_key LIMIT ?"
    )
    return [_session(row) for row in connection.execute(query, (min_rows, limit)).fetchall()]


def messages(
    connection: Connection, session_key: int, *, after: int | None, limit: int, descending: bool
) -> list[MessageRow]:
    """Return messages by ordinal, from behind the ordinal `after`."""
    query = f"SELECT {_MESSAGE} WHERE session_key = ?"
    values = [session_key]
    if after is not None:
        query += f" AND ordinal {'<' if descending else '>'} ?"
        values.append(after)
    query += f" ORDER BY ordinal {'DESC' if descending else 'ASC'} LIMIT ?"
    return [_message(row) for row in connection.execute(query, (*values, limit)).fetchall()]


def message(connection: Connection, session_key: int, message_id: str) -> MessageRow | None:
    """Return a message."""
    query = f"SELECT {_MESSAGE} WHERE session_key = ? AND message_id = ?"
    row = connection.execute(query, (session_key, message_id)).fetchone()
    return None if row is None else _message(row)


def messages_at(connection: Connection, wanted: Sequence[tuple[int, int]]) -> list[MessageRow]:
    """Return messages by (session key, ordinal), in the order of `wanted`; missing ones are left out."""
    query = f"SELECT {_MESSAGE} WHERE session_key = ? AND ordinal = ?"
    rows = (connection.execute(query, place).fetchone() for place in wanted)
    return [_message(row) for row in rows if row is not None]


def labels(connection: Connection, session_key: int, *, first: int, limit: int) -> list[LabelRow]:
    """Return the labels of messages with ordinals from `first` on, in their order."""
    query = (
        "SELECT ordinal, role, name, metadata FROM messages CROSS JOIN contents USING (slot)"
        " WHERE session_key = ? AND ordinal >= ? ORDER BY ordinal LIMIT ?"
    )
    rows = connection.execute(query, (session_key, first, limit)).fetchall()
    return [LabelRow(ordinal, role, name, metadata_of(metadata)) for ordinal, role, name, metadata in rows]


def facts(connection: Connection, session_key: int) -> list[FactRow]:
    """Return facts in order of pinning."""
    query = (
        "SELECT fact_id, text, tokens, slot, at_ms FROM facts WHERE session_key = ? AND session_key > 0 ORDER BY slot"
    )
    return [
        FactRow(fact_id, text, tokens, log_index_of(slot), at_ms)
        for fact_id, text, tokens, slot, at_ms in connection.execute(query, (session_key,)).fetchall()
    ]


def conversation(connection: Connection, tenant: str, session_id: str, limit: int) -> Conversation | None:
    """Return a session with its last `limit` messages and its facts."""
    with snapshot(connection):
        found = session(connection, tenant, session_id)
        if found is None:
            return None
        recent = messages(connection, found.session_key, after=None, limit=limit, descending=True)
        return Conversation(found, recent[::-1], facts(connection, found.session_key) if found.fact_count else [])


def recall_delta(connection: Connection, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
    """Return messages from `next_ordinal` on, and vectors given at log indexes above `vectors_index`."""
    with snapshot(connection):
        added = messages(connection, session_key, after=next_ordinal - 1, limit=-1, descending=False)
        query = (
            'SELECT v.ordinal, v.start, v."end", v.vector, m.model FROM vectors v'
            " CROSS JOIN messages m ON m.session_key = v.session_key AND m.ordinal = v.ordinal"
            " WHERE v.session_key = ? AND v.session_key > 0 AND v.slot >= ? ORDER BY v.slot"
        )
        given = connection.execute(query, (session_key, first_slot(vectors_index + 1))).fetchall()
    return RecallDelta(added, [VectorRow(*row) for row in given])


def recall_blob(connection: Connection, session_key: int) -> RecallBlob | None:
    """Return a session's sealed recall index."""
    query = "SELECT next_ordinal, vectors_index, deletions, data FROM recall_blobs WHERE session_key = ? AND session_key > 0"
    row = connection.execute(query, (session_key,)).fetchone()
    return None if row is None else RecallBlob(*row)


def save_recall_blob(connection: Connection, session_key: int, blob: RecallBlob) -> bool:
    """Keep a sealed recall index, unless its session is gone or has lost messages since; return whether it was kept."""
    changed = connection.execute(
        "UPDATE sessions SET sealed_ordinal = ? WHERE session_key = ? AND deletions = ?",
        (blob.next_ordinal, session_key, blob.deletions),
    ).rowcount
    if changed:
        connection.execute(FORGET_BLOB, (session_key,))
        connection.execute("INSERT INTO recall_blobs VALUES (NULL, ?, ?, ?, ?, ?)", (session_key, *blob))
    return bool(changed)


def waiting(connection: Connection, status: EmbeddingStatus, *, after: int, limit: int) -> list[PendingEmbedding]:
    """Return messages whose embedding is pending or abandoned, from behind the log index `after`."""
    code = _STATUS.index(status)
    query = (
        "SELECT m.slot, s.tenant, s.session_id, m.message_id, c.text"
        " FROM messages m CROSS JOIN contents c USING (slot) CROSS JOIN sessions s USING (session_key)"
        f" WHERE m.embedding = {code} AND m.slot >= ? AND m.slot < ? ORDER BY m.slot LIMIT ?"
    )
    return pending(_whole_entries(connection, query, (), after, limit))


def embedded_after(connection: Connection, cursor: int, limit: int) -> list[EmbeddedRow]:
    """Return chunks whose vectors were given behind the log index `cursor`, in log order."""
    query = (
        "SELECT v.slot, s.tenant, s.session_id, p.agent_id, p.user_id, m.message_id, m.ordinal, v.chunk, v.start,"
        ' v."end", m.role, c.name, coalesce(m.occurred_at_ms, m.at_ms), c.text, m.model, v.vector'
        " FROM vectors v CROSS JOIN messages m ON m.session_key = v.session_key AND m.ordinal = v.ordinal"
        " CROSS JOIN contents c ON c.slot = m.slot CROSS JOIN sessions s ON s.session_key = v.session_key"
        " LEFT JOIN profiles p ON p.session_key = s.session_key"
        " WHERE v.slot >= ? AND v.slot < ? ORDER BY v.slot LIMIT ?"
    )
    rows = _whole_entries(connection, query, (), cursor, limit)
    return [EmbeddedRow._make((*row[1:], log_index_of(row[0]))) for row in rows]


def embedding_space(connection: Connection) -> Space | None:
    """Return whose the newest vectors are; None when there are none."""
    query = (
        "SELECT m.model, length(v.vector) / 2 FROM vectors v"
        " JOIN messages m ON m.session_key = v.session_key AND m.ordinal = v.ordinal ORDER BY v.slot DESC LIMIT 1"
    )
    row = connection.execute(query).fetchone()
    return None if row is None else Space(*row)


def counts(connection: Connection) -> Counts:
    """Return the totals."""
    return Counts(*connection.execute("SELECT sessions, messages, facts, pending, abandoned FROM state").fetchone())


def timeline(connection: Connection, session_key: int, *, after: int, limit: int) -> list[int]:
    """Return the log indexes of the entries that had an effect on a session, from behind `after`."""
    query = "SELECT log_index FROM timeline WHERE session_key = ? AND log_index > ? ORDER BY log_index LIMIT ?"
    return [row[0] for row in connection.execute(query, (session_key, after, limit)).fetchall()]


def erasures(connection: Connection, *, after: int, limit: int, log_is_clean: bool) -> list[Erasure]:
    """Return what is to be erased because of deletions behind the log index `after`: of the log, or behind it."""
    query = (
        "SELECT log_index, kind, subject, e.session_key, tenant, session_id, source_index, text FROM erasures e"
        " LEFT JOIN facts f ON kind = 'fact' AND f.slot = source_index AND fact_id = subject"
        " WHERE log_index > ? AND log_is_clean = ? ORDER BY log_index, kind, subject, source_index LIMIT ?"
    )
    rows = connection.execute(query, (after, log_is_clean, limit)).fetchall()
    return [Erasure(row[0], Kind(row[1]), *row[2:]) for row in rows]


def is_log_clean(connection: Connection, log_index: int) -> bool:
    """Return whether the log is clean of what the deletion at `log_index` forgets."""
    query = "SELECT 1 FROM erasures WHERE log_index = ? AND NOT log_is_clean"
    return connection.execute(query, (log_index,)).fetchone() is None


def traces(connection: Connection, erasure: Erasure, limit: int) -> list[Trace]:
    """Return entries that carry what is to be erased, in no order; `drop_traces` makes room for the next."""
    if erasure.kind in {Kind.ENTRY, Kind.STALE}:
        return [Trace(erasure.log_index, is_effective=True)]
    values = (erasure.session_key, erasure.log_index, limit)
    if erasure.kind is Kind.SESSION:
        rows = connection.execute(_TRACES_OF_SESSION, values).fetchall()
    else:
        rows = connection.execute(_TRACES_OF_SUBJECT, (*values, subject_of(erasure))).fetchall()
    return [Trace(log_index, bool(is_effective)) for log_index, is_effective in rows]


def _whole_entries(
    connection: Connection, query: str, values: Sequence[str], after: int, limit: int
) -> list[tuple[Any, ...]]:
    """Return rows of `query` that begin with a slot, and the rest of the last one's entry: a log index is a cursor."""
    with snapshot(connection):
        rows = connection.execute(query, (*values, first_slot(after + 1), _SLOT_MAX, limit)).fetchall()
        if len(rows) == limit:
            slot = rows[-1][0]
            end = first_slot(log_index_of(slot) + 1)
            rows += connection.execute(query, (*values, slot + 1, end, -1)).fetchall()
    return rows


def _session(row: Any) -> SessionRow:
    return SessionRow._make((*row[:5], metadata_of(row[5]), *row[6:]))


def _message(row: Any) -> MessageRow:
    return MessageRow._make((*row[:9], log_index_of(row[9]), metadata_of(row[10]), _STATUS[row[11]]))


def pending(rows: Sequence[tuple[Any, ...]]) -> list[PendingEmbedding]:
    """Return messages to embed from rows of slot, tenant, session id, message id and text."""
    return [
        PendingEmbedding(tenant, session_id, message_id, log_index_of(slot), text)
        for slot, tenant, session_id, message_id, text in rows
    ]
