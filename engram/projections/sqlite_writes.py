"""Writing the effects of a batch into projections.db, a statement a table."""

# ruff: noqa: S608 - statements are put together from this module's own constants; values are always bound

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from engram.database import Connection, insert_rows
from engram.projections.erasures import LONG_TERM, Erasure, Kind, subject_of
from engram.projections.lives import Counters, Life, View
from engram.projections.schema import (
    FORGET_BLOB,
    FORGET_CONTENT,
    FORGET_FACT,
    FORGET_SESSION,
    FORGET_VECTORS,
    UNPIN_FACT,
)
from engram.projections.slots import first_slot
from engram.projections.sqlite_load import hash_of, metadata_column

_SESSION = """
INSERT INTO sessions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,0)
ON CONFLICT (session_key) DO UPDATE SET
  visibility = excluded.visibility, updated_at_ms = excluded.updated_at_ms, updated_index = excluded.updated_index,
  message_count = excluded.message_count, fact_count = excluded.fact_count, token_count = excluded.token_count,
  pending_embeddings = excluded.pending_embeddings, abandoned_embeddings = excluded.abandoned_embeddings,
  next_ordinal = excluded.next_ordinal, vectors_index = excluded.vectors_index, deletions = excluded.deletions
"""
_PROFILE = "INSERT INTO profiles VALUES (?,?,?,?)"
_MESSAGE = "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_CONTENT = "INSERT INTO contents VALUES (?,?,?,?)"
_EMBEDDING = "UPDATE messages SET embedding = ?, vectors_index = ?, model = ? WHERE slot = ?"
_VECTOR = "INSERT INTO vectors VALUES (?,?,?,?,?,?,?)"
_FACT = "INSERT INTO facts VALUES (?,?,?,?,?,?)"
_TOMBSTONE = "INSERT INTO tombstones VALUES (?,?)"
_TIMELINE = "INSERT INTO timeline VALUES (?,?)"
_TRACE = "INSERT OR IGNORE INTO traces VALUES (?,?,?)"
_ERASURE = "INSERT OR IGNORE INTO erasures VALUES (?,?,?,?,?,?,?,?)"
_STATE = """
UPDATE state SET applied_index = ?, applied_term = ?, last_at_ms = ?, sessions = sessions + ?, messages = messages + ?,
  facts = facts + ?, pending = pending + ?, abandoned = abandoned + ?, blanked = blanked + ?
"""


def write(connection: Connection, view: View, *, applied_index: int, applied_term: int) -> None:
    """Write what the batch did; part of the caller's transaction."""
    lives = list(view.written())
    _delete(connection, view.ended, lives)
    _insert(connection, lives)
    insert_rows(connection, _FACT, _fact_rows(view, lives))
    insert_rows(connection, _TIMELINE, view.timeline)
    insert_rows(connection, _TRACE, view.traces)
    # What is not there any more has nothing in the log either, but the long-term store may still hold it.
    _many(connection, _ERASURE, [(*_columns(erasure), int(not _is_in_log(erasure))) for erasure in view.erasures])
    totals = _totals(view.ended, lives)
    blanked = max(0, -totals.messages) + sum(len(life.gone_messages) for life in lives)
    connection.execute(_STATE, (applied_index, applied_term, view.last_at_ms, *totals, blanked))


def drop_traces(connection: Connection, erasure: Erasure, log_indexes: Iterable[int]) -> None:
    """Forget which entries carried what is erased; part of the caller's transaction."""
    key = erasure.session_key
    match erasure.kind:
        case Kind.SESSION:
            rows = [(key, log_index) for log_index in log_indexes]
            _many(connection, "DELETE FROM timeline WHERE session_key = ? AND log_index = ?", rows)
            _many(connection, "DELETE FROM traces WHERE session_key = ? AND log_index = ?", rows)
        case Kind.MESSAGE | Kind.FACT:
            statement = "DELETE FROM traces WHERE session_key = ? AND subject = ? AND log_index = ?"
            _many(connection, statement, [(key, subject_of(erasure), log_index) for log_index in log_indexes])
        case Kind.ENTRY | Kind.STALE:
            pass


def drop_texts(connection: Connection, erasures: Iterable[Erasure]) -> None:
    """Forget the texts of facts that the log is clean of; part of the caller's transaction."""
    _many(connection, FORGET_FACT, [(erasure.source_index,) for erasure in erasures if erasure.kind is Kind.FACT])


def end_erasures(connection: Connection, erasures: Sequence[Erasure], *, log_only: bool) -> None:
    """Note how far erasures are; part of the caller's transaction.

    With `log_only`, those that the long-term store has to hear of stay, as behind the log.
    """
    by_session = [(e.session_key, e.log_index) for e in erasures if e.kind is Kind.SESSION]
    for table in ("timeline", "traces"):
        _many(connection, f"DELETE FROM {table} WHERE session_key = ? AND log_index < ?", by_session)
    _many(
        connection,
        "DELETE FROM traces WHERE session_key = ? AND subject = ? AND log_index <= ?",
        [(e.session_key, subject_of(e), e.log_index) for e in erasures if e.kind in {Kind.MESSAGE, Kind.FACT}],
    )
    staying = [e for e in erasures if log_only and e.kind in LONG_TERM]
    going = [e for e in erasures if not (log_only and e.kind in LONG_TERM)]
    where = "WHERE log_index = ? AND kind = ? AND subject = ? AND source_index = ?"
    _many(connection, f"UPDATE erasures SET log_is_clean = 1 {where}", list(map(_erasure_key, staying)))
    _many(connection, f"DELETE FROM erasures {where}", list(map(_erasure_key, going)))


def _columns(erasure: Erasure) -> Sequence[Any]:
    return erasure[: Erasure._fields.index("text")]


def _erasure_key(erasure: Erasure) -> Sequence[Any]:
    return erasure.log_index, erasure.kind, erasure.subject, erasure.source_index


def _delete(connection: Connection, ended: Sequence[Life], lives: Sequence[Life]) -> None:
    _many(connection, UNPIN_FACT, [(slot,) for life in (*ended, *lives) for slot in life.gone_facts])
    for statement in FORGET_SESSION:
        _many(connection, statement, [(life.key,) for life in ended])
    gone_messages = [(slot,) for life in lives for slot in life.gone_messages]
    _many(connection, FORGET_CONTENT, gone_messages)
    _many(connection, "DELETE FROM messages WHERE slot = ?", gone_messages)
    _many(
        connection,
        FORGET_VECTORS,
        [
            (first_slot(log_index), first_slot(log_index + 1), life.key, ordinal)
            for life in lives
            for ordinal, log_index in life.gone_vectors
        ],
    )
    forgetful = [(life.key,) for life in lives if life.new_tombstones]
    _many(connection, FORGET_BLOB, forgetful)
    _many(connection, "UPDATE sessions SET sealed_ordinal = 0 WHERE session_key = ?", forgetful)


def _insert(connection: Connection, lives: Sequence[Life]) -> None:
    insert_rows(connection, _SESSION, list(map(_session_row, lives)))
    insert_rows(connection, _PROFILE, list(_profile_rows(lives)))
    insert_rows(connection, _MESSAGE, list(_message_rows(lives)))
    insert_rows(connection, _CONTENT, list(_content_rows(lives)))
    _many(
        connection,
        _EMBEDDING,
        [
            (message.embedding, message.vectors_index, message.model, message.slot)
            for life in lives
            for message in life.changed_messages.values()
        ],
    )
    insert_rows(connection, _VECTOR, _vector_rows(lives))
    insert_rows(
        connection, _TOMBSTONE, [(life.key, message_id) for life in lives for message_id in life.new_tombstones]
    )


def _many(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        connection.executemany(statement, rows)


def _session_row(life: Life) -> Sequence[Any]:
    return (
        life.key,
        life.tenant,
        life.session_id,
        hash_of(life.tenant, life.agent_id),
        hash_of(life.tenant, life.user_id),
        life.visibility,
        life.created_at_ms,
        life.updated_at_ms,
        life.updated_index,
        life.message_count,
        life.fact_count,
        life.token_count,
        life.pending,
        life.abandoned,
        life.next_ordinal,
        life.vectors_index,
        life.deletions,
    )


def _profile_rows(lives: Iterable[Life]) -> Iterator[Sequence[Any]]:
    for life in lives:
        if life.loaded is None and (life.agent_id is not None or life.user_id is not None or life.metadata):
            yield life.key, life.agent_id, life.user_id, metadata_column(life.metadata)


def _message_rows(lives: Iterable[Life]) -> Iterator[Sequence[Any]]:
    for life in lives:
        for message in life.new_messages.values():
            event = message.event
            assert event is not None, "a new message comes with its event"
            yield (
                message.slot,
                life.key,
                message.ordinal,
                event.message_id,
                event.role,
                event.tokens,
                event.occurred_at_ms,
                event.at_ms,
                message.embedding,
                message.vectors_index,
                message.model,
            )


def _content_rows(lives: Iterable[Life]) -> Iterator[Sequence[Any]]:
    """Yield rows in the order of their slots: the table takes them at its end only."""
    rows = [
        (message.slot, message.event.name, message.event.text, metadata_column(message.event.metadata))
        for life in lives
        for message in life.new_messages.values()
        if message.event is not None
    ]
    rows.sort(key=itemgetter(0))
    return iter(rows)


def _vector_rows(lives: Iterable[Life]) -> Sequence[Sequence[Any]]:
    return sorted(
        (vector[0], life.key, *vector[1:])
        for life in lives
        for vector in chain.from_iterable(life.new_vectors.values())
    )


def _fact_rows(view: View, lives: Iterable[Life]) -> Sequence[Sequence[Any]]:
    """Return rows in the order of their slots: the table takes them at its end only."""
    pinned = ((life.key, fact) for life in lives for fact in life.new_facts.values())
    unpinned = ((0, fact) for fact in view.brief_facts)
    return sorted((fact[0], key, *fact[1:]) for key, fact in chain(pinned, unpinned))


def _is_in_log(erasure: Erasure) -> bool:
    return erasure.session_key != 0 or erasure.kind in {Kind.ENTRY, Kind.STALE}


def _totals(ended: Iterable[Life], lives: Iterable[Life]) -> Counters:
    """Return by how much the totals change."""
    gone = [life.loaded for life in (*ended, *lives) if life.loaded is not None]
    there = [life.counters() for life in lives]
    return Counters(*(sum(each[n] for each in there) - sum(each[n] for each in gone) for n in range(len(Counters()))))
