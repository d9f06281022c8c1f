"""Random walks through memberships: majorities always meet, and every way to learn the roster leads to the same one."""

from collections.abc import Iterable, Mapping
from itertools import chain, combinations, product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engram.log.consensus import confchange
from engram.log.consensus.confchange import Changer, ConfChangeError, check_configuration
from engram.log.consensus.quorum import VoteResult, joint_vote
from engram.log.consensus.tracker import Members, Tracker
from engram.log.consensus.types import Change, ChangeKind, ConfChange, ConfState, Transition
from engram.log.members import Book, Member, decode_book, encode_book
from engram.log.roster import Roster

NODES = range(1, 6)
CHANGES = st.lists(st.builds(Change, st.sampled_from(ChangeKind), st.sampled_from(NODES)), min_size=1, max_size=4).map(
    tuple
)


def tracker() -> Tracker:
    return Tracker(inflight_messages_max=1, inflight_bytes_max=1)


def member(node_id: int, move: int) -> Member:
    return Member(address=f"10.0.{move}.{node_id}:9001", http_address="", store_id=f"disk-{node_id}")


def groups(nodes: Iterable[int]) -> Iterable[tuple[int, ...]]:
    nodes = sorted(nodes)
    return chain.from_iterable(combinations(nodes, size) for size in range(len(nodes) + 1))


def decides(members: Members, group: Iterable[int]) -> bool:
    """Return whether `group` by itself can elect or commit."""
    return joint_vote(members.incoming, members.outgoing, dict.fromkeys(group, True)) is VoteResult.WON


def foreseen(members: Members, change: ConfChange, *, is_simple: bool) -> Members | None:
    """Return what `change` makes of `members`, in the fewest words; None if it must be refused."""
    if change.leaves_joint:
        learners = members.learners | members.learners_next
        return Members(incoming=members.incoming, learners=learners) if members.is_joint else None
    voters, learners = members.incoming, members.learners
    for one in change.changes:
        if one.kind is not ChangeKind.UPDATE:
            voters, learners = voters - {one.node_id}, learners - {one.node_id}
        if one.kind is ChangeKind.ADD_VOTER:
            voters |= {one.node_id}
        if one.kind is ChangeKind.ADD_LEARNER:
            learners |= {one.node_id}
    if members.is_joint or not voters:
        return None
    if is_simple or not change.enters_joint:
        return Members(incoming=voters, learners=learners) if len(voters ^ members.incoming) <= 1 else None
    old = members.incoming
    return Members(voters, old, learners - old, learners & old, change.auto_leave)


class Walk(RuleBasedStateMachine):
    """Every change that the core accepts is applied, as every node of a cluster does."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = tracker()
        self.moves = 0
        self.applied: list[tuple[ConfChange, ConfState]] = []
        self.states: list[tuple[ConfState, Book]] = []
        """After each change, as a snapshot there would carry it."""

    @initialize(voters=st.sets(st.sampled_from(NODES), min_size=2, max_size=4))
    def begin(self, voters: set[int]) -> None:
        state = ConfState(voters=tuple(sorted(voters)))
        self.adopt(confchange.restore(self.tracker, state, last_index=1))
        book = {node_id: member(node_id, 0) for node_id in voters}
        self.roster = Roster(state, book)
        self.book: dict[int, Member] = dict(book)
        self.states.append((state, dict(book)))

    @rule(changes=CHANGES, transition=st.sampled_from(Transition), names=st.sets(st.sampled_from(NODES)))
    def change(self, changes: tuple[Change, ...], transition: Transition, names: set[int]) -> None:
        self.moves += 1
        book = {node_id: member(node_id, self.moves) for node_id in names}
        self.take(ConfChange(changes=changes, transition=transition, context=encode_book(book)), book)

    @rule(data=st.data(), kind=st.sampled_from((ChangeKind.ADD_LEARNER, ChangeKind.REMOVE)), new=st.sampled_from(NODES))
    def exchange_a_voter(self, data: st.DataObject, kind: ChangeKind, new: int) -> None:
        old = data.draw(st.sampled_from(sorted(self.tracker.members.incoming)), "old")
        self.take(ConfChange(changes=(Change(kind, old), Change(ChangeKind.ADD_VOTER, new))), {})

    @rule(changes=CHANGES)
    def change_at_once(self, changes: tuple[Change, ...]) -> None:
        """Without a joint configuration: of several changes no more than one may be of a voter."""
        self.take(ConfChange(changes=changes), {}, is_simple=True)

    @rule()
    def leave(self) -> None:
        self.take(ConfChange(), {})

    def take(self, change: ConfChange, book: Mapping[int, Member], *, is_simple: bool = False) -> None:
        before = self.tracker.members
        untouched = {node_id: id(progress) for node_id, progress in self.tracker.progress.items()}
        try:
            changer = Changer(self.tracker, last_index=9)
            configuration = changer.simple(change.changes) if is_simple else changer.apply(change)
        except ConfChangeError:
            assert foreseen(before, change, is_simple=is_simple) is None
            assert self.tracker.members == before
            assert {node_id: id(progress) for node_id, progress in self.tracker.progress.items()} == untouched
            return
        self.adopt(configuration)
        assert self.tracker.members == foreseen(before, change, is_simple=is_simple)
        self.majorities_meet(before, self.tracker.members)
        state = self.tracker.members.conf_state()
        self.roster.apply(change, state)
        self.book = {node_id: place for node_id, place in {**self.book, **book}.items() if node_id in self.ids}
        self.applied.append((change, state))
        self.states.append((state, dict(self.book)))

    def majorities_meet(self, before: Members, after: Members) -> None:
        """Whoever decides by the one membership has a node in common with whoever decides by the other."""
        if before.voters == after.voters and before.is_joint == after.is_joint:
            return
        for old in groups(before.voters):
            if decides(before, old):
                rest = (before.voters | after.voters) - set(old)
                assert not decides(after, rest), f"{old} decides before, {sorted(rest)} after"

    def adopt(self, configuration: confchange.Configuration) -> None:
        self.tracker.members, self.tracker.progress = configuration.members, configuration.progress

    @property
    def ids(self) -> set[int]:
        return set(self.tracker.progress)

    @invariant()
    def the_membership_makes_sense(self) -> None:
        members = self.tracker.members
        check_configuration(members, self.tracker.progress)
        assert members.incoming
        assert not members.learners & members.voters
        assert members.learners_next <= members.outgoing
        assert self.ids == members.voters | members.learners | members.learners_next

    @invariant()
    def who_has_progress_is_in_the_roster(self) -> None:
        assert self.roster.ids == self.ids
        assert self.roster.voters == self.tracker.members.voters
        assert self.roster.book == self.book

    @invariant()
    def the_membership_survives_a_snapshot(self) -> None:
        state = self.tracker.members.conf_state()
        restored = confchange.restore(tracker(), state, last_index=9)
        assert restored.members == self.tracker.members
        assert {node_id: one.is_learner for node_id, one in restored.progress.items()} == {
            node_id: one.is_learner for node_id, one in self.tracker.progress.items()
        }

    @rule(data=st.data(), is_installed=st.booleans())
    def start_again_from_a_base(self, data: st.DataObject, *, is_installed: bool) -> None:
        """A node that starts from any base and folds the changes behind it knows what all others know."""
        base = data.draw(st.integers(0, len(self.applied)), "base")
        members, book = self.states[base]
        book = decode_book(encode_book(book))
        roster = Roster(members, book)
        if is_installed:
            roster = Roster(ConfState(voters=(99,)), {99: member(99, 0)})
            roster.replace(members, book)
        for change, state in self.applied[base:]:
            roster.apply(change, state)
        assert (roster.members, roster.book) == (self.roster.members, self.roster.book)


TestWalk = Walk.TestCase
TestWalk.settings = settings(stateful_step_count=20)


@pytest.mark.parametrize("is_simple", [True, False])
@pytest.mark.parametrize("voters", [(1,), (1, 2), (1, 2, 3)])
def test_every_pair_of_changes_does_what_it_says_or_is_refused(voters: tuple[int, ...], *, is_simple: bool) -> None:
    every = [Change(kind, node_id) for kind in ChangeKind for node_id in NODES]
    for changes in product(every, repeat=2):
        before = tracker()
        configuration = confchange.restore(before, ConfState(voters=voters, learners=(4,)), last_index=1)
        before.members, before.progress = configuration.members, configuration.progress
        change = ConfChange(changes=changes)
        changer = Changer(before, last_index=1)
        try:
            after = (changer.simple(changes) if is_simple else changer.apply(change)).members
        except ConfChangeError:
            after = None

        assert after == foreseen(before.members, change, is_simple=is_simple)
