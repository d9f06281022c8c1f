"""The roster: members and their addresses move together."""

import pytest

from engram.errors import CorruptionError
from engram.log.consensus.types import Change, ChangeKind, ConfChange, ConfState
from engram.log.members import Member, decode_book, encode_book
from engram.log.roster import Roster

ONE, TWO, THREE = (
    Member(address=f"10.0.0.{number}:9001", http_address=f"10.0.0.{number}:3000", store_id=f"disk-{number}")
    for number in (1, 2, 3)
)


def test_a_book_survives_its_encoding_whatever_its_order() -> None:
    assert decode_book(encode_book({1: ONE, 2: TWO})) == {1: ONE, 2: TWO}
    assert encode_book({2: TWO, 1: ONE}) == encode_book({1: ONE, 2: TWO})
    assert (encode_book({}), decode_book(b"")) == (b"", {})


@pytest.mark.parametrize("data", [b"\xc1", b"\x90", encode_book({1: ONE})[:-3]])
def test_what_is_no_book_is_named(data: bytes) -> None:
    with pytest.raises(CorruptionError, match=f"address book of {len(data)} bytes"):
        decode_book(data)


def test_addresses_come_and_go_with_members() -> None:
    roster = Roster(ConfState(voters=(1, 2)), {1: ONE, 2: TWO})
    added = ConfChange(changes=(Change(ChangeKind.ADD_LEARNER, 3),), context=encode_book({3: THREE}))

    roster.apply(added, ConfState(voters=(1, 2), learners=(3,)))
    assert (set(roster.ids), set(roster.voters), roster.book[3]) == ({1, 2, 3}, {1, 2}, THREE)

    roster.apply(ConfChange(changes=(Change(ChangeKind.REMOVE, 2),)), ConfState(voters=(1,), learners=(3,)))
    assert (set(roster.ids), roster.book) == ({1, 3}, {1: ONE, 3: THREE})


def test_whoever_leaves_by_a_joint_change_stays_until_it_is_left() -> None:
    roster = Roster(ConfState(voters=(1, 2)), {1: ONE, 2: TWO})
    change = ConfChange(
        changes=(Change(ChangeKind.REMOVE, 2), Change(ChangeKind.ADD_VOTER, 3)), context=encode_book({3: THREE})
    )

    roster.apply(change, ConfState(voters=(1, 3), voters_outgoing=(1, 2), auto_leave=True))
    assert (set(roster.voters), set(roster.book)) == ({1, 2, 3}, {1, 2, 3})

    roster.apply(ConfChange(), ConfState(voters=(1, 3)))
    assert (set(roster.voters), set(roster.book)) == ({1, 3}, {1, 3})


def test_a_member_moves() -> None:
    roster = Roster(ConfState(voters=(1,)), {1: ONE})

    roster.apply(ConfChange(changes=(Change(ChangeKind.UPDATE, 1),), context=encode_book({1: TWO})), roster.members)

    assert roster.book == {1: TWO}
