"""The log as Raft sees it without waiting for the disk: all entries above the base, and the newest of those below."""

from collections.abc import Mapping, Sequence

from engram.log.consensus.types import Entry
from engram.log.storage import CompactedError, UnavailableError

ENTRY_OVERHEAD_BYTES = 200
"""What Python needs for an entry beside its payload, about."""


class Window:
    """A run of entries that ends at the last one. Raft's log begins where it begins: at the base + 1, or before.

    What is above the base never leaves, since Raft may ask for it. What is at or below the base stays while it fits
    `bytes_max`, so that a node that is a little behind is sent entries, not a snapshot.
    """

    def __init__(self, *, base_index: int, base_term: int, bytes_max: int) -> None:
        self.base_index = base_index
        self.last_index = base_index
        self.size_bytes = 0
        self.size_above_base_bytes = 0
        self.bytes_max = bytes_max
        self._term_before = base_term
        """The term of the entry before the first."""
        self._entries: list[Entry] = []

    @property
    def first_index(self) -> int:
        """The first index that is here; last_index + 1 when none is. Never above base_index + 1."""
        return self.last_index + 1 - len(self._entries)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add `entries`, contiguous, above the base, after dropping what they replace."""
        if not entries:
            return
        assert self.base_index < entries[0].index <= self.last_index + 1
        self._resize(-sum(map(_size, self._truncated(entries[0].index))))
        self._resize(sum(map(_size, entries)))
        self._entries.extend(entries)
        self.last_index = entries[-1].index

    def trim(self, up_to: int) -> None:
        """Drop the oldest entries, up to `up_to` and the base, until at most three quarters of the limit are used.

        In steps of a quarter, so that moving the rest costs little for each entry.
        """
        if self.size_bytes <= self.bytes_max:
            return
        droppable = min(up_to, self.base_index)
        dropped = 0
        for entry in self._entries:
            if entry.index > droppable or self.size_bytes <= self.bytes_max * 3 // 4:
                break
            self.size_bytes -= _size(entry)
            self._term_before = entry.term
            dropped += 1
        del self._entries[:dropped]

    def move_base(self, index: int) -> None:
        """Let what is at or below `index` leave when room is needed."""
        first = self.first_index
        passed = self._entries[self.base_index + 1 - first : index + 1 - first]
        self.size_above_base_bytes -= sum(map(_size, passed))
        self.base_index = index

    def restart(self, base_index: int, base_term: int) -> None:
        """Forget everything: the log ends at the base."""
        self._entries.clear()
        self._term_before = base_term
        self.base_index = self.last_index = base_index
        self.size_bytes = self.size_above_base_bytes = 0

    def replace(self, payloads: Mapping[int, bytes]) -> None:
        """Put other payloads in the place of those that are here."""
        first = self.first_index
        for index, data in payloads.items():
            if first <= index <= self.last_index:
                old = self._entries[index - first]
                self._entries[index - first] = Entry(term=old.term, index=index, kind=old.kind, data=data)
                growth = len(data) - len(old.data)
                self.size_bytes += growth
                self.size_above_base_bytes += growth if index > self.base_index else 0

    def term(self, index: int) -> int:
        """Return the term of entry `index`, the one before the first included.

        Raises:
            CompactedError: It is older.
            UnavailableError: It is beyond the last.
        """
        place = index - self.first_index
        if place < -1:
            raise CompactedError
        if index > self.last_index:
            raise UnavailableError
        return self._term_before if place < 0 else self._entries[place].term

    def entries(self, low: int, high: int) -> list[Entry]:
        """Return the entries in [low, high).

        Raises:
            CompactedError: One is on disk only: to a follower that is so far behind, Raft sends a snapshot.
            UnavailableError: One is beyond the last.
        """
        first = self.first_index
        if low < first:
            raise CompactedError
        if high > self.last_index + 1:
            raise UnavailableError
        return self._entries[low - first : high - first]

    def recent(self, after: int, up_to: int) -> list[Entry] | None:
        """Return the entries in (after, up_to], or None when they are not all here."""
        first = self.first_index
        if after + 1 < first or up_to > self.last_index:
            return None
        return self._entries[after + 1 - first : up_to + 1 - first]

    def _truncated(self, first_index: int) -> list[Entry]:
        """Remove the entries from `first_index` on and return them."""
        place = first_index - self.first_index
        removed = self._entries[place:]
        del self._entries[place:]
        self.last_index = first_index - 1
        return removed

    def _resize(self, growth_bytes: int) -> None:
        self.size_bytes += growth_bytes
        self.size_above_base_bytes += growth_bytes


def _size(entry: Entry) -> int:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES
