"""Which time it was where in the log: a mark in each run of entries, so that a time finds its place without a long search.

Times are the events' own, as they were stamped when they were accepted. Where a log goes back in time, as one may that
was imported, a place has the latest time of all that comes before it: so places and times are in the same order.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from engram.database import Connection
from engram.projections.ledger import Decoded

RUN_ENTRIES: Final = 64
"""Entries of a run: as many are read, in about a millisecond, to find a place between two marks."""

_INSERT: Final = "INSERT OR IGNORE INTO stamps VALUES (?, ?, ?)"
_BEFORE: Final = "SELECT run, log_index FROM stamps WHERE at_ms <= ? ORDER BY at_ms DESC, run DESC LIMIT 1"
_NEXT: Final = "SELECT log_index FROM stamps WHERE run > ? ORDER BY run LIMIT 1"
_AT: Final = "SELECT run, log_index, at_ms FROM stamps WHERE run <= ? AND log_index <= ? ORDER BY run DESC LIMIT 1"


class Mark(NamedTuple):
    """The latest time of any event up to an entry, the first with events in its run."""

    run: int
    log_index: int
    at_ms: int


class Between(NamedTuple):
    """A stretch of the log: behind `after`, and before `before` unless that is None."""

    after: int
    before: int | None


def marks(entries: Iterable[Decoded], last_at_ms: int) -> list[Mark]:
    """Return a mark for the first entry with events of each run in a batch, before which it was `last_at_ms`."""
    found: dict[int, Mark] = {}
    for entry in entries:
        for event in entry.events:
            last_at_ms = max(last_at_ms, event.at_ms)
        run = entry.log_index // RUN_ENTRIES
        if entry.events and run not in found:
            found[run] = Mark(run, entry.log_index, last_at_ms)
    return list(found.values())


def write(connection: Connection, found: Sequence[Mark]) -> None:
    """Keep marks, unless their runs have one; part of the caller's transaction."""
    connection.executemany(_INSERT, found)


def between(connection: Connection, at_ms: int) -> Between:
    """Return where the first entry that is later than `at_ms` stands, if there is one."""
    run, after = connection.execute(_BEFORE, (at_ms,)).fetchone() or (-1, 0)
    behind = connection.execute(_NEXT, (run,)).fetchone()
    return Between(after, None if behind is None else behind[0])


def last_mark(connection: Connection, log_index: int) -> Mark:
    """Return the last mark up to an entry; one at entry 0 when there is none."""
    row = connection.execute(_AT, (log_index // RUN_ENTRIES, log_index)).fetchone()
    return Mark(-1, 0, 0) if row is None else Mark(*row)
