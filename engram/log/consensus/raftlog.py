"""The log as the core sees it: what storage holds, and after it what is not yet durable."""

from collections.abc import Iterator, Sequence

from engram.log.consensus.types import UNLIMITED, Entry, InvariantViolation, Snapshot, entry_bytes
from engram.log.storage import CompactedError, Storage, UnavailableError, fitting


class Unstable:
    """A snapshot, entries, or both, that storage does not hold yet; some of it is being written.

    `entries[i]` has index `offset + i`. Below `offset_in_progress` entries were handed out to be written. An entry here
    may replace one with the same index in storage.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.offset_in_progress = offset
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False

    @property
    def first_index(self) -> int | None:
        """The first index of the whole log, if a snapshot decides it."""
        return None if self.snapshot is None else self.snapshot.meta.index + 1

    @property
    def last_index(self) -> int | None:
        """The last index of the whole log, unless storage decides it."""
        if self.entries:
            return self.offset + len(self.entries) - 1
        return None if self.snapshot is None else self.snapshot.meta.index

    @property
    def has_next(self) -> bool:
        """Whether anything was not handed out to be written."""
        if self.snapshot is not None and not self.snapshot_in_progress:
            return True
        return self.offset_in_progress < self.offset + len(self.entries)

    def term(self, index: int) -> int | None:
        """Return the term of entry `index` if it is here."""
        if index >= self.offset:
            place = index - self.offset
            return self.entries[place].term if place < len(self.entries) else None
        if self.snapshot is not None and self.snapshot.meta.index == index:
            return self.snapshot.meta.term
        return None

    def next_entries(self) -> Sequence[Entry]:
        """Return the entries that were not handed out to be written."""
        return self.entries[self.offset_in_progress - self.offset :]

    def next_snapshot(self) -> Snapshot | None:
        """Return the snapshot if it was not handed out to be written."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """Note that everything here was handed out to be written."""
        self.offset_in_progress = self.offset + len(self.entries)
        self.snapshot_in_progress = self.snapshot is not None

    def stable_to(self, index: int, term: int) -> None:
        """Forget the entries up to `index`, which are durable; unless the one there has another term by now.

        Such a late answer is about entries that were replaced: those in their place are not durable.
        """
        if index < self.offset or self.term(index) != term:
            return
        del self.entries[: index + 1 - self.offset]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """Forget the snapshot at `index`, which is durable."""
        if self.snapshot is not None and self.snapshot.meta.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in the place of the whole log."""
        self.offset = self.offset_in_progress = snapshot.meta.index + 1
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def truncate_and_append(self, entries: Sequence[Entry]) -> None:
        """Put `entries` in the place of everything from their first index on."""
        first = entries[0].index
        if first > self.offset + len(self.entries):
            raise InvariantViolation(f"entries from {first} leave a gap after {self.offset + len(self.entries) - 1}")
        if first <= self.offset:
            self.entries = list(entries)
            self.offset = self.offset_in_progress = first
            return
        del self.entries[first - self.offset :]  # none when they only append
        self.entries.extend(entries)
        self.offset_in_progress = min(self.offset_in_progress, first)

    def slice(self, low: int, high: int) -> list[Entry]:
        """Return the entries in [low, high), all of which are here."""
        if not self.offset <= low <= high <= self.offset + len(self.entries):
            raise InvariantViolation(f"entries [{low}, {high}) are not all among the unstable ones")
        return self.entries[low - self.offset : high - self.offset]


class RaftLog:
    """All entries, and how far they are: applied <= applying <= committed <= last_index.

    `max_applying_bytes` bounds what was handed out to be applied and is not applied yet.
    """

    def __init__(self, storage: Storage, *, max_applying_bytes: int = UNLIMITED) -> None:
        first_index, last_index = storage.first_index(), storage.last_index()
        self.storage = storage
        self.unstable = Unstable(last_index + 1)
        self.committed = first_index - 1
        self.applying = first_index - 1
        """Up to here entries were handed out to be applied."""
        self.applied = first_index - 1
        self._max_applying_bytes = max_applying_bytes
        self._applying_bytes = 0
        self._paused = False

    @property
    def first_index(self) -> int:
        """The index of the first entry; the term of the one before is known too."""
        index = self.unstable.first_index
        return self.storage.first_index() if index is None else index

    @property
    def last_index(self) -> int:
        """The index of the last entry."""
        index = self.unstable.last_index
        return self.storage.last_index() if index is None else index

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self.term(self.last_index)

    def term(self, index: int) -> int:
        """Return the term of entry `index`, from first_index - 1 to last_index.

        Raises:
            CompactedError: It is older.
            UnavailableError: It is newer.
        """
        term = self.unstable.term(index)
        if term is not None:
            return term
        if index + 1 < self.first_index:
            raise CompactedError
        if index > self.last_index:
            raise UnavailableError
        return self.storage.term(index)

    def has(self, index: int, term: int) -> bool:
        """Return whether the entry at `index` is known, and of `term`."""
        try:
            return self.term(index) == term
        except (CompactedError, UnavailableError):
            return False

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Return whether a log that ends so is at least as new as this one: the term decides, then the length."""
        own_term = self.last_term
        return last_term > own_term or (last_term == own_term and last_index >= self.last_index)

    def entries(self, low: int, max_bytes: int) -> Sequence[Entry]:
        """Return the entries from `low` on that fit `max_bytes`, but at least one if there is any.

        Raises:
            CompactedError: `low` is older than the first.
        """
        if low > self.last_index:
            return ()
        return self.slice(low, self.last_index + 1, max_bytes)

    def slice(self, low: int, high: int, max_bytes: int) -> Sequence[Entry]:
        """Return the first entries of [low, high), at least one, that fit `max_bytes`.

        Raises:
            CompactedError: `low` is older than the first.
        """
        offset = self.unstable.offset
        if low >= offset:
            return fitting(self.unstable.slice(low, high), max_bytes)
        if low < self.first_index:
            raise CompactedError
        cut = min(high, offset)
        stored = self.storage.entries(low, cut, max_bytes)
        if high <= offset or len(stored) < cut - low:
            return stored
        room = max_bytes - sum(map(entry_bytes, stored))
        more = fitting(self.unstable.slice(offset, high), room) if room > 0 else ()
        if len(more) == 1 and entry_bytes(more[0]) > room:  # the one that a limited read always returns
            return stored
        return [*stored, *more]

    def pages(self, low: int, high: int, page_bytes: int) -> Iterator[Sequence[Entry]]:
        """Yield the entries in [low, high) in pages of about `page_bytes`."""
        while low < high:
            page = self.slice(low, high, page_bytes)
            yield page
            low += len(page)

    def append(self, entries: Sequence[Entry]) -> int:
        """Put `entries` in the place of everything from their first index on; return the new last index."""
        if entries:
            if entries[0].index <= self.committed:
                raise InvariantViolation(f"entry {entries[0].index} would replace a committed one ({self.committed})")
            self.unstable.truncate_and_append(entries)
        return self.last_index

    def maybe_append(
        self, previous_index: int, previous_term: int, entries: Sequence[Entry], commit: int
    ) -> int | None:
        """Append what a leader sent after the entry (previous_index, previous_term); None when that one is not here.

        Return the index of the last entry that is now known to be the leader's. Only up to there may its commit index
        count: what this log holds beyond may be another leader's. Entries that are here already stay, and so does what
        follows them: an append that comes late is shorter, not wrong.
        """
        if not self.has(previous_index, previous_term):
            return None
        last_new_index = previous_index + len(entries)
        for place, entry in enumerate(entries):
            if not self.has(entry.index, entry.term):
                self.append(entries[place:])
                break
        self.commit_to(min(commit, last_new_index))
        return last_new_index

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Return the last (index, term) at or below `index` whose term is at most `term`: logs may agree from there.

        The term is 0 where it is not known. A whole term is skipped at each step, so a follower is probed at most once
        for each term.
        """
        while index > 0:
            try:
                own_term = self.term(index)
            except (CompactedError, UnavailableError):
                return index, 0
            if own_term <= term:
                return index, own_term
            index -= 1
        return 0, 0

    def maybe_commit(self, index: int, term: int) -> bool:
        """Commit up to `index` if that is news and the entry is of `term`; return whether it was done.

        A leader commits by counting only what is of its own term. An older entry may be on a majority and still be
        replaced by a leader that never saw it.
        """
        if index <= self.committed or not self.has(index, term):
            return False
        self.commit_to(index)
        return True

    def commit_to(self, index: int) -> None:
        """Commit up to `index`; less than is committed is no news."""
        if index <= self.committed:
            return
        if index > self.last_index:
            raise InvariantViolation(f"commit {index} is beyond the last entry, {self.last_index}: was the log lost?")
        self.committed = index

    def has_unstable(self) -> bool:
        """Return whether any entry is not durable, being written or not."""
        return bool(self.unstable.entries)

    def next_committed(self, *, allow_unstable: bool) -> Sequence[Entry]:
        """Return the entries to apply next; with `allow_unstable`, also those that are not known to be durable here."""
        if not self.has_next_committed(allow_unstable=allow_unstable):
            return ()
        room = self._max_applying_bytes - self._applying_bytes
        return self.slice(self.applying + 1, self._max_appliable(allow_unstable=allow_unstable) + 1, room)

    def has_next_committed(self, *, allow_unstable: bool) -> bool:
        """Return whether there is something to apply, and room for it."""
        if self._paused or self.unstable.snapshot is not None:  # what a snapshot holds comes first
            return False
        return self.applying < self._max_appliable(allow_unstable=allow_unstable)

    def accept_applying(self, index: int, size_bytes: int, *, allow_unstable: bool) -> None:
        """Note that entries up to `index`, of `size_bytes`, were handed out to be applied."""
        if index > self.committed:
            raise InvariantViolation(f"entry {index} applied, though only {self.committed} are committed")
        self.applying = index
        self._applying_bytes += size_bytes
        # Also when more could have been returned: then the limit is why it was not.
        self._paused = self._applying_bytes >= self._max_applying_bytes or index < self._max_appliable(
            allow_unstable=allow_unstable
        )

    def applied_to(self, index: int, size_bytes: int) -> None:
        """Note that entries up to `index` are applied, which frees `size_bytes`."""
        if not self.applied <= index <= self.committed:
            raise InvariantViolation(f"applied {index} is not in [{self.applied}, {self.committed}]")
        self.applied = index
        self.applying = max(self.applying, index)
        self._applying_bytes = max(self._applying_bytes - size_bytes, 0)
        self._paused = self._applying_bytes >= self._max_applying_bytes

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot.

        Raises:
            SnapshotTemporarilyUnavailableError: Ask again later.
        """
        return self.storage.snapshot() if self.unstable.snapshot is None else self.unstable.snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in the place of the whole log."""
        self.committed = snapshot.meta.index
        self.unstable.restore(snapshot)

    def _max_appliable(self, *, allow_unstable: bool) -> int:
        return self.committed if allow_unstable else min(self.committed, self.unstable.offset - 1)
