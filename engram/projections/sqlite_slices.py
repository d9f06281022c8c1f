"""Reading the read models of projections.db piece by piece, so that nobody holds the file for long."""

# ruff: noqa: S608 - queries are put together from this package's own constants; values are always bound

from typing import Any, Final, NamedTuple

from engram.database import Connection
from engram.projections.read_models import READ_MODELS, ReadModel, Row
from engram.projections.slots import first_slot, log_index_of
from engram.projections.sqlite_reads import snapshot

Key = tuple[Any, ...]

_PART_END: Final = "SELECT max(slot) FROM (SELECT slot FROM contents WHERE slot > ? ORDER BY slot LIMIT ?)"
_FORGOTTEN: Final = (
    "SELECT slot FROM contents WHERE slot > ? AND slot <= ? AND slot NOT IN (SELECT slot FROM messages)"
    " AND (text <> '' OR name IS NOT NULL OR metadata IS NOT NULL) ORDER BY slot LIMIT 1"
)


class Slice(NamedTuple):
    """Consecutive rows of a read model, all of one state."""

    applied_index: int
    """The state: the last entry that these rows have in them."""
    rows: list[Row]
    end: Key | None
    """Key of the last row, or beyond it: the next slice begins behind it. None: there are no more rows."""


class Names(NamedTuple):
    """What a client calls what a row is about; None where nothing has that key."""

    tenant: str | None
    session_id: str | None
    message_id: str | None


class Forgotten(NamedTuple):
    """What was found among some texts."""

    slot: int | None
    """Of the first message that is gone while its text is not."""
    after: int | None
    """The last of them: the next begin behind it. None: there are no more."""


def read_slice(connection: Connection, model: ReadModel, after: Key | None, limit: int) -> Slice:
    """Return up to `limit` rows from behind the key `after`, and the rest of an entry that would be cut."""
    with snapshot(connection):
        (applied_index,) = connection.execute("SELECT applied_index FROM state").fetchone()
        rows = _rows(connection, model, after, None, limit)
        if len(rows) < limit:
            return Slice(applied_index, rows, None)
        end = _key(model, rows[-1])
        if model.is_slotted:
            end, last = (first_slot(log_index_of(end[0]) + 1) - 1,), end
            rows += _rows(connection, model, last, end, -1)
    return Slice(applied_index, rows, end)


def read_range(connection: Connection, model: ReadModel, after: Key | None, end: Key | None, limit: int) -> list[Row]:
    """Return up to `limit` rows from behind the key `after` up to the key `end`."""
    return _rows(connection, model, after, end, limit)


def count_rows(connection: Connection) -> int:
    """Return how many rows all read models have."""
    queries = (f"SELECT count(*) FROM {model.source} WHERE {model.condition}" for model in READ_MODELS)
    return sum(connection.execute(query).fetchone()[0] for query in queries)


def names(connection: Connection, session_key: int, ordinal: int | None) -> Names:
    """Return what a client calls a session, and its message of that ordinal."""
    query = "SELECT tenant, session_id FROM sessions WHERE session_key = ?"
    tenant, session_id = connection.execute(query, (session_key,)).fetchone() or (None, None)
    query = "SELECT message_id FROM messages WHERE session_key = ? AND ordinal = ?"
    (message_id,) = connection.execute(query, (session_key, ordinal)).fetchone() or (None,)
    return Names(tenant, session_id, message_id)


def forgotten_part(connection: Connection, after: int, limit: int) -> Forgotten:
    """Look through up to `limit` texts from behind the slot `after`."""
    with snapshot(connection):
        (end,) = connection.execute(_PART_END, (after, limit)).fetchone()
        if end is None:
            return Forgotten(None, None)
        row = connection.execute(_FORGOTTEN, (after, end)).fetchone()
    return Forgotten(None if row is None else int(row[0]), end)


def _rows(connection: Connection, model: ReadModel, after: Key | None, end: Key | None, limit: int) -> list[Row]:
    query, values = model.select, list[Any]()
    for comparison, bound in ((">", after), ("<=", end)):
        if bound is not None:
            query += f" AND ({model.order}) {comparison} ({', '.join('?' * len(bound))})"
            values += bound
    return connection.execute(f"{query} ORDER BY {model.order} LIMIT ?", (*values, limit)).fetchall()


def _key(model: ReadModel, row: Row) -> Key:
    return row[: len(model.key)]
