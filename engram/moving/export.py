"""An export: the events of a log as lines of JSON."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from engram.errors import CorruptionError
from engram.events import decode
from engram.log.consensus.types import EntryKind
from engram.moving.export_format import ExportHead, ExportWriter
from engram.moving.rows import Log, rows_at_one_index
from engram.projections.entries import LogEntry

PART_BYTES = 256 * 1024
"""Lines are handed out in parts of about this size."""


async def export(log: Log, head: ExportHead) -> AsyncGenerator[bytes]:
    """Yield the bytes of an export of `log` as `head` says, up to the index that it has by then.

    Entries without events are left out: those of the log's own, and those of which nothing is left.

    Raises:
        CorruptionError: An entry cannot be decoded.
    """
    writer = ExportWriter()
    part = bytearray(writer.begin(head))
    index = head.after
    async with aclosing(rows_at_one_index(log, head.after)) as batches:
        async for rows in batches:
            for row in rows:
                part += _line(writer, row, head.session_id)
                if len(part) >= PART_BYTES:
                    yield bytes(part)
                    part.clear()
            index = rows[-1].index
    yield bytes(part) + writer.end(index)


def _line(writer: ExportWriter, row: LogEntry, session_id: str | None) -> bytes:
    if row.kind != EntryKind.NORMAL or not row.data:
        return b""
    try:
        events = decode(row.data)
    except CorruptionError as error:
        raise CorruptionError(f"log entry {row.index}: {error}") from error
    if session_id is not None and events[0].session_id != session_id:
        return b""
    return writer.add(row.index, events)
