"""An import: the rows of a log, from the events of an export.

Every entry gets the index that it had, so that whatever names an index (vectors that came later name their message's)
still names the same, and every read model comes to the same digest. Where the source had an entry without events, there
is one here too.
"""

from collections.abc import Iterator, Sequence

from engram.errors import CorruptionError, InvalidError
from engram.events import encode
from engram.log.consensus.types import Entry, EntryKind
from engram.moving.export_format import ExportEnd, ExportHead, ExportReader

TERM = 1
"""Of every row: who led when in the source is nothing to this log."""

GAP_ROWS_MAX = 1024
"""Rows without events that are made at a time."""


class Importer:
    """Makes rows of one export, and of others that go on where it ends."""

    def __init__(self) -> None:
        self.events = 0
        self._checked: ExportHead | None = None
        """The head of the export that is read, or was read last."""
        self._reader = ExportReader()
        self._index = 0

    def feed(self, data: bytes) -> Iterator[Sequence[Entry]]:
        """Take the next bytes, and yield the rows that are complete by then, in order.

        Raises:
            CorruptionError: They are not those of an export.
            InvalidError: The export does not go on where the one before it ended.
        """
        for entry in self._reader.feed(data):
            self._check_begins()
            yield from self._gap(entry.index - 1)
            self._index = entry.index
            self.events += len(entry.events)
            yield [Entry(term=TERM, index=entry.index, kind=EntryKind.NORMAL, data=encode(entry.events))]

    def finish(self) -> Iterator[Sequence[Entry]]:
        """End one export; the bytes that are fed next are those of another. Yields the rows that are left of it.

        Raises:
            CorruptionError: It ends too early.
            InvalidError: As in `feed`.
        """
        end: ExportEnd = self._reader.finish()
        self._check_begins()
        yield from self._gap(end.index)
        self._reader = ExportReader()

    def _check_begins(self) -> None:
        """Check, once for each export, that nothing is missing before it."""
        head = self._reader.head
        if head is None:
            raise CorruptionError("the export has no first line")
        if head is self._checked:
            return
        before = self._checked or head
        if head.after > self._index:
            raise InvalidError(
                f"the export begins behind log entry {head.after}, and there is nothing before it but entry "
                f"{self._index}: name the exports before it first"
            )
        if (head.store_id, head.session_id) != (before.store_id, before.session_id):
            raise InvalidError("the exports are not of the same store and the same sessions: they do not go together")
        if head.after < self._index:
            raise InvalidError(
                f"the export begins behind log entry {head.after}, but entry {self._index} was there before"
            )
        self._checked = head

    def _gap(self, up_to: int) -> Iterator[Sequence[Entry]]:
        while self._index < up_to:
            last = min(up_to, self._index + GAP_ROWS_MAX)
            yield [Entry(term=TERM, index=index) for index in range(self._index + 1, last + 1)]
            self._index = last
