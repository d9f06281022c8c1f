"""The log before it is on disk."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.log.consensus.raftlog import RaftLog, Unstable
from engram.log.consensus.types import UNLIMITED, Entry, InvariantViolation, Snapshot, SnapshotMeta
from engram.log.storage import CompactedError, MemoryStorage, UnavailableError


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(term, index) for index in range(first, last + 1)]


def log_of(stored: int, unstable: int, *, compacted: int = 0) -> RaftLog:
    """Return a log with entries up to `stored` on disk, and up to `unstable` beside it."""
    storage = MemoryStorage()
    storage.append(entries(1, stored))
    if compacted:
        storage.compact(compacted)
    log = RaftLog(storage)
    log.append(entries(stored + 1, unstable))
    return log


def test_what_is_durable_is_forgotten_here() -> None:
    unstable = Unstable(1)
    unstable.truncate_and_append(entries(1, 5))

    unstable.stable_to(3, 1)

    assert (unstable.offset, unstable.entries) == (4, entries(4, 5))


def test_a_late_answer_about_entries_that_were_replaced_says_nothing_about_those_in_their_place() -> None:
    unstable = Unstable(1)
    unstable.truncate_and_append(entries(1, 3, term=1))
    unstable.accept_in_progress()
    unstable.truncate_and_append(entries(2, 3, term=2))

    unstable.stable_to(3, 1)

    assert unstable.entries == [*entries(1, 1), *entries(2, 3, term=2)]


def test_entries_are_handed_out_to_be_written_once() -> None:
    unstable = Unstable(1)
    unstable.truncate_and_append(entries(1, 3))
    first = list(unstable.next_entries())
    unstable.accept_in_progress()
    idle = unstable.has_next

    unstable.truncate_and_append(entries(4, 4))

    assert (first, idle, unstable.has_next) == (entries(1, 3), False, True)
    assert unstable.next_entries() == entries(4, 4)


def test_a_snapshot_is_handed_out_to_be_written_once() -> None:
    unstable, snapshot = Unstable(1), Snapshot(SnapshotMeta(4, 2))
    unstable.restore(snapshot)
    first, due = unstable.next_snapshot(), unstable.has_next
    unstable.accept_in_progress()

    assert (first, due) == (snapshot, True)
    assert (unstable.next_snapshot(), unstable.has_next) == (None, False)
    unstable.stable_snapshot_to(3)
    assert unstable.snapshot == snapshot
    unstable.stable_snapshot_to(4)
    assert unstable.snapshot is None


def test_what_replaces_entries_is_handed_out_again() -> None:
    unstable = Unstable(1)
    unstable.truncate_and_append(entries(1, 5))
    unstable.accept_in_progress()

    unstable.truncate_and_append(entries(3, 4, term=2))

    assert unstable.next_entries() == entries(3, 4, term=2)


def test_entries_may_replace_what_is_on_disk() -> None:
    log = log_of(5, 7)

    log.append(entries(4, 4, term=2))

    assert log.last_index == 4
    assert log.term(4) == 2
    assert log.slice(1, 5, UNLIMITED) == [*entries(1, 3), Entry(2, 4)]


def test_entries_that_leave_a_gap_are_a_bug() -> None:
    unstable = Unstable(1)

    with pytest.raises(InvariantViolation, match="gap"):
        unstable.truncate_and_append(entries(3, 3))


def test_entries_outside_the_unstable_ones_are_not_asked_of_them() -> None:
    unstable = Unstable(5)
    unstable.truncate_and_append(entries(5, 6))

    with pytest.raises(InvariantViolation):
        unstable.slice(4, 6)
    with pytest.raises(InvariantViolation):
        unstable.slice(5, 8)


def test_a_snapshot_stands_for_all_that_went_before() -> None:
    log = log_of(3, 5)

    log.restore(Snapshot(SnapshotMeta(9, 4)))

    assert (log.first_index, log.last_index, log.last_term, log.committed) == (10, 9, 4, 9)
    with pytest.raises(CompactedError):
        log.term(5)
    assert not log.has(5, 1)


def test_the_whole_log_can_be_read_across_the_disk_and_what_is_not_there_yet() -> None:
    log = log_of(6, 9, compacted=2)

    assert log.slice(3, 10, UNLIMITED) == entries(3, 9)
    assert list(log.entries(10, UNLIMITED)) == []
    with pytest.raises(CompactedError):
        log.entries(2, UNLIMITED)
    with pytest.raises(UnavailableError):
        log.term(10)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 200))
def test_a_limited_read_is_a_beginning_of_the_full_one(low: int, count: int, limit: int) -> None:
    log = log_of(6, 9)
    high = min(low + count, 10)

    chosen = list(log.slice(low, high, limit))

    assert chosen == entries(low, high - 1)[: len(chosen)]
    assert len(chosen) <= max(limit // 16, 1)
    assert chosen or low >= high


def test_pages_hold_every_entry_once() -> None:
    log = log_of(6, 9)

    assert [entry for page in log.pages(2, 10, 40) for entry in page] == entries(2, 9)


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(9, 9, (9, 3)), (9, 3, (9, 3)), (9, 2, (6, 2)), (5, 2, (5, 2)), (9, 1, (3, 1)), (9, 0, (0, 0)), (12, 1, (12, 0))],
)
def test_logs_may_agree_from_the_last_entry_whose_term_is_not_newer(
    index: int, term: int, expected: tuple[int, int]
) -> None:
    log = log_of(0, 0)
    log.append([*entries(1, 3, term=1), *entries(4, 6, term=2), *entries(7, 9, term=3)])

    assert log.find_conflict_by_term(index, term) == expected


def test_only_what_is_committed_is_applied_and_in_order() -> None:
    log = log_of(5, 5)
    log.commit_to(3)

    with pytest.raises(InvariantViolation):
        log.accept_applying(4, 0, allow_unstable=False)
    with pytest.raises(InvariantViolation):
        log.applied_to(4, 0)
    log.applied_to(3, 0)
    with pytest.raises(InvariantViolation):
        log.applied_to(2, 0)


def test_a_commit_index_never_falls() -> None:
    log = log_of(5, 5)
    log.commit_to(3)

    log.commit_to(2)

    assert log.committed == 3


@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_appends_of_one_leader_in_any_order_never_take_back_what_was_acknowledged(
    rng: random.Random, length: int
) -> None:
    leader = [Entry(3, index) for index in range(1, length + 1)]
    log = log_of(0, 0)
    log.append([Entry(1 + rng.randrange(2), 1), *entries(2, rng.randrange(1, 15), term=2)])
    acknowledged = 0
    for _ in range(30):
        start = rng.randrange(length)
        end = rng.randrange(start, length) + 1
        commit = rng.randrange(length + 1)
        previous_term = 3 if start else 0

        last = log.maybe_append(start, previous_term, leader[start:end], commit)

        acknowledged = max(acknowledged, last or 0)
        assert log.slice(1, acknowledged + 1, UNLIMITED) == leader[:acknowledged]
        assert log.committed <= acknowledged
