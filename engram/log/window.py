"""The live log as Raft sees it without waiting for the disk: the term of each entry, and the newest entries whole."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from engram.log.consensus.types import Entry
from engram.log.storage import CompactedError, UnavailableError

ENTRY_OVERHEAD_BYTES = 200
"""What Python needs for an entry beside its payload, about."""


class Window:
    """Entries base+1..last: terms of all of them, payloads of a recent run that ends at the last.

    Terms cost nothing to keep, since they rise rarely: one pair for each. Payloads are bounded by `bytes_max`, except
    that entries which Raft has not handed over as committed never leave.
    """

    def __init__(self, *, base_index: int, base_term: int, bytes_max: int) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index
        self.size_bytes = 0
        self._bytes_max = bytes_max
        self._entries: list[Entry] = []
        self._first_of_terms: list[int] = []
        self._terms: list[int] = []

    @property
    def first_index(self) -> int:
        """The first index whose payload is here; last_index + 1 when none is."""
        return self.last_index + 1 - len(self._entries)

    def restore(self, first_of_terms: Iterable[tuple[int, int]], last_index: int) -> None:
        """Take the terms of entries that are on disk, up to `last_index`, without their payloads."""
        for first, term in first_of_terms:
            self._first_of_terms.append(first)
            self._terms.append(term)
        self.last_index = last_index

    def append(self, entries: Sequence[Entry]) -> None:
        """Add `entries`, contiguous, after dropping what they replace."""
        if not entries:
            return
        assert self.base_index < entries[0].index <= self.last_index + 1
        self._truncate(entries[0].index)
        for entry in entries:
            if not self._terms or entry.term != self._terms[-1]:
                self._first_of_terms.append(entry.index)
                self._terms.append(entry.term)
            self.size_bytes += _size(entry)
        self._entries.extend(entries)
        self.last_index = entries[-1].index

    def trim(self, handed_over: int) -> None:
        """Drop the oldest payloads up to `handed_over` until at most three quarters of the limit are used."""
        if self.size_bytes <= self._bytes_max:
            return
        dropped = 0
        for entry in self._entries:
            if entry.index > handed_over or self.size_bytes <= self._bytes_max * 3 // 4:
                break
            self.size_bytes -= _size(entry)
            dropped += 1
        del self._entries[:dropped]  # in steps of a quarter, so that moving the rest costs little for each entry

    def move_base(self, index: int) -> None:
        """Let Raft's log begin after `index`."""
        self.base_term = self.term(index)
        self.base_index = index
        keep = max(bisect_right(self._first_of_terms, index + 1) - 1, 0)
        del self._first_of_terms[:keep]
        del self._terms[:keep]

    def replace(self, entries: Mapping[int, bytes]) -> None:
        """Put other payloads in the place of those that are here."""
        first = self.first_index
        for index, data in entries.items():
            if first <= index <= self.last_index:
                old = self._entries[index - first]
                self._entries[index - first] = Entry(term=old.term, index=index, kind=old.kind, data=data)
                self.size_bytes += len(data) - len(old.data)

    def term(self, index: int) -> int:
        """Return the term of entry `index`, the base included.

        Raises:
            CompactedError: It is below the base.
            UnavailableError: It is beyond the last.
        """
        if index < self.base_index:
            raise CompactedError
        if index > self.last_index:
            raise UnavailableError
        if index == self.base_index:
            return self.base_term
        return self._terms[bisect_right(self._first_of_terms, index) - 1]

    def entries(self, low: int, high: int) -> list[Entry]:
        """Return the entries in [low, high).

        Raises:
            CompactedError: A payload is below the base, or on disk only: to a follower that is so far behind, Raft
                sends a snapshot.
            UnavailableError: One is beyond the last.
        """
        if low <= self.base_index or low < self.first_index:
            raise CompactedError
        if high > self.last_index + 1:
            raise UnavailableError
        return self._entries[low - self.first_index : high - self.first_index]

    def recent(self, after: int, up_to: int) -> list[Entry] | None:
        """Return the entries in (after, up_to], or None when their payloads are not all here."""
        first = self.first_index
        if after + 1 < first or up_to > self.last_index:
            return None
        return self._entries[after + 1 - first : up_to + 1 - first]

    def _truncate(self, first_index: int) -> None:
        if first_index > self.last_index:
            return
        keep = max(first_index - self.first_index, 0)
        self.size_bytes -= sum(map(_size, self._entries[keep:]))
        del self._entries[keep:]
        runs = bisect_right(self._first_of_terms, first_index - 1)
        del self._first_of_terms[runs:]
        del self._terms[runs:]
        self.last_index = first_index - 1


def _size(entry: Entry) -> int:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES
