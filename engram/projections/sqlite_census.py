"""Whose vectors the messages have: counted, and those found that have others than they are to have. A stretch at a time.

A vector's width stands in no column. All vectors of a log entry were made by one embedder, so one that is still there
tells the width of all: looking for each message's own would read the whole table.
"""

# ruff: noqa: S608 - statements are put together from this module's own constants; values are always bound

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from engram.database import Connection
from engram.projections.lance_rows import Space
from engram.projections.rows import PendingEmbedding
from engram.projections.slots import first_slot
from engram.projections.sqlite_reads import pending, snapshot

_ENTRY: Final = first_slot(1)
"""Slots of an entry."""

_STRETCH: Final = f"""
WITH stretch AS (
  SELECT slot, session_key, message_id, model, vectors_index FROM messages WHERE slot > ?1 ORDER BY slot LIMIT ?2
), told AS (
  SELECT *, coalesce((
    SELECT length(vector) / 2 FROM vectors v
    WHERE v.slot >= vectors_index * {_ENTRY} AND v.slot < (vectors_index + 1) * {_ENTRY} AND v.session_key > 0 LIMIT 1
  ), 0) AS dimension FROM stretch
)
"""
_COUNT: Final = _STRETCH + "SELECT max(slot), model, dimension, count(*) FROM told GROUP BY model, dimension"
_OTHERS: Final = (
    _STRETCH
    + """
SELECT told.slot, s.tenant, s.session_id, told.message_id, c.text
FROM told CROSS JOIN contents c USING (slot) CROSS JOIN sessions s USING (session_key)
WHERE model <> ?3 OR (dimension <> ?4 AND dimension <> 0) ORDER BY told.slot
"""
)
_END: Final = "SELECT max(slot), count(*) FROM (SELECT slot FROM messages WHERE slot > ?1 ORDER BY slot LIMIT ?2)"


class Counted(NamedTuple):
    """How many messages of a stretch have vectors of which space; and the last one's slot, None at the end."""

    messages: Mapping[Space, int]
    end: int | None


class Others(NamedTuple):
    """Messages of a stretch that have other vectors than those asked for; and the last one's slot, None at the end."""

    messages: Sequence[PendingEmbedding]
    end: int | None


def count(connection: Connection, *, after: int, limit: int) -> Counted:
    """Count the next `limit` messages behind the slot `after`; those without vectors are left out."""
    rows = connection.execute(_COUNT, (after, limit)).fetchall()
    looked_at = sum(row[3] for row in rows)
    found = {Space(model, dimension): number for _, model, dimension, number in rows if model is not None}
    return Counted(found, max(row[0] for row in rows) if looked_at == limit else None)


def others(connection: Connection, *, space: Space, after: int, limit: int) -> Others:
    """Return which of the next `limit` messages behind the slot `after` have vectors, but not of `space`."""
    with snapshot(connection):
        end, looked_at = connection.execute(_END, (after, limit)).fetchone()
        rows = connection.execute(_OTHERS, (after, limit, space.model, space.dimension)).fetchall()
    return Others(pending(rows), end if looked_at == limit else None)
