"""Which events of the log count: what the ledger decided, read back from what it left in the read models.

Nothing is stored for this. An entry that had an effect stands in the timeline of its session; a message or fact that
counts is the row that its entry made. So the answer holds for a log that was rewritten, too.
"""

from collections.abc import Sequence
from typing import Final

from engram.database import Connection
from engram.events import (
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageEmbedded,
    SessionCreated,
    SessionDeleted,
)
from engram.projections.ledger import Decoded
from engram.projections.slots import first_slot, log_index_of
from engram.projections.sqlite_reads import snapshot

_NAMED: Final = """
SELECT log_index FROM timeline WHERE session_key = ?1 AND log_index > ?2
UNION SELECT log_index FROM traces WHERE session_key = ?1 AND log_index > ?2
ORDER BY log_index LIMIT ?3
"""
_LIFE: Final = "SELECT session_key FROM sessions WHERE tenant = ? AND session_id = ?"
_TOUCHED: Final = "SELECT 1 FROM timeline WHERE session_key = ? AND log_index = ?"
_MESSAGE: Final = "SELECT slot FROM messages WHERE session_key = ? AND message_id = ?"
_FACT: Final = "SELECT 1 FROM facts WHERE slot >= ? AND slot < ? AND session_key = ? AND fact_id = ? AND text = ?"


def effective(connection: Connection, entries: Sequence[Decoded]) -> list[list[bool]]:
    """Return for each event of each entry whether it counts.

    What was refused, said before, or came too late does not, nor does what is forgotten by now, even if the log has not
    been cleaned of it yet. That a session was deleted always counts.
    """
    with snapshot(connection):
        lives: dict[tuple[str, str], int | None] = {}
        return [_effective(connection, entry, lives) for entry in entries]


def without_effect(connection: Connection, entries: Sequence[Decoded]) -> set[int]:
    """Return the log indexes of `entries`, all of which were folded, that no read model knows of.

    They were refused, said before, or came too late. Of a session that is gone, or that was made again since, nothing is
    told; nor of an entry that ends one.
    """
    with snapshot(connection):
        return {entry.log_index for entry in entries if entry.events and _had_none(connection, entry)}


def _had_none(connection: Connection, entry: Decoded) -> bool:
    life = connection.execute(_LIFE, (entry.events[0].tenant, entry.events[0].session_id)).fetchone()
    if life is None or life[0] > entry.log_index or any(isinstance(event, SessionDeleted) for event in entry.events):
        return False
    return connection.execute(_TOUCHED, (life[0], entry.log_index)).fetchone() is None


def named(connection: Connection, session_key: int, *, after: int, limit: int) -> list[int]:
    """Return the log indexes of the entries that are about a session, whether they had an effect or not."""
    return [row[0] for row in connection.execute(_NAMED, (session_key, after, limit)).fetchall()]


def _effective(connection: Connection, entry: Decoded, lives: dict[tuple[str, str], int | None]) -> list[bool]:
    if not entry.events:
        return []
    session = (entry.events[0].tenant, entry.events[0].session_id)
    if session not in lives:
        row = connection.execute(_LIFE, session).fetchone()
        lives[session] = None if row is None else row[0]
    key = lives[session]
    if key is None or connection.execute(_TOUCHED, (key, entry.log_index)).fetchone() is None:
        return [isinstance(event, SessionDeleted) for event in entry.events]
    seen: set[tuple[type[Event], str]] = set()
    return [
        _counts(connection, key, entry.log_index, event, seen) and not _is_unpinned(event, entry.events[place + 1 :])
        for place, event in enumerate(entry.events)
    ]


def _is_unpinned(event: Event, later: Sequence[Event]) -> bool:
    """Return whether an event pins a fact that is unpinned again by the same entry."""
    return isinstance(event, FactPinned) and any(
        isinstance(each, FactUnpinned) and each.fact_id == event.fact_id for each in later
    )


def _counts(connection: Connection, key: int, log_index: int, event: Event, seen: set[tuple[type[Event], str]]) -> bool:
    match event:
        case SessionCreated():
            return log_index == key
        case MessageAppended():
            made = _made_at(connection, key, event.message_id)
            return made == log_index and _is_first(seen, MessageAppended, event.message_id)
        case MessageEmbedded():
            return _made_at(connection, key, event.message_id) == (event.source_index or log_index)
        case FactPinned():
            within = (first_slot(log_index), first_slot(log_index + 1), key, event.fact_id, event.text)
            is_there = connection.execute(_FACT, within).fetchone() is not None
            return is_there and _is_first(seen, FactPinned, event.fact_id)
        case FactUnpinned():
            seen.discard((FactPinned, event.fact_id))
            return True
        case _:
            return True


def _made_at(connection: Connection, key: int, message_id: str) -> int | None:
    """Return the log index of a message that is there."""
    row = connection.execute(_MESSAGE, (key, message_id)).fetchone()
    return None if row is None else log_index_of(row[0])


def _is_first(seen: set[tuple[type[Event], str]], kind: type[Event], identifier: str) -> bool:
    """Note that an entry names something, and return whether it has not done so before."""
    is_first = (kind, identifier) not in seen
    seen.add((kind, identifier))
    return is_first
