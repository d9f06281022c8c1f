"""What Raft needs to read back of what it asked to be written, and a model of it in memory.

The rules below are the contract; every implementation passes the same suite.

* The entries are contiguous, from `first_index()` to `last_index()`, which is `first_index() - 1` when there are none.
* The entry before the first is compacted but its term is still known: it is what the snapshot, or an empty log, ends in,
  or an entry before it.
* The snapshot's index is from `first_index() - 1` to the commit index. Entries at or below it may still be there.
* Nothing here waits. What is returned is what is durable, or about to be: an entry may be read from the moment that the
  core was told it is written.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from engram.log.consensus.types import (
    ConfState,
    Entry,
    HardState,
    InvariantViolation,
    Snapshot,
    SnapshotMeta,
    entry_bytes,
)


class CompactedError(Exception):
    """The entry is older than the first that is kept: only a snapshot can stand in for it."""


class UnavailableError(Exception):
    """The entry is newer than the last."""


class SnapshotTemporarilyUnavailableError(Exception):
    """A snapshot is being made; ask again later."""


class SnapshotOutOfDateError(Exception):
    """The snapshot is older than the one that is there."""


class Storage(Protocol):
    """The readable side of the log on disk. One node owns it, and reads it from one task."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return what a node starts from: its durable state, and the members at the snapshot.

        The commit index never exceeds the last index and is never below the snapshot's.
        """

    def first_index(self) -> int:
        """Return the index of the first entry that may be read; 1 for a new log."""

    def last_index(self) -> int:
        """Return the index of the last entry; 0 for a new log."""

    def term(self, index: int) -> int:
        """Return the term of entry `index`, from first_index() - 1 to last_index().

        Raises:
            CompactedError: It is older.
            UnavailableError: It is newer.
        """

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> Sequence[Entry]:
        """Return the first entries of [low, high), at least one, and no more than fit about `max_bytes`.

        An implementation may count payloads alone or add a few bytes for each entry.

        Raises:
            CompactedError: `low` is older than the first entry.
            UnavailableError: `high` is beyond the last entry + 1.
        """

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot.

        Raises:
            SnapshotTemporarilyUnavailableError: Ask again later.
        """


class MemoryStorage:
    """A log in memory: the model that implementations on disk are compared with, and the disk of simulated nodes."""

    def __init__(self, *, conf_state: ConfState | None = None) -> None:
        self._hard_state = HardState()
        self._snapshot = Snapshot(SnapshotMeta(conf_state=conf_state or ConfState()))
        self._entries = [Entry(0, 0)]
        """The first stands for what was compacted: it has a term and an index, and no payload."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        return self._hard_state, self._snapshot.meta.conf_state

    def first_index(self) -> int:
        return self._entries[0].index + 1

    def last_index(self) -> int:
        return self._entries[-1].index

    def term(self, index: int) -> int:
        offset = self._entries[0].index
        if index < offset:
            raise CompactedError
        if index > self._entries[-1].index:
            raise UnavailableError
        return self._entries[index - offset].term

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> Sequence[Entry]:
        offset = self._entries[0].index
        if low <= offset:
            raise CompactedError
        if high > self._entries[-1].index + 1:
            raise UnavailableError
        return fitting(self._entries[low - offset : high - offset], max_bytes)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def set_hard_state(self, state: HardState) -> None:
        """Record term, vote and commit index."""
        self._hard_state = state

    def append(self, entries: Sequence[Entry]) -> None:
        """Add `entries` in place of whatever is at their first index and beyond; compacted ones are left out.

        Raises:
            InvariantViolation: They would leave a gap.
        """
        if not entries or entries[-1].index < self.first_index():
            return
        kept = entries[max(self.first_index() - entries[0].index, 0) :]
        place = kept[0].index - self._entries[0].index
        if place > len(self._entries):
            raise InvariantViolation(f"entry {kept[0].index} appended after {self.last_index()} would leave a gap")
        self._entries[place:] = kept

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the whole log by `snapshot`.

        Raises:
            SnapshotOutOfDateError: There is one that is as new.
        """
        if snapshot.meta.index <= self._snapshot.meta.index:
            raise SnapshotOutOfDateError
        self._snapshot = snapshot
        self._entries = [Entry(snapshot.meta.term, snapshot.meta.index)]

    def create_snapshot(self, index: int, data: bytes, conf_state: ConfState | None = None) -> Snapshot:
        """Make the state at entry `index` the newest snapshot; the entries stay. Without `conf_state` no member changed.

        Raises:
            SnapshotOutOfDateError: There is one that is as new.
            UnavailableError: `index` is beyond the last entry.
        """
        if index <= self._snapshot.meta.index:
            raise SnapshotOutOfDateError
        members = conf_state or self._snapshot.meta.conf_state
        self._snapshot = Snapshot(SnapshotMeta(index, self.term(index), members), data)
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forget the entries up to `index`, the payload of that one included.

        Raises:
            CompactedError: They are gone already.
            UnavailableError: `index` is beyond the last entry.
        """
        offset = self._entries[0].index
        if index <= offset:
            raise CompactedError
        term = self.term(index)
        self._entries[: index - offset + 1] = [Entry(term, index)]

    def copy(self) -> "MemoryStorage":
        """Return a log of its own with the same content: what a crash leaves, for a simulated disk."""
        other = MemoryStorage()
        other._hard_state, other._snapshot, other._entries = self._hard_state, self._snapshot, self._entries.copy()
        return other


def fitting(entries: Sequence[Entry], max_bytes: int | None) -> Sequence[Entry]:
    """Return the first of `entries`, at least one if there is any, that together fit `max_bytes`."""
    if max_bytes is None or len(entries) <= 1:
        return entries
    sizes = list(accumulate(map(entry_bytes, entries)))
    return entries[: max(bisect_left(sizes, max_bytes + 1), 1)]
