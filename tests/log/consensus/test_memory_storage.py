"""The storage in memory, which is the model for those on disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.log.consensus.types import (
    ENTRY_OVERHEAD_BYTES,
    ConfState,
    Entry,
    HardState,
    InvariantViolation,
    Snapshot,
    SnapshotMeta,
)
from engram.log.storage import CompactedError, MemoryStorage, SnapshotOutOfDateError, UnavailableError, fitting

MEMBERS = ConfState(voters=(1, 2))


def compacted() -> MemoryStorage:
    """Return a log with entries 4 to 6, of terms 4 to 6, after a compacted one of term 3."""
    storage = MemoryStorage()
    storage.append([Entry(index, index, data=b"%d" % index) for index in range(1, 7)])
    storage.compact(3)
    return storage


def indexes(storage: MemoryStorage) -> list[int]:
    return [entry.index for entry in storage.entries(storage.first_index(), storage.last_index() + 1)]


def test_a_new_log_is_empty_and_begins_at_1() -> None:
    storage = MemoryStorage(conf_state=MEMBERS)

    assert (storage.first_index(), storage.last_index(), storage.term(0)) == (1, 0, 0)
    assert storage.initial_state() == (HardState(), MEMBERS)


def test_what_was_set_comes_back() -> None:
    storage = MemoryStorage()

    storage.set_hard_state(HardState(term=3, vote=2, commit=1))

    assert storage.initial_state()[0] == HardState(term=3, vote=2, commit=1)


@pytest.mark.parametrize(("index", "term"), [(3, 3), (4, 4), (6, 6)])
def test_the_term_of_each_entry_and_of_the_one_before_the_first_is_known(index: int, term: int) -> None:
    assert compacted().term(index) == term


def test_older_entries_are_compacted_and_newer_ones_unavailable() -> None:
    storage = compacted()

    with pytest.raises(CompactedError):
        storage.term(2)
    with pytest.raises(CompactedError):
        storage.entries(3, 5)
    with pytest.raises(UnavailableError):
        storage.term(7)
    with pytest.raises(UnavailableError):
        storage.entries(4, 8)


@pytest.mark.parametrize(("room", "expected"), [(0, [4]), (2, [4, 5]), (3, [4, 5, 6]), (99, [4, 5, 6])])
def test_a_read_is_limited_but_never_empty(room: int, expected: list[int]) -> None:
    size_bytes = ENTRY_OVERHEAD_BYTES + 1

    assert [entry.index for entry in compacted().entries(4, 7, room * size_bytes)] == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (7, 8, [4, 5, 6, 7, 8]),
        (5, 5, [4, 5]),
        (4, 9, [4, 5, 6, 7, 8, 9]),
        (1, 5, [4, 5]),
        (1, 3, [4, 5, 6]),
    ],
)
def test_an_append_replaces_what_is_at_its_place_and_beyond(first: int, last: int, expected: list[int]) -> None:
    storage = compacted()

    storage.append([Entry(9, index) for index in range(first, last + 1)])

    assert indexes(storage) == expected


def test_an_append_that_leaves_a_gap_is_a_bug() -> None:
    with pytest.raises(InvariantViolation, match="gap"):
        compacted().append([Entry(9, 8)])


def test_an_append_of_nothing_changes_nothing() -> None:
    storage = compacted()

    storage.append([])

    assert indexes(storage) == [4, 5, 6]


def test_compacting_leaves_what_comes_after() -> None:
    storage = compacted()

    storage.compact(5)

    assert (storage.first_index(), storage.term(5), indexes(storage)) == (6, 5, [6])


def test_compacting_what_is_gone_or_not_there_is_refused() -> None:
    with pytest.raises(CompactedError):
        compacted().compact(3)
    with pytest.raises(UnavailableError):
        compacted().compact(7)


def test_a_snapshot_that_comes_in_replaces_the_log() -> None:
    storage = compacted()
    snapshot = Snapshot(SnapshotMeta(9, 7, MEMBERS), b"state")

    storage.apply_snapshot(snapshot)

    assert storage.snapshot() == snapshot
    assert (storage.first_index(), storage.last_index(), storage.term(9)) == (10, 9, 7)
    assert storage.initial_state()[1] == MEMBERS
    with pytest.raises(SnapshotOutOfDateError):
        storage.apply_snapshot(snapshot)


def test_a_snapshot_that_is_made_leaves_the_log() -> None:
    storage = compacted()

    made = storage.create_snapshot(5, b"state", MEMBERS)

    assert made == storage.snapshot() == Snapshot(SnapshotMeta(5, 5, MEMBERS), b"state")
    assert indexes(storage) == [4, 5, 6]
    with pytest.raises(SnapshotOutOfDateError):
        storage.create_snapshot(5, b"")


def test_a_copy_goes_its_own_way() -> None:
    storage = compacted()
    copy = storage.copy()

    storage.append([Entry(9, 7)])

    assert indexes(copy) == [4, 5, 6]


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(0, 300))
def test_as_many_entries_as_fit_are_returned_and_never_fewer_than_one(payloads: list[bytes], limit: int) -> None:
    entries = [Entry(1, index, data=data) for index, data in enumerate(payloads, start=1)]

    chosen = list(fitting(entries, limit))

    def size(count: int) -> int:
        return sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries[:count])

    assert chosen == entries[: len(chosen)]
    assert len(chosen) == len(entries) or size(len(chosen) + 1) > limit
    assert len(chosen) <= 1 or size(len(chosen)) <= limit
    assert chosen or not entries
