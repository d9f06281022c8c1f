"""What each change of the log makes of its state, decided before anything is written."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engram.errors import ConfigError
from engram.log.consensus.types import (
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    InvariantViolation,
    Snapshot,
    encode_conf_change,
)
from engram.log.members import Book, decode_book, encode_book
from engram.log.rows import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """What Raft asks to make durable at once: entries, which replace those from their first index on, and its state."""

    entries: Sequence[Entry] = ()
    hard_state: HardState | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One transaction: truncate, insert, and record the state."""

    truncate_from: int | None
    entries: Sequence[Entry]
    state: State


def planned(state: State, appends: Iterable[Append]) -> Plan:
    """Fold `appends` into one transaction: what an earlier one adds and a later one replaces is never written.

    Raises:
        InvariantViolation: A committed entry would be replaced, a gap left, the term turned back.
    """
    added: list[Entry] = []
    truncate_from: int | None = None
    term, vote, commit, last_index = state.term, state.vote, state.commit, state.last_index
    for append in appends:
        if append.entries:
            first = append.entries[0].index
            _check_place(first, commit=commit, last_index=last_index)
            if first <= state.last_index:
                truncate_from = first if truncate_from is None else min(first, truncate_from)
            if added and first <= last_index:
                del added[max(first - added[0].index, 0) :]
            added.extend(append.entries)
            last_index = append.entries[-1].index
        if append.hard_state is not None:
            term, vote = append.hard_state.term, append.hard_state.vote
            commit = max(commit, append.hard_state.commit)
    if term < state.term or commit > last_index:
        raise InvariantViolation(
            f"term {term} after {state.term}, commit {commit} of {last_index}: Raft never does this"
        )
    after = replace(
        state,
        term=term,
        vote=vote,
        commit=commit,
        last_index=last_index,
        rebuild_due=state.rebuild_due or truncate_from is not None,
    )
    return Plan(truncate_from, added, after)


def founded(state: State, cluster_id: str, members: ConfState, book: Book) -> Plan:
    """Return the beginning of a cluster: entry 1, which says who belongs to it and where they are, as its base.

    Raises:
        ConfigError: The log is not empty, or its node is in a cluster.
    """
    if state.last_index or state.cluster_id or state.base_members != ConfState():
        raise ConfigError("a cluster begins on a node whose log is empty and that is in no cluster yet")
    entry = _founding(members, book)
    after = replace(
        state,
        cluster_id=cluster_id,
        term=max(state.term, entry.term),
        commit=entry.index,
        last_index=entry.index,
        base_index=entry.index,
        base_term=entry.term,
        base_members=members,
        base_book=dict(book),
    )
    return Plan(None, [entry], after)


def continuing(entries: Sequence[Entry], reached: int) -> Sequence[Entry]:
    """Return those of `entries` that are beyond `reached`, to be staged.

    The first may be any where nothing was reached: an empty log begins where the sender's history does.

    Raises:
        InvariantViolation: They would leave a gap.
    """
    news = [entry for entry in entries if entry.index > reached]
    expected = reached + 1 if reached or not news else news[0].index
    for index, entry in enumerate(news, expected):
        if entry.index != index:
            raise InvariantViolation(f"log entry {entry.index}: staged after {index - 1} would leave a gap")
    return news


def installed(state: State, snapshot: Snapshot, hard_state: HardState) -> State:
    """Return the state of a log that ends in `snapshot`.

    Raises:
        InvariantViolation: There is nothing new in it, or the term would be turned back.
        CorruptionError: Its address book is none.
    """
    meta = snapshot.meta
    if meta.index <= state.commit or hard_state.term < max(state.term, meta.term):
        raise InvariantViolation(
            f"a snapshot at {meta.index}/{meta.term} in term {hard_state.term}, after commit {state.commit} and term"
            f" {state.term}: Raft never does this"
        )
    return replace(
        state,
        term=hard_state.term,
        vote=hard_state.vote,
        commit=meta.index,
        last_index=meta.index,
        base_index=meta.index,
        base_term=meta.term,
        base_members=meta.conf_state,
        base_book=decode_book(snapshot.data),
        rebuild_due=state.rebuild_due or state.last_index > state.commit,
    )


def _check_place(first: int, *, commit: int, last_index: int) -> None:
    if first <= commit:
        raise InvariantViolation(f"log entry {first}: committed, up to {commit}, and never to be replaced")
    if first > last_index + 1:
        raise InvariantViolation(f"log entry {first}: appended after {last_index} would leave a gap")


def _founding(members: ConfState, book: Book) -> Entry:
    kinds = {ChangeKind.ADD_VOTER: members.voters, ChangeKind.ADD_LEARNER: members.learners}
    changes = tuple(Change(kind, node_id) for kind, node_ids in kinds.items() for node_id in node_ids)
    data = encode_conf_change(ConfChange(changes=changes, context=encode_book(book)))
    return Entry(term=1, index=1, kind=EntryKind.CONF_CHANGE_V2, data=data)
