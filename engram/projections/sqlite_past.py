"""Reading projections.db as of an earlier log index: what is there now, without what came later.

Every row stands at the place of its entry, so a session as it was is a cut through its rows; and what was forgotten since
is not there to be cut. Only what an entry changes in place is not in the rows any more: the vectors of a message that
got others later (see `doubts`), and whether a session is open.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from engram.database import Connection
from engram.projections import sqlite_reads
from engram.projections.erasures import message_subject
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.projections.slots import first_slot, log_index_of
from engram.projections.sqlite_reads import Conversation, snapshot

EVERY: Final = -1
"""A limit that is none."""

_CUT: Final = "SELECT ordinal FROM messages WHERE session_key = ? AND slot >= ? ORDER BY ordinal LIMIT 1"
_DOUBTS: Final = """
SELECT ordinal, message_id, slot FROM messages
WHERE session_key = ?1 AND ordinal >= ?2 AND ordinal < ?3 AND (vectors_index > ?4 OR embedding = 2)
"""
_TRACES: Final = """
SELECT r.log_index FROM traces r JOIN timeline t ON t.session_key = r.session_key AND t.log_index = r.log_index
WHERE r.session_key = ? AND r.subject = ? AND r.log_index <= ?
"""
_COUNTS: Final = """
SELECT count(*), coalesce(sum(tokens), 0), coalesce(sum(embedding = 1), 0) FROM messages
WHERE session_key = ? AND ordinal < ?
"""
_FACTS: Final = "SELECT count(*) FROM facts WHERE session_key = ? AND session_key > 0 AND slot < ?"
_LAST_CHANGE: Final = "SELECT max(log_index) FROM timeline WHERE session_key = ? AND log_index <= ?"


class Doubt(NamedTuple):
    """A message of which the rows do not say whether it had vectors, or not which."""

    ordinal: int
    message_id: str
    source_index: int
    """The entry that it was appended by."""
    told_index: Sequence[int]
    """Entries that had an effect, and may have given it vectors or given that up."""


def session(connection: Connection, log_index: int, tenant: str, session_id: str) -> SessionRow | None:
    """Return a session, cut, if it was there."""
    with snapshot(connection):
        found = sqlite_reads.session(connection, tenant, session_id)
        return _cut(connection, log_index, [found])[0] if found is not None and found.session_key <= log_index else None


def scope(
    connection: Connection, log_index: int, tenant: str, agent_id: str | None, user_id: str | None
) -> list[SessionRow]:
    """Return the sessions of an agent or user that were there, each cut."""
    with snapshot(connection):
        rows = sqlite_reads.sessions(
            connection, tenant=tenant, agent_id=agent_id, user_id=user_id, after=None, limit=EVERY
        )
        return _cut(connection, log_index, [row for row in rows if row.session_key <= log_index])


def conversation(
    connection: Connection, log_index: int, tenant: str, session_id: str, limit: int
) -> Conversation | None:
    """Return a session as it was, with its last `limit` messages and its facts."""
    with snapshot(connection):
        found = sqlite_reads.session(connection, tenant, session_id)
        if found is None or found.session_key > log_index:
            return None
        [row] = _cut(connection, log_index, [found])
        recent = _messages(connection, row.session_key, row.next_ordinal, None, limit, descending=True)
        return Conversation(row, recent[::-1], facts(connection, log_index, row.session_key))


def messages(
    connection: Connection, log_index: int, session_key: int, *, after: int | None, limit: int, descending: bool
) -> list[MessageRow]:
    """Return messages by ordinal, from behind the ordinal `after`."""
    with snapshot(connection):
        end = _end(connection, log_index, session_key)
        return _messages(connection, session_key, end, after, limit, descending=descending)


def message(connection: Connection, log_index: int, session_key: int, message_id: str) -> MessageRow | None:
    """Return a message, if it was there."""
    found = sqlite_reads.message(connection, session_key, message_id)
    return found if found is not None and found.log_index <= log_index else None


def facts(connection: Connection, log_index: int, session_key: int) -> list[FactRow]:
    """Return the facts that were pinned, in order of pinning."""
    return [fact for fact in sqlite_reads.facts(connection, session_key) if fact.log_index <= log_index]


def doubts(connection: Connection, log_index: int, session_key: int, first: int, behind: int) -> list[Doubt]:
    """Return the messages with ordinals from `first` up to, not including, `behind` whose vectors were others, or none."""
    with snapshot(connection):
        rows = connection.execute(_DOUBTS, (session_key, first, behind, log_index)).fetchall()
        return [
            Doubt(ordinal, message_id, log_index_of(slot), _told(connection, session_key, message_id, slot, log_index))
            for ordinal, message_id, slot in rows
        ]


def counted(connection: Connection, log_index: int, row: SessionRow) -> SessionRow:
    """Return a session that was cut with what it held; of what waits for vectors only what does so still."""
    with snapshot(connection):
        messages_there, tokens, pending = connection.execute(_COUNTS, (row.session_key, row.next_ordinal)).fetchone()
        (facts_there,) = connection.execute(_FACTS, (row.session_key, first_slot(log_index + 1))).fetchone()
        (changed,) = connection.execute(_LAST_CHANGE, (row.session_key, log_index)).fetchone()
    return row._replace(
        message_count=messages_there,
        token_count=tokens,
        fact_count=facts_there,
        pending_embeddings=pending,
        updated_index=row.session_key if changed is None else changed,
    )


def _told(connection: Connection, session_key: int, message_id: str, slot: int, log_index: int) -> list[int]:
    subject = message_subject(message_id)
    rows = connection.execute(_TRACES, (session_key, subject, log_index)).fetchall()
    return sorted({log_index_of(slot), *(row[0] for row in rows)})


def _cut(connection: Connection, log_index: int, rows: Iterable[SessionRow]) -> list[SessionRow]:
    """Return sessions with the ordinal that the next message would have had, as far as that is known still."""
    return [
        row
        if row.updated_index <= log_index
        else row._replace(next_ordinal=_end(connection, log_index, row.session_key))
        for row in rows
    ]


def _end(connection: Connection, log_index: int, session_key: int) -> int:
    row = connection.execute(_CUT, (session_key, first_slot(log_index + 1))).fetchone()
    if row is not None:
        return int(row[0])
    row = connection.execute("SELECT next_ordinal FROM sessions WHERE session_key = ?", (session_key,)).fetchone()
    return 0 if row is None else int(row[0])  # it can have been deleted a moment ago


def _messages(
    connection: Connection, session_key: int, end: int, after: int | None, limit: int, *, descending: bool
) -> list[MessageRow]:
    if descending:
        after = end if after is None else min(after, end)
        return sqlite_reads.messages(connection, session_key, after=after, limit=limit, descending=True)
    rows = sqlite_reads.messages(connection, session_key, after=after, limit=limit, descending=False)
    return [row for row in rows if row.ordinal < end]
