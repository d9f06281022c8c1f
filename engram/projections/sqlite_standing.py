"""What has become of entries of the log, read from projections.db."""

from collections.abc import Sequence
from typing import Final

from engram.database import Connection
from engram.projections import ledger
from engram.projections.ledger import Decoded
from engram.projections.retention import Standing
from engram.projections.sqlite_load import load
from engram.projections.sqlite_reads import snapshot

_HAD_EFFECT: Final = "SELECT 1 FROM timeline WHERE session_key = ? AND log_index = ?"


def standing(connection: Connection, entries: Sequence[Decoded]) -> Standing:
    """Return what has become of `entries`, all of which must have been folded."""
    with snapshot(connection):
        lives = load(connection, ledger.needs(entries)).lives
        places = {
            (life.key, entry.log_index)
            for entry in entries
            if entry.events and (life := lives.get((entry.events[0].tenant, entry.events[0].session_id))) is not None
        }
        effective = {place for place in places if connection.execute(_HAD_EFFECT, place).fetchone() is not None}
    return Standing(lives, frozenset(effective))
