"""What a log has promised: its contents after every change that was acknowledged, told without SQLite."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, EntryKind, HardState
from engram.log.members import Book
from engram.log.sqlite import SqliteLog
from tests.disk.crash_vfs import done, mounted

Rows = Mapping[int, Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a log holds, once a transaction is durable."""

    entries: Rows = field(default_factory=dict)
    staged: Rows = field(default_factory=dict)
    term: int = 0
    vote: int = 0
    commit: int = 0
    base_index: int = 0
    base_term: int = 0
    members: ConfState = field(default_factory=lambda: ConfState(voters=(1,)))
    book: Book = field(default_factory=dict)
    cluster_id: str = ""
    rebuild_due: bool = False

    @property
    def last(self) -> int:
        """The last index: that of the base when there is no entry above it."""
        return max(self.entries, default=self.base_index)

    @property
    def reached(self) -> int:
        """The last index up to which committed entries are here, staged ones included."""
        continues = self.staged and (min(self.staged) <= self.commit + 1 or self.commit == 0)
        return max(self.commit, *self.staged) if continues else self.commit

    def appended(self, appends: Sequence[Append]) -> "Contents":
        """Return what `appends`, one after the other, make of it."""
        after = self
        for append in appends:
            if append.entries:
                first = append.entries[0].index
                kept = {index: entry for index, entry in after.entries.items() if index < first}
                after = replace(
                    after,
                    entries=kept | {entry.index: entry for entry in append.entries},
                    rebuild_due=after.rebuild_due or first <= self.last,
                )
            if append.hard_state is not None:
                state = append.hard_state
                after = replace(after, term=state.term, vote=state.vote, commit=max(after.commit, state.commit))
        return after

    def with_base(self, index: int, members: ConfState, book: Book) -> "Contents":
        """Return it with its base at `index`."""
        return replace(
            self,
            base_index=index,
            base_term=self.entries[index].term,
            members=members,
            book=book,
            commit=max(self.commit, index),
        )

    def founded(self, cluster_id: str, members: ConfState, book: Book, entry: Entry) -> "Contents":
        """Return the beginning of a cluster, of which `entry` is the first."""
        begun = replace(self, entries={1: entry}, cluster_id=cluster_id, term=max(self.term, 1))
        return begun.with_base(1, members, book)

    def with_staged(self, entries: Sequence[Entry]) -> "Contents":
        """Return it with `entries` staged, of which some may be here."""
        news = {entry.index: entry for entry in entries if entry.index > self.reached}
        if not news:
            return self
        return replace(self, staged=news if self.reached == self.commit else {**self.staged, **news})

    def installed(self, index: int, members: ConfState, book: Book, hard_state: HardState) -> "Contents":
        """Return it ending in a snapshot at `index`, made of what is staged."""
        kept = {old: entry for old, entry in self.entries.items() if old <= self.commit}
        taken = {new: entry for new, entry in self.staged.items() if self.commit < new <= index}
        after = replace(
            self,
            entries=kept | taken,
            staged={} if max(self.staged) == index else self.staged,
            term=hard_state.term,
            vote=hard_state.vote,
            rebuild_due=self.rebuild_due or self.last > self.commit,
        )
        return after.with_base(index, members, book)

    def rewritten(self, payloads: Mapping[int, bytes]) -> "Contents":
        """Return it with other payloads."""
        return replace(
            self,
            entries={i: _with_payload(entry, payloads) for i, entry in self.entries.items()},
            staged={i: _with_payload(entry, payloads) for i, entry in self.staged.items()},
            commit=max(self.commit, *payloads),
        )

    def opened(self) -> "Contents":
        """Return what an opening makes of it: nothing is staged any more that is of no use."""
        return self if self.reached > self.commit else replace(self, staged={})


def found(log: SqliteLog) -> Contents:
    """Return what an open log holds.

    Raises:
        CorruptionError: Something is not as it was written.
    """
    state = log.state
    staged = mounted.connection.execute("SELECT term, idx, kind, data FROM staged ORDER BY idx")
    contents = Contents(
        entries={entry.index: entry for entry in _history(log)},
        staged={index: Entry(term, index, EntryKind(kind), data) for term, index, kind, data in staged},
        term=state.term,
        vote=state.vote,
        commit=state.commit,
        base_index=state.base_index,
        base_term=state.base_term,
        members=state.base_members,
        book=dict(state.base_book),
        cluster_id=state.cluster_id,
        rebuild_due=state.rebuild_due,
    )
    assert contents.last == state.last_index == log.last_index()
    assert log.staged_index == contents.reached
    return contents


def difference(promised: Contents, is_there: Contents) -> str:
    """Return in what `is_there` is not what was promised; empty when it is."""
    for name in ("term", "vote", "commit", "base_index", "base_term", "members", "book", "cluster_id", "rebuild_due"):
        wanted, got = getattr(promised, name), getattr(is_there, name)
        if wanted != got:
            return f"{name} is {got!r}, not {wanted!r}"
    for name in ("entries", "staged"):
        for index in sorted(getattr(promised, name).keys() | getattr(is_there, name).keys()):
            wanted, got = getattr(promised, name).get(index), getattr(is_there, name).get(index)
            if wanted != got:
                return f"{name} {index} is {_short(got)}, not {_short(wanted)}; {is_there.last} is last, not {promised.last}"
    return ""


def _history(log: SqliteLog) -> Iterator[Entry]:
    after = 0
    while after < log.state.last_index:
        batch = done(log.read(after, log.state.last_index))
        if not batch:
            return
        yield from batch
        after = batch[-1].index


def _with_payload(entry: Entry, payloads: Mapping[int, bytes]) -> Entry:
    if entry.index not in payloads:
        return entry
    return Entry(term=entry.term, index=entry.index, kind=entry.kind, data=payloads[entry.index])


def _short(entry: Entry | None) -> str:
    return (
        "missing" if entry is None else f"term {entry.term} {entry.kind.name} {entry.data[:16]!r} ({len(entry.data)})"
    )
