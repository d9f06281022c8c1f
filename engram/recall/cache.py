"""Recall indexes of the sessions in use, within a bound of bytes: the least recently used one goes first.

Belongs to one thread, the loop's. What is dropped here is opened again from its blob, or built from its messages.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from engram.projections.rows import SessionRow
from engram.recall.index import SessionIndex


class Cursors(NamedTuple):
    """How much of a session an index holds; the fields of `SessionRow` by the same names."""

    next_ordinal: int
    vectors_index: int
    deletions: int

    def cover(self, session: SessionRow) -> bool:
        """Whether nothing happened to the session since; an index may be ahead of an older row."""
        return (
            self.next_ordinal >= session.next_ordinal
            and self.vectors_index >= session.vectors_index
            and self.deletions >= session.deletions
        )


@dataclass(slots=True)
class CachedIndex:
    """An index, and how much of its session it holds."""

    index: SessionIndex
    cursors: Cursors


class IndexCache:
    """The indexes by session key."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[int, tuple[CachedIndex, int]] = OrderedDict()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Memory that the indexes held when they were put here."""
        return self._size_bytes

    def get(self, session_key: int) -> CachedIndex | None:
        """Return a session's index, which now counts as used."""
        entry = self._entries.get(session_key)
        if entry is None:
            return None
        self._entries.move_to_end(session_key)
        return entry[0]

    def put(self, session_key: int, cached: CachedIndex, size_bytes: int) -> None:
        """Keep a session's index, also when it alone is over the bound; others go to make room for it."""
        self._drop(session_key)
        self._entries[session_key] = (cached, size_bytes)
        self._size_bytes += size_bytes
        while self._size_bytes > self._bytes_max and len(self._entries) > 1:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Keep none of them."""
        self._entries.clear()
        self._size_bytes = 0

    def _drop(self, session_key: int) -> None:
        entry = self._entries.pop(session_key, None)
        if entry is not None:
            self._size_bytes -= entry[1]
