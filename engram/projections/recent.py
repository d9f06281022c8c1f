"""The newest rows with vectors, kept from the fold for the long-term store, which would read them back a second later.

Reading them back took a tenth of a follower's CPU while many messages came in. What is here is what the file has:
a batch that replaces or removes anything empties this, and who asks for what is not here asks the file.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter, itemgetter

from engram.projections.lives import Life, MessageState, VectorWrite, View
from engram.projections.slots import log_index_of
from engram.projections.sqlite_reads import EmbeddedRow

ROWS_MAX = 8192
"""What comes in within two seconds, at the most that a node takes."""

BYTES_MAX = 16 * 1024 * 1024
"""Of texts and vectors: one text can have 256 KiB."""

_LOG_INDEX = attrgetter("log_index")


def embedded_rows(view: View) -> list[EmbeddedRow] | None:
    """Return the rows that a folded batch gave vectors, in log order.

    None when it replaced or removed some, or gave vectors to a message of an earlier batch, of which the view does not
    know everything.
    """
    lives = list(view.written())
    if view.ended or any(map(_is_partly_known, lives)):
        return None
    placed = [
        (vector.slot, _row(life, message, vector))
        for life in lives
        for message in life.new_messages.values()
        for vector in life.new_vectors.get(message.ordinal, ())
    ]
    placed.sort(key=itemgetter(0))
    return [row for _, row in placed]


def _is_partly_known(life: Life) -> bool:
    return bool(life.changed_messages or life.gone_messages or life.gone_vectors or life.new_tombstones)


def _row(life: Life, message: MessageState, vector: VectorWrite) -> EmbeddedRow:
    event = message.event
    assert event is not None, "a new message comes with its event"
    assert message.model is not None, "it has vectors"
    return EmbeddedRow(
        life.tenant,
        life.session_id,
        life.agent_id,
        life.user_id,
        event.message_id,
        vector.ordinal,
        vector.chunk,
        vector.start,
        vector.end,
        event.role,
        event.name,
        event.at_ms if event.occurred_at_ms is None else event.occurred_at_ms,
        event.text,
        message.model,
        vector.vector,
        log_index_of(vector.slot),
    )


def _size_bytes(row: EmbeddedRow) -> int:
    return len(row.text) + len(row.vector)


class Recent:
    """Every row whose vectors the log gave behind one index and up to the applied one."""

    def __init__(self, applied_index: int) -> None:
        self._after = applied_index
        self._rows: list[EmbeddedRow] = []
        self._bytes = 0

    def follow(self, rows: Sequence[EmbeddedRow] | None, applied_index: int) -> None:
        """Take in what a batch that ended at `applied_index` gave vectors; None: forget all that is here."""
        if rows is None:
            self._after, self._rows, self._bytes = applied_index, [], 0
            return
        self._rows += rows
        self._bytes += sum(map(_size_bytes, rows))
        if len(self._rows) > ROWS_MAX or self._bytes > BYTES_MAX:
            self._drop(self._rows[len(self._rows) // 2].log_index)

    def behind(self, cursor: int, limit: int) -> list[EmbeddedRow] | None:
        """Return rows behind the log index `cursor`, `limit` of them and the rest of the last one's entry.

        None when they may be more than are here. Whoever asks has those before, so they go.
        """
        if cursor < self._after:
            return None
        self._drop(cursor)
        if len(self._rows) <= limit:
            return list(self._rows)
        return self._rows[: bisect_right(self._rows, self._rows[limit - 1].log_index, key=_LOG_INDEX)]

    def _drop(self, up_to: int) -> None:
        count = bisect_right(self._rows, up_to, key=_LOG_INDEX)
        self._bytes -= sum(map(_size_bytes, self._rows[:count]))
        del self._rows[:count]
        self._after = max(self._after, up_to)
