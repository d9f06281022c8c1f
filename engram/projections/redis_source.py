"""What Redis is fed with: questions to projections.db, each a whole hop into the thread of the reading connection.

A hop is bounded in rows and in text, because every other reader waits for it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from engram.database import Connection
from engram.projections import sqlite_reads
from engram.projections.redis_keys import SessionName
from engram.projections.redis_rows import ShortTerm
from engram.projections.rows import MessageRow, SessionRow

ROWS_MAX: Final = 200
"""Messages read in one hop: about a millisecond."""

TEXT_CHARACTERS_MAX: Final = 1_000_000
"""Of one session's window, the newest message aside: messages may have 256 KiB, and a context shows few of that size."""

_PART: Final = 32
"""Messages of one session read at a time."""


class Stamp(NamedTuple):
    """What tells whether a session in Redis is as it is here."""

    session_key: int
    name: SessionName
    updated_index: int
    updated_at_ms: int
    """Tells the entry from one at the same index of a copy of the log that has gone another way."""
    fact_count: int


class Known(NamedTuple):
    """What Redis is known to hold of a session: only what came behind it needs to be written."""

    session_key: int
    next_ordinal: int
    deletions: int
    messages: int
    """Elements of the list."""
    characters: int
    """Length of the texts that are there."""


class Wanted(NamedTuple):
    """A session to be written, and what is there of it already."""

    name: SessionName
    known: Known | None


class Found(NamedTuple):
    """A session as it is now; None when it is gone."""

    name: SessionName
    short_term: ShortTerm | None
    is_whole: bool
    """The messages are all that belong into Redis, not only those behind what is known."""


def stamps(connection: Connection, after: int, limit: int) -> list[Stamp]:
    """Return the stamps of sessions in order of their making, from behind the session key `after`."""
    query = (
        "SELECT session_key, tenant, session_id, updated_index, updated_at_ms, fact_count FROM sessions"
        " WHERE session_key > ? ORDER BY session_key LIMIT ?"
    )
    rows = connection.execute(query, (after, limit)).fetchall()
    return [Stamp(key, SessionName(tenant, session_id), *rest) for key, tenant, session_id, *rest in rows]


def missing(connection: Connection, names: Sequence[SessionName]) -> list[SessionName]:
    """Return those of `names` that no session has."""
    query = "SELECT 1 FROM sessions WHERE tenant = ? AND session_id = ?"
    return [name for name in names if connection.execute(query, name).fetchone() is None]


def short_terms(connection: Connection, wanted: Sequence[Wanted], window: int, rows_max: int = ROWS_MAX) -> list[Found]:
    """Return what belongs into Redis of the first of `wanted`: of one at least, and more until they have `rows_max`."""
    found: list[Found] = []
    rows = 0
    with sqlite_reads.snapshot(connection):
        for each in wanted:
            found.append(_found(connection, each, window))
            short_term = found[-1].short_term
            rows += 1 if short_term is None else 1 + len(short_term.recent) + len(short_term.facts)
            if rows >= rows_max:
                break
    return found


def _found(connection: Connection, wanted: Wanted, window: int) -> Found:
    session = sqlite_reads.session(connection, *wanted.name)
    if session is None:
        return Found(wanted.name, None, is_whole=True)
    facts = sqlite_reads.facts(connection, session.session_key) if session.fact_count else []
    if wanted.known is not None and (added := _added(connection, session, wanted.known, window)) is not None:
        return Found(wanted.name, ShortTerm(session, added, facts), is_whole=False)
    return Found(wanted.name, ShortTerm(session, _latest(connection, session, window), facts), is_whole=True)


def _added(connection: Connection, session: SessionRow, known: Known, window: int) -> list[MessageRow] | None:
    """Return the messages behind what is known; None when what is known cannot be built on."""
    count = session.next_ordinal - known.next_ordinal
    if session.session_key != known.session_key or session.deletions != known.deletions or count >= window:
        return None
    if session.pending_embeddings or session.abandoned_embeddings:  # where an embedding stands may change in old ones
        return None
    if count == 0:
        return []
    added = sqlite_reads.messages(
        connection, session.session_key, after=known.next_ordinal - 1, limit=window, descending=False
    )
    characters = known.characters + sum(len(message.text) for message in added)
    return added if characters <= TEXT_CHARACTERS_MAX else None


def _latest(connection: Connection, session: SessionRow, window: int) -> list[MessageRow]:
    """Return the latest messages, oldest first: `window` at most, and fewer when their texts are long."""
    latest: list[MessageRow] = []
    characters = 0
    before: int | None = None
    while len(latest) < window:
        limit = min(_PART, window - len(latest))
        part = sqlite_reads.messages(connection, session.session_key, after=before, limit=limit, descending=True)
        for message in part:
            characters += len(message.text)
            if latest and characters > TEXT_CHARACTERS_MAX:
                return latest[::-1]
            latest.append(message)
        if len(part) < limit:
            break
        before = part[-1].ordinal
    return latest[::-1]
