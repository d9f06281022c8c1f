"""An export: the events of a log as lines of JSON."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol, TypeVar

from engram.database import Connection
from engram.errors import CorruptionError
from engram.events import decode
from engram.log.consensus.types import EntryKind
from engram.moving.export_format import ExportHead, ExportWriter
from engram.moving.rows import Log, rows_at_one_index
from engram.projections.effects import without_effect
from engram.projections.entries import LogEntry
from engram.projections.ledger import Decoded

PART_BYTES = 256 * 1024
"""Lines are handed out in parts of about this size."""

Answer = TypeVar("Answer")


class Ledger(Protocol):
    """The part of the primary store that knows which entries counted."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that was folded."""

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question."""


class _Folded:
    """A log as far as it was folded."""

    def __init__(self, log: Log, ledger: Ledger) -> None:
        self._log = log
        self._ledger = ledger
        self.read = log.read

    @property
    def applied_index(self) -> int:
        """The last index of which it is known what it did."""
        return min(self._log.applied_index, self._ledger.applied_index)

    @property
    def rewrites(self) -> int:
        """How often rows were rewritten."""
        return self._log.rewrites


async def export(log: Log, ledger: Ledger, head: ExportHead) -> AsyncGenerator[bytes]:
    """Yield the bytes of an export of `log` as `head` says, up to the index that was folded by then, or a later one.

    Entries without events are left out (those of the log's own, and those of which nothing is left), and so are those
    that had no effect: what was refused here is not to be refused again, line by line, wherever this is imported.

    Raises:
        CorruptionError: An entry cannot be decoded.
    """
    writer = ExportWriter()
    part = bytearray(writer.begin(head))
    index = head.after
    async with aclosing(rows_at_one_index(_Folded(log, ledger), head.after)) as batches:
        async for rows in batches:
            entries = _wanted(rows, head.session_id)
            idle = await ledger.ask(partial(without_effect, entries=entries)) if entries else ()
            for entry in entries:
                if entry.log_index not in idle:
                    part += writer.add(entry.log_index, entry.events)
                if len(part) >= PART_BYTES:
                    yield bytes(part)
                    part.clear()
            index = rows[-1].index
    yield bytes(part) + writer.end(index)


def _wanted(rows: Sequence[LogEntry], session_id: str | None) -> list[Decoded]:
    named = b"" if session_id is None else session_id.encode("utf-8", "surrogatepass")
    entries = [_decoded(row) for row in rows if row.kind == EntryKind.NORMAL and row.data and named in row.data]
    return [entry for entry in entries if session_id in {None, entry.events[0].session_id}]


def _decoded(row: LogEntry) -> Decoded:
    try:
        return Decoded(row.index, decode(row.data))
    except CorruptionError as error:
        raise CorruptionError(f"log entry {row.index}: {error}") from error
