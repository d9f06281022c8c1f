"""How members come, go, and hand over."""

import random

import pytest

from engram.log.consensus.confchange import Changer, ConfChangeError, check_configuration, restore
from engram.log.consensus.raft import Config, Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.tracker import Members, Tracker
from engram.log.consensus.types import (
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    DropReason,
    Entry,
    EntryKind,
    HardState,
    InvariantViolation,
    Message,
    MessageType,
    ProposalDroppedError,
    Snapshot,
    SnapshotMeta,
    Transition,
    decode_conf_change,
)
from engram.log.storage import MemoryStorage
from tests.log.consensus.cluster import ELECTION_TICKS, Cluster, options

ADD, REMOVE, LEARN = ChangeKind.ADD_VOTER, ChangeKind.REMOVE, ChangeKind.ADD_LEARNER


def change(cluster: Cluster, *changes: Change, transition: Transition = Transition.AUTO, by: int = 1) -> None:
    cluster.do(by, lambda raw: raw.propose_conf_change(ConfChange(changes, transition)))


def members(cluster: Cluster, node_id: int) -> Members:
    return cluster[node_id].raft.tracker.members


def test_a_new_voter_gets_the_whole_log_and_votes() -> None:
    cluster = Cluster(2, conf_state=ConfState(voters=(1,)))
    cluster.elect(1)
    cluster.propose(1, b"x")

    change(cluster, Change(ADD, 2))
    cluster.settle()
    cluster.pass_time(2)

    assert members(cluster, 2) == Members(incoming=frozenset({1, 2}))
    assert cluster[2].log() == cluster[1].log()
    cluster.isolate(2)
    cluster.propose(1, b"needs both")
    cluster.settle()
    assert cluster[1].raft.log.committed == cluster[1].raft.log.last_index - 1


def test_a_learner_gets_the_log_and_does_not_count() -> None:
    cluster = Cluster(2, conf_state=ConfState(voters=(1,)))
    cluster.elect(1)

    change(cluster, Change(LEARN, 2))
    cluster.settle()
    cluster.pass_time(2)
    assert cluster[2].log() == cluster[1].log()
    cluster.isolate(2)
    cluster.propose(1, b"x")
    cluster.settle()

    assert cluster[1].raft.log.committed == cluster[1].raft.log.last_index


def test_a_second_change_is_refused_while_the_first_is_under_way() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    change(cluster, Change(REMOVE, 3))
    change(cluster, Change(REMOVE, 2))
    cluster.settle()

    assert members(cluster, 1).incoming == {1, 2}
    assert [entry.kind for entry in cluster.referee.committed.values()] == [
        EntryKind.NORMAL,
        EntryKind.CONF_CHANGE_V2,
        EntryKind.NORMAL,
    ]


def test_a_new_leader_takes_no_change_before_it_has_applied_what_it_found() -> None:
    cluster = Cluster(3)
    for node_id in cluster.nodes:
        storage = MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
        storage.append([Entry(1, 1)])
        storage.set_hard_state(HardState(term=1))
        cluster.boot(node_id, storage)
    cluster.do(1, RawNode.campaign)
    while not cluster.leaders:
        cluster.step_once()

    change(cluster, Change(REMOVE, 3))
    cluster.settle()
    assert members(cluster, 1).incoming == {1, 2, 3}
    change(cluster, Change(REMOVE, 3))
    cluster.settle()

    assert members(cluster, 1).incoming == {1, 2}


def test_several_changes_go_through_a_joint_configuration_that_is_left_by_itself() -> None:
    cluster = Cluster(5, conf_state=ConfState(voters=(1, 2, 3)))
    cluster.elect(1)

    change(cluster, Change(REMOVE, 2), Change(REMOVE, 3), Change(ADD, 4), Change(ADD, 5))
    cluster.settle()
    cluster.pass_time(2)

    assert [members(cluster, node_id) for node_id in (1, 4, 5)] == [Members(incoming=frozenset({1, 4, 5}))] * 3
    kinds = [entry.kind for entry in cluster.referee.committed.values()]
    assert kinds.count(EntryKind.CONF_CHANGE_V2) == 2


def test_a_joint_configuration_is_left_once_however_much_is_applied_meanwhile() -> None:
    cluster = Cluster(3, configure=options(max_committed_bytes_per_ready=1))
    cluster.elect(1)
    change(cluster, Change(LEARN, 3), Change(ChangeKind.UPDATE, 2))
    for _ in range(4):
        cluster.propose(1, b"x")

    cluster.settle()

    data = [entry.data for entry in cluster.referee.committed.values() if entry.kind is EntryKind.NORMAL]
    assert data == [b"", *[b"x"] * 4]
    assert cluster[1].raft.log.last_index == 7
    assert members(cluster, 1) == Members(incoming=frozenset({1, 2}), learners=frozenset({3}))


def test_while_it_is_joint_both_majorities_must_agree() -> None:
    cluster = Cluster(5, conf_state=ConfState(voters=(1, 2, 3)))
    cluster.elect(1)
    change(
        cluster,
        Change(REMOVE, 2),
        Change(REMOVE, 3),
        Change(ADD, 4),
        Change(ADD, 5),
        transition=Transition.JOINT_EXPLICIT,
    )
    cluster.settle()
    assert members(cluster, 1).is_joint

    cluster.isolate(2, 3)
    cluster.propose(1, b"x")
    cluster.settle()
    index = cluster[1].raft.log.last_index
    assert cluster[1].raft.log.committed == index - 1
    cluster.heal()
    cluster.pass_time(2)

    assert cluster[1].raft.log.committed == index


def test_an_explicit_joint_configuration_is_left_by_an_empty_change() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    change(cluster, Change(REMOVE, 3), transition=Transition.JOINT_EXPLICIT)
    cluster.settle()
    assert members(cluster, 1).is_joint

    change(cluster)
    cluster.settle()

    assert members(cluster, 1) == Members(incoming=frozenset({1, 2}))


def test_a_new_leader_leaves_a_joint_configuration_that_it_finds() -> None:
    cluster = Cluster(4, conf_state=ConfState(voters=(1, 2, 3)))
    cluster.elect(1)
    change(cluster, Change(REMOVE, 1), Change(ADD, 4))
    while not members(cluster, 2).is_joint:
        cluster.step_once()
    cluster.isolate(1)

    cluster.pass_time(6 * ELECTION_TICKS)
    cluster.heal()
    cluster.pass_time(6 * ELECTION_TICKS)

    assert cluster.leader.id != 1
    assert cluster.leader.raft.tracker.members == Members(incoming=frozenset({2, 3, 4}))


def found_joint(cluster: Cluster) -> None:
    """Let all nodes start from a snapshot in the middle of a joint change that is to be left by itself."""
    state = ConfState(voters=(1, 2), voters_outgoing=(1, 2, 3), learners=(4,), auto_leave=True)
    for node_id in list(cluster.nodes):
        storage = MemoryStorage()
        storage.apply_snapshot(Snapshot(SnapshotMeta(6, 1, state)))
        storage.set_hard_state(HardState(term=1, commit=6))
        cluster.boot(node_id, storage)


def test_a_new_leader_leaves_a_joint_configuration_that_was_applied_before_once_it_commits_in_its_term() -> None:
    cluster = Cluster(4)
    found_joint(cluster)
    cluster.do(1, RawNode.campaign)
    while not cluster.leaders:
        cluster.step_once()
    assert cluster[1].log() == [(2, 7)]
    assert members(cluster, 1).is_joint

    cluster.settle()
    cluster.pass_time(1)

    kinds = [entry.kind for entry in cluster.referee.committed.values()]
    assert kinds == [EntryKind.NORMAL, EntryKind.CONF_CHANGE_V2]  # nobody but the leader, and once
    assert [members(cluster, node_id) for node_id in (1, 2, 4)] == [
        Members(incoming=frozenset({1, 2}), learners=frozenset({4}))
    ] * 3


def test_only_a_leader_leaves_a_joint_configuration() -> None:
    cluster = Cluster(4)
    found_joint(cluster)
    entry = Entry(2, 7, data=b"x")

    cluster.deliver(
        Message(type=MessageType.APPEND, sender=2, to=1, term=2, index=6, log_term=1, entries=(entry,), commit=7)
    )
    cluster.settle(only=[1])

    assert cluster[1].applied_index == 7
    assert cluster[1].log() == [(2, 7)]
    assert {message.type for message in cluster.messages} == {MessageType.APPEND_RESPONSE}


def test_a_joint_configuration_that_could_not_be_left_during_a_hand_over_is_left_after_it_failed() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(2)
    change(cluster, Change(ChangeKind.UPDATE, 3), transition=Transition.JOINT_IMPLICIT)
    cluster.do(1, lambda raw: raw.transfer_leadership(2))
    cluster.settle()
    assert members(cluster, 1).is_joint

    cluster.pass_time(ELECTION_TICKS + 1)

    assert cluster.leaders == [1]
    assert not members(cluster, 1).is_joint


@pytest.mark.parametrize(
    "sent",
    [
        ConfChange((Change(ChangeKind.UPDATE, 2),), context=b"address book"),
        ConfChange((Change(REMOVE, 3),), context=b"address book"),
        ConfChange((Change(ChangeKind.UPDATE, 2), Change(ChangeKind.UPDATE, 3)), context=b"address book"),
    ],
)
def test_what_the_application_adds_to_a_change_reaches_every_node(sent: ConfChange) -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, lambda raw: raw.propose_conf_change(sent))
    cluster.settle()
    cluster.pass_time(1)

    for node in cluster.nodes.values():
        assert node.applied_index >= 2
        assert decode_conf_change(node.storage.entries(2, 3)[0]) == sent


def test_an_update_of_a_member_changes_no_membership_and_needs_no_joint_configuration() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, lambda raw: raw.propose_conf_change(ConfChange((Change(ChangeKind.UPDATE, 2),), context=b"book")))
    cluster.settle()

    assert members(cluster, 1) == Members(incoming=frozenset({1, 2, 3}))
    assert cluster[1].raft.log.last_index == 2


@pytest.mark.parametrize(
    "unfit",
    [
        ConfChange(tuple(Change(REMOVE, node_id) for node_id in (1, 2, 3))),
        ConfChange(),
    ],
)
def test_a_change_that_does_not_fit_the_membership_is_refused_by_the_leader(unfit: ConfChange) -> None:
    """Committed, it would stop every node that applies it."""
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, lambda raw: raw.propose_conf_change(unfit))
    cluster.settle()

    assert [entry.kind for entry in cluster.referee.committed.values()] == [EntryKind.NORMAL] * 2


def test_a_joint_configuration_is_not_entered_twice_not_even_by_an_empty_change() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    change(cluster, Change(REMOVE, 3), transition=Transition.JOINT_EXPLICIT)
    cluster.settle()

    change(cluster, transition=Transition.JOINT_EXPLICIT)
    cluster.settle()

    assert members(cluster, 1).is_joint
    assert cluster[1].raft.log.last_index == 3


def test_a_leader_that_is_removed_steps_down() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    change(cluster, Change(REMOVE, 1))
    cluster.settle()
    cluster.pass_time(4 * ELECTION_TICKS)

    assert cluster.leader.id in {2, 3}
    assert members(cluster, cluster.leader.id).incoming == {2, 3}


def is_late(message: Message) -> bool:
    """Return whether a message says that entry 2 is committed, or brings what comes after it."""
    return message.commit > 1 or any(entry.index > 2 for entry in message.entries)


def test_a_leader_that_removed_itself_tells_its_successor_that_this_is_committed() -> None:
    """Its log is the longer one and it refuses; without its vote nobody could lead, and it needs none any more."""
    cluster = Cluster(2)
    cluster.elect(1)
    change(cluster, Change(REMOVE, 1))
    cluster.propose(1, b"never committed")
    while cluster[1].raft.id in cluster[1].raft.tracker.progress:
        cluster.messages = [message for message in cluster.messages if message.to == 1 or not is_late(message)]
        cluster.step_once()
    cluster.messages.clear()
    assert cluster[1].raft.log.last_index > cluster[2].raft.log.last_index
    assert members(cluster, 2).incoming == {1, 2}

    cluster.pass_time(4 * ELECTION_TICKS)

    assert cluster.leader.id == 2
    assert members(cluster, 2).incoming == {2}


def test_a_leader_that_is_removed_and_leads_on_takes_no_proposals() -> None:
    cluster = Cluster(3, configure=options(step_down_on_removal=False))
    cluster.elect(1)

    change(cluster, Change(REMOVE, 1))
    cluster.settle()

    assert cluster.leaders == [1]
    with pytest.raises(ProposalDroppedError) as caught:
        cluster[1].raw.propose(b"x")
    assert caught.value.reason is DropReason.NOT_MEMBER


def test_a_removed_node_does_not_disturb_those_that_stay() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    change(cluster, Change(REMOVE, 3))
    cluster.settle()
    cluster.heal()

    cluster.pass_time(10 * ELECTION_TICKS)

    assert (cluster.leader.id, cluster.leader.raft.term) == (1, 1)


def test_fewer_voters_commit_at_once_what_waited_for_the_one_that_left() -> None:
    cluster = Cluster(3, conf_state=ConfState(voters=(1, 2), learners=(3,)))
    cluster.elect(1)
    change(cluster, Change(REMOVE, 2))
    cluster.propose(1, b"x")
    lost = [message for message in cluster.messages if message.to == 2][-1]
    cluster.messages.remove(lost)

    cluster.settle()

    assert [cluster[node_id].raft.log.committed for node_id in (1, 2, 3)] == [3, 1, 3]


def test_a_learner_that_is_promoted_grants_votes_before_it_knows() -> None:
    cluster = Cluster(3, conf_state=ConfState(voters=(1, 2), learners=(3,)))

    cluster.deliver(Message(type=MessageType.VOTE, sender=2, to=3, term=2, index=0, log_term=0))
    cluster.settle(only=[3])

    assert [message.reject for message in cluster.messages if message.to == 2] == [False]


def test_a_change_that_does_not_decode_is_dropped_by_the_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    garbage = Entry(0, 0, EntryKind.CONF_CHANGE_V2, b"\xff\xff")

    with pytest.raises(ProposalDroppedError) as caught:
        cluster[1].raw.step(Message(type=MessageType.PROPOSE, sender=2, to=1, entries=(garbage,)))

    assert caught.value.reason is DropReason.MALFORMED


def test_a_dropped_change_does_not_stand_in_the_way_of_the_next() -> None:
    cluster = Cluster(3, configure=options(max_uncommitted_bytes=10))
    cluster.elect(1)
    cluster.propose(1, b"x" * 10)
    change(cluster, Change(REMOVE, 3))
    cluster.settle()
    assert members(cluster, 1).incoming == {1, 2, 3}

    change(cluster, Change(REMOVE, 3))
    cluster.settle()

    assert members(cluster, 1).incoming == {1, 2}


def test_a_committed_change_that_does_not_fit_is_a_bug() -> None:
    raw = RawNode(Config(id=1, storage=MemoryStorage(conf_state=ConfState(voters=(1,))), rng=random.Random(1)))

    with pytest.raises(InvariantViolation, match="removed all voters"):
        raw.apply_conf_change(ConfChange((Change(REMOVE, 1),)))


def test_a_change_that_the_application_decided_against_changes_nothing() -> None:
    raw = RawNode(Config(id=1, storage=MemoryStorage(conf_state=ConfState(voters=(1, 2))), rng=random.Random(1)))

    assert raw.apply_conf_change(ConfChange((Change(REMOVE, 0),))) == ConfState(voters=(1, 2))


# Handing over.


def test_leadership_goes_to_whom_it_is_handed() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, lambda raw: raw.transfer_leadership(2))
    cluster.settle()

    assert cluster.leaders == [2]
    assert cluster[2].raft.term == 2


def test_a_follower_passes_the_wish_to_hand_over_on() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(3, lambda raw: raw.transfer_leadership(3))
    cluster.settle()

    assert cluster.leaders == [3]


def test_a_node_that_is_behind_first_gets_what_it_lacks() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(2)
    cluster.propose(1, b"x")
    cluster.settle()
    cluster.heal()

    cluster.do(1, lambda raw: raw.transfer_leadership(2))
    cluster.pass_time(2)

    assert cluster.leaders == [2]


def test_no_proposal_is_taken_while_leadership_is_handed_over() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(2)

    cluster.do(1, lambda raw: raw.transfer_leadership(2))
    with pytest.raises(ProposalDroppedError) as caught:
        cluster[1].raw.propose(b"x")
    assert caught.value.reason is DropReason.TRANSFERRING
    cluster.pass_time(ELECTION_TICKS)

    assert cluster.propose(1, b"x")


def test_handing_over_ends_when_the_target_is_removed() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(2)
    change(cluster, Change(REMOVE, 2))

    cluster.do(1, lambda raw: raw.transfer_leadership(2))
    cluster.settle()

    assert cluster[1].raft.transferee == 0
    assert cluster.propose(1, b"x")


@pytest.mark.parametrize("target", [1, 4, 9])
def test_leadership_is_not_handed_to_oneself_a_learner_or_a_stranger(target: int) -> None:
    cluster = Cluster(4, conf_state=ConfState(voters=(1, 2, 3), learners=(4,)))
    cluster.elect(1)

    cluster.do(1, lambda raw: raw.transfer_leadership(target))
    cluster.settle()

    assert cluster.leaders == [1]
    assert cluster[1].raft.transferee == 0


def test_a_leader_does_not_heed_a_hand_over_to_itself() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.deliver(Message(type=MessageType.TIMEOUT_NOW, sender=2, to=1, term=1))

    assert cluster[1].raft.role is Role.LEADER


# The arithmetic of configurations; most of it is in the scripts.


@pytest.mark.parametrize(
    "state",
    [
        ConfState(voters=(1,)),
        ConfState(voters=(1, 2, 3), learners=(4, 5)),
        ConfState(voters=(1, 2, 3), voters_outgoing=(1, 2, 4, 6), learners=(5,), learners_next=(4,), auto_leave=True),
        ConfState(voters=(4,), voters_outgoing=(1, 2, 3)),
        ConfState(),
    ],
)
def test_a_stored_configuration_comes_back_as_it_was(state: ConfState) -> None:
    tracker = Tracker(inflight_messages_max=1, inflight_bytes_max=1)

    assert restore(tracker, state, 10).members.conf_state() == state


@pytest.mark.parametrize("state", [ConfState(learners=(1,)), ConfState(voters=(1, 1)), ConfState((1,), (), (), (2,))])
def test_a_node_does_not_start_with_a_stored_membership_that_makes_no_sense(state: ConfState) -> None:
    with pytest.raises(InvariantViolation, match="membership"):
        RawNode(Config(id=1, storage=MemoryStorage(conf_state=state), rng=random.Random(1)))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Members(incoming=frozenset({1, 9})), "no progress for 9"),
        (Members(incoming=frozenset({1}), learners_next=frozenset({2})), "not Voters"),
        (Members(frozenset({1}), frozenset({3}), frozenset(), frozenset({3})), "already marked as learner"),
        (Members(incoming=frozenset({1, 3}), learners=frozenset({3})), "in Learners and in Voters"),
        (Members(incoming=frozenset({1}), learners=frozenset({2})), "not marked as learner"),
        (Members(incoming=frozenset({1}), auto_leave=True), "AutoLeave"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_found_out(broken: Members, complaint: str) -> None:
    tracker = Tracker(inflight_messages_max=1, inflight_bytes_max=1)
    progress = restore(tracker, ConfState(voters=(1, 2), learners=(3,)), 10).progress

    with pytest.raises(ConfChangeError, match=complaint):
        check_configuration(broken, progress)


def test_of_several_entries_only_the_changes_are_refused() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    leave = Entry(0, 0, EntryKind.CONF_CHANGE_V2)

    cluster.deliver(
        Message(
            type=MessageType.PROPOSE, sender=2, to=1, entries=(Entry(0, 0, data=b"x"), leave, Entry(0, 0, data=b"y"))
        )
    )
    cluster.settle()

    committed = [(entry.kind, entry.data) for entry in cluster.referee.committed.values()]
    assert committed[1:] == [(EntryKind.NORMAL, b"x"), (EntryKind.NORMAL, b""), (EntryKind.NORMAL, b"y")]


def test_a_change_leaves_the_configuration_that_it_was_computed_from_alone() -> None:
    tracker = Tracker(inflight_messages_max=1, inflight_bytes_max=1)
    before = restore(tracker, ConfState(voters=(1, 2, 3)), 10)
    tracker.members, tracker.progress = before.members, before.progress

    Changer(tracker, 10).enter_joint([Change(LEARN, 2), Change(ADD, 4)], auto_leave=True)

    assert tracker.members == Members(incoming=frozenset({1, 2, 3}))
    assert sorted(tracker.progress) == [1, 2, 3]
    assert not tracker.progress[2].is_learner
