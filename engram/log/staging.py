"""Entries of a snapshot on their way in: they wait in a table of their own, then become the log in one transaction.

Everything here runs in the database's thread. What is staged was committed elsewhere, so all of it is good, whoever
sent it and in however many attempts. It is only a cache: the snapshot can be asked for again.

The table is always emptied as a whole. That zeroes every page of it; deleting some of its rows would make SQLite move
others and leave copies behind (see `engram.log.rows`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from engram.database import Connection, insert_rows
from engram.errors import CorruptionError
from engram.log.consensus.types import Entry
from engram.log.rows import CREATE_STAGED, State, as_row, is_sound, save_state, truncate

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Staged:
    """Which entries are staged: first..last without a gap, 0..0 when there are none."""

    first: int = 0
    last: int = 0

    def reached(self, commit: int) -> int:
        """Return the last index of a log that is committed up to `commit` and goes on with what is staged."""
        return self.last if self.last > commit and _continues(self.first, commit) else commit


def load(connection: Connection, commit: int) -> Staged:
    """Return what is staged for a log that is committed up to `commit`.

    What is of no use is removed: rows that are damaged, that leave a gap, or that are all committed here by now.
    """
    staged = Staged()
    for row in connection.execute("SELECT idx, term, kind, data, crc FROM staged ORDER BY idx"):
        if not is_sound(row) or row[0] != (staged.last or row[0] - 1) + 1:
            _logger.warning("the part of a snapshot that was received is damaged at entry %s: it is dropped", row[0])
            staged = Staged()
            break
        staged = Staged(staged.first or row[0], row[0])
    if staged.reached(commit) > commit:
        return staged
    clear(connection)
    return Staged()


def add(connection: Connection, entries: Sequence[Entry], *, anew: bool) -> None:
    """Add `entries` behind those that are staged, or, if `anew`, in the place of them."""
    if anew:
        clear(connection)
    statement = "INSERT INTO staged (idx, term, kind, data, crc) VALUES (?, ?, ?, ?, ?)"
    insert_rows(connection, statement, [as_row(entry) for entry in entries])


def install(connection: Connection, commit: int, installed: State) -> None:
    """Let the staged entries follow those up to `commit`, in the place of any others, and the state be `installed`.

    Nothing is staged then, unless there were entries beyond the snapshot: another one may be on its way, and goes on.

    Raises:
        CorruptionError: They do not lead from `commit` to the base of `installed`.
    """
    index, term = installed.base_index, installed.base_term
    (first,) = connection.execute("SELECT min(idx) FROM staged").fetchone()
    (last,) = connection.execute("SELECT max(idx) FROM staged").fetchone()
    newest = connection.execute("SELECT term FROM staged WHERE idx = ?", (index,)).fetchone()
    if newest is None or not _continues(first, commit):
        raise CorruptionError(
            f"the staged entries, {first} to {last}, do not lead from {commit} to the snapshot's {index}"
        )
    if newest != (term,):
        raise CorruptionError(f"the staged entry {index} is of term {newest[0]}, the snapshot of term {term}")
    if commit == 0 and last == index:
        _become_all(connection)
    else:
        truncate(connection, commit + 1)
        _copy(connection, max(first, commit + 1), index)
        if last == index:
            clear(connection)
    save_state(connection, installed)


def clear(connection: Connection) -> None:
    """Remove what is staged."""
    connection.execute("DELETE FROM staged")


def _become_all(connection: Connection) -> None:
    """Let the staged entries be the whole log: it may be millions that a new node gets, and none is copied."""
    connection.execute("DROP TABLE entries")
    connection.execute("ALTER TABLE staged RENAME TO entries")
    connection.execute(CREATE_STAGED)


def _copy(connection: Connection, first: int, last: int) -> None:
    """Let the staged entries first..last follow the log."""
    copied = connection.execute(
        "INSERT INTO entries SELECT idx, term, kind, data, crc FROM staged WHERE idx BETWEEN ? AND ? ORDER BY idx",
        (first, last),
    )
    if copied.rowcount != last + 1 - first:
        raise CorruptionError(f"of the staged entries {first} to {last} there are only {copied.rowcount}")


def _continues(first: int, commit: int) -> bool:
    """Return whether a log that is committed up to `commit` may go on at `first`, or before.

    It must, without a gap; but an empty log begins where the sender's history does.
    """
    return first <= commit + 1 or commit == 0
