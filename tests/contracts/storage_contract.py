"""What every `Storage` promises to Raft, as tests; each implementation is run through all of them.

`Written` is how the suite writes: the protocol has only the side that Raft reads.
"""

from collections.abc import Sequence
from typing import Protocol

import pytest

from engram.log.consensus.types import ConfState, Entry, HardState
from engram.log.storage import CompactedError, Storage, UnavailableError

MEMBERS = ConfState(voters=(1, 2, 3))


class Written(Protocol):
    """A storage and the ways to fill it."""

    @property
    def storage(self) -> Storage:
        """What Raft reads."""

    async def append(self, entries: Sequence[Entry]) -> None:
        """Add `entries` in place of whatever is at their first index and beyond."""

    async def set_hard_state(self, hard_state: HardState) -> None:
        """Record the state."""

    async def make_snapshot(self, index: int, members: ConfState) -> None:
        """Make entry `index`, where `members` belonged to the cluster, the snapshot; all entries stay."""

    async def compact(self, index: int, members: ConfState) -> None:
        """Make entry `index`, where `members` belonged to the cluster, the snapshot, and let the log begin after it."""


def entry(index: int, term: int, size: int = 0) -> Entry:
    """Return an entry with a payload of `size` bytes."""
    return Entry(term=term, index=index, data=b"x" * size)


class StorageContract:
    """The suite. A subclass gives the fixture `written`, empty."""

    async def test_a_new_log_has_no_entry_and_term_0(self, written: Written) -> None:
        storage = written.storage

        assert (storage.first_index(), storage.last_index()) == (1, 0)
        assert storage.term(0) == 0
        assert storage.initial_state()[0] == HardState()

    async def test_state_and_members_are_what_was_recorded(self, written: Written) -> None:
        await written.append([entry(1, 1), entry(2, 3)])
        await written.set_hard_state(HardState(term=3, vote=2, commit=1))
        await written.compact(1, MEMBERS)

        assert written.storage.initial_state() == (HardState(term=3, vote=2, commit=1), MEMBERS)

    async def test_terms_are_known_from_the_compacted_entry_on(self, written: Written) -> None:
        await written.append([entry(1, 1), entry(2, 1), entry(3, 3), entry(4, 4), entry(5, 5)])
        await written.set_hard_state(HardState(term=5, vote=1, commit=5))
        await written.compact(3, MEMBERS)
        storage = written.storage

        assert [storage.term(index) for index in (3, 4, 5)] == [3, 4, 5]
        with pytest.raises(CompactedError):
            storage.term(2)
        with pytest.raises(UnavailableError):
            storage.term(6)

    async def test_entries_outside_of_the_log_are_named_as_such(self, written: Written) -> None:
        await written.append([entry(index, 1) for index in range(1, 7)])
        await written.set_hard_state(HardState(term=1, vote=1, commit=6))
        await written.compact(3, MEMBERS)
        storage = written.storage

        assert (storage.first_index(), storage.last_index()) == (4, 6)
        for low in (2, 3):
            with pytest.raises(CompactedError):
                storage.entries(low, 5)
        with pytest.raises(UnavailableError):
            storage.entries(5, 8)
        assert list(storage.entries(4, 7)) == [entry(index, 1) for index in (4, 5, 6)]

    @pytest.mark.parametrize(("max_bytes", "count"), [(None, 3), (0, 1), (350, 1), (700, 2), (2000, 3)])
    async def test_entries_fit_the_limit_but_there_is_always_one(
        self, written: Written, max_bytes: int | None, count: int
    ) -> None:
        entries = [entry(1, 1, 300), entry(2, 1, 300), entry(3, 2, 300)]
        await written.append(entries)

        assert list(written.storage.entries(1, 4, max_bytes)) == entries[:count]

    @pytest.mark.parametrize(
        ("second", "expected_terms"),
        [
            ([(4, 1), (5, 1)], [1, 1, 1, 1, 1]),
            ([(3, 2)], [1, 1, 2]),
            ([(2, 2), (3, 2), (4, 2), (5, 2)], [1, 2, 2, 2, 2]),
            ([(1, 2)], [2]),
            ([(3, 1), (4, 3)], [1, 1, 1, 3]),
        ],
    )
    async def test_appending_replaces_everything_from_the_first_index_on(
        self, written: Written, second: Sequence[tuple[int, int]], expected_terms: Sequence[int]
    ) -> None:
        await written.append([entry(1, 1), entry(2, 1), entry(3, 1)])
        await written.append([entry(index, term, 9) for index, term in second])
        storage = written.storage

        assert storage.last_index() == second[-1][0]
        assert [one.term for one in storage.entries(1, storage.last_index() + 1)] == expected_terms
        assert [storage.term(index) for index in range(1, storage.last_index() + 1)] == expected_terms

    async def test_a_log_whose_last_entry_is_compacted_goes_on_behind_it(self, written: Written) -> None:
        await written.append([entry(1, 1), entry(2, 2)])
        await written.set_hard_state(HardState(term=2, vote=1, commit=2))
        await written.compact(2, MEMBERS)
        storage = written.storage

        assert (storage.first_index(), storage.last_index(), storage.term(2)) == (3, 2, 2)
        await written.append([entry(3, 2)])
        assert list(storage.entries(3, 4)) == [entry(3, 2)]

    async def test_the_snapshot_says_where_the_log_begins(self, written: Written) -> None:
        await written.append([entry(1, 1), entry(2, 2), entry(3, 2)])
        await written.set_hard_state(HardState(term=2, vote=1, commit=3))
        await written.compact(2, MEMBERS)

        meta = written.storage.snapshot().meta
        assert (meta.index, meta.term, meta.conf_state) == (2, 2, MEMBERS)

    async def test_entries_at_or_below_the_snapshot_may_stay(self, written: Written) -> None:
        entries = [entry(1, 1), entry(2, 1), entry(3, 2), entry(4, 2), entry(5, 3)]
        await written.append(entries)
        await written.set_hard_state(HardState(term=3, vote=1, commit=4))
        await written.make_snapshot(3, MEMBERS)
        storage = written.storage

        meta = storage.snapshot().meta
        assert (meta.index, meta.term, meta.conf_state) == (3, 2, MEMBERS)
        assert (storage.first_index(), storage.last_index()) == (1, 5)
        assert list(storage.entries(1, 6)) == entries
        assert [storage.term(index) for index in range(6)] == [0, 1, 1, 2, 2, 3]

        await written.append([entry(5, 4), entry(6, 4)])
        assert list(storage.entries(2, 7)) == [*entries[1:4], entry(5, 4), entry(6, 4)]

        await written.compact(4, MEMBERS)
        assert (storage.first_index(), storage.term(4), list(storage.entries(5, 7))) == (
            5,
            2,
            [entry(5, 4), entry(6, 4)],
        )
