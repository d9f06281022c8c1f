"""What the Raft paper says in sections 6 to 8: changes of the membership, snapshots, and clients.

Claims that are tested where they belong by subject are listed in `ELSEWHERE`. One difference is meant: a server goes by
a new configuration when it applies it, and not when it first has it in its log; one change is under way at a time. The
chunks of a snapshot (Figure 13, 2 to 4) are the business of the transfer, not of the core.
"""

import random

import pytest

from engram.log.consensus.raft import Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import (
    NO_NODE,
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    DropReason,
    Entry,
    HardState,
    Message,
    MessageType,
    ProposalDroppedError,
    Snapshot,
    SnapshotMeta,
    Transition,
)
from engram.log.storage import MemoryStorage
from tests.log.consensus import test_elections, test_membership, test_reads, test_replication, test_snapshots
from tests.log.consensus.cluster import ELECTION_TICKS, Cluster, options

ELSEWHERE = {
    "6: while it is joint, agreement needs separate majorities of both configurations": (
        test_membership.test_while_it_is_joint_both_majorities_must_agree,
    ),
    "6: once C-old,new is committed, the leader goes on to C-new; a new leader does so too": (
        test_membership.test_several_changes_go_through_a_joint_configuration_that_is_left_by_itself,
        test_membership.test_a_new_leader_leaves_a_joint_configuration_that_it_finds,
    ),
    "6: new servers join as non-voting members": (
        test_membership.test_a_learner_gets_the_log_and_does_not_count,
        test_elections.test_the_vote_of_a_learner_does_not_count,
        test_elections.test_a_learner_does_not_campaign,
    ),
    "6: removed servers do not disrupt; a server that hears of a leader grants no vote": (
        test_membership.test_a_removed_node_does_not_disturb_those_that_stay,
        test_elections.test_nobody_votes_against_a_leader_that_is_heard_of,
    ),
    "InstallSnapshot 5: discard a snapshot with a smaller index": (
        test_snapshots.test_a_snapshot_of_what_is_committed_already_is_ignored,
    ),
    "InstallSnapshot 6: retain the entries that follow one with the snapshot's index and term": (
        test_snapshots.test_a_log_that_holds_all_of_a_snapshot_keeps_what_it_has_beyond,
    ),
    "InstallSnapshot 7: else discard the entire log": (
        test_snapshots.test_a_snapshot_replaces_a_log_that_conflicts_with_it,
    ),
    "InstallSnapshot 8: reset the state machine, and load the snapshot's configuration": (
        test_snapshots.test_nothing_is_handed_out_before_a_snapshot_is_installed,
        test_snapshots.test_a_snapshot_brings_its_membership,
    ),
    "7: the leader sends a snapshot when it has discarded what it would send next": (
        test_snapshots.test_a_follower_that_needs_what_was_compacted_gets_a_snapshot_and_then_the_rest,
        test_snapshots.test_only_who_needs_entries_older_than_the_kept_ones_gets_a_snapshot,
    ),
    "7: the last included term is kept for the check of the first entry that follows": (
        test_snapshots.test_the_term_of_a_snapshots_entry_is_known_before_and_after_it_is_installed,
    ),
    "8: a leader commits a blank entry at the start of its term, and answers no read before": (
        test_replication.test_a_leader_says_that_it_leads_by_an_empty_entry_of_its_term,
        test_reads.test_a_new_leader_answers_only_when_it_has_committed_an_entry_of_its_term,
    ),
    "8: a leader exchanges heartbeats with a majority before it answers a read": (
        test_reads.test_a_leader_answers_a_read_once_a_majority_has_confirmed_it,
        test_reads.test_a_leader_that_was_deposed_unknowingly_answers_no_read,
        test_reads.test_an_answer_to_an_earlier_heartbeat_confirms_no_later_read,
    ),
}

BARE = options(pre_vote=False, check_quorum=False)
JOINT = ConfState(voters=(1, 4, 5), voters_outgoing=(1, 2, 3))


def joint() -> Cluster:
    """Return five nodes in the middle of a change from 1, 2, 3 to 1, 4, 5 that nothing but an entry ends."""
    cluster = Cluster(5, configure=BARE)
    for node_id in list(cluster.nodes):
        storage = MemoryStorage()
        storage.apply_snapshot(Snapshot(SnapshotMeta(6, 1, JOINT)))
        storage.set_hard_state(HardState(1, NO_NODE, 6))
        cluster.boot(node_id, storage)
    return cluster


# 6: membership.


@pytest.mark.parametrize(
    ("reachable", "wins"),
    [
        ({1, 2, 4}, True),
        ({1, 3, 5}, True),
        ({1, 2, 3}, False),  # a majority of the old one only
        ({1, 4, 5}, False),  # a majority of the new one only
        ({1, 2, 3, 4}, True),
    ],
)
def test_while_it_is_joint_an_election_needs_separate_majorities_of_both_configurations(
    reachable: set[int], *, wins: bool
) -> None:
    cluster = joint()
    cluster.isolate(*reachable)

    cluster.do(1, RawNode.campaign)
    cluster.settle()

    assert cluster[1].leads is wins


@pytest.mark.parametrize("node_id", [1, 2, 5])
def test_while_it_is_joint_any_server_of_either_configuration_may_lead(node_id: int) -> None:
    cluster = joint()

    cluster.elect(node_id)

    assert cluster[node_id].raft.log.committed == 7


def test_while_it_is_joint_entries_go_to_all_servers_of_both_configurations() -> None:
    cluster = joint()
    cluster.elect(1)

    cluster.propose(1, b"x")
    cluster.settle()

    assert [node.log()[-1] for node in cluster.nodes.values()] == [(2, 8)] * 5


def interrupted_change(seed: int) -> Cluster:
    """Return a cluster in which a change from 1, 2, 3 to 1, 4, 5 got somewhere, and the two sides lost each other."""
    cluster = Cluster(5, conf_state=ConfState(voters=(1, 2, 3)), configure=BARE, rng=random.Random(seed))
    cluster.elect(1)
    changes = [Change(ChangeKind.REMOVE, 2), Change(ChangeKind.REMOVE, 3)]
    changes += [Change(ChangeKind.ADD_VOTER, 4), Change(ChangeKind.ADD_VOTER, 5)]
    cluster.do(1, lambda raw: raw.propose_conf_change(ConfChange(tuple(changes))))
    for _ in range(cluster.rng.randrange(80)):
        busy = [node.id for node in cluster.nodes.values() if node.appends or node.applies]
        if busy and cluster.rng.random() < 0.6:
            node_id = cluster.rng.choice(busy)
            (cluster.write if cluster[node_id].appends else cluster.apply)(node_id)
        elif cluster.messages:
            cluster.deliver_next(cluster.rng.randrange(len(cluster.messages)))
        else:
            cluster.tick(1)
    cluster.isolate(2, 3)
    return cluster


@pytest.mark.parametrize("seed", range(40))
def test_at_no_point_can_the_old_and_the_new_configuration_decide_unilaterally(seed: int) -> None:
    """Should both, the referee sees two entries applied in one place."""
    cluster = interrupted_change(seed)

    for node_id in cluster.rng.sample(sorted(cluster.nodes), 5):
        cluster.do(node_id, RawNode.campaign)
        cluster.settle()
        for leader in cluster.leaders:
            cluster.propose(leader, b"%d" % leader)
        cluster.settle()

    assert not (cluster[2].leads or cluster[3].leads) or not (cluster[4].leads or cluster[5].leads)


def test_a_leader_that_is_not_in_the_new_configuration_leads_until_that_is_committed_and_then_steps_down() -> None:
    cluster = Cluster(4, conf_state=ConfState(voters=(1, 2, 3)))
    cluster.elect(1)
    changes = (Change(ChangeKind.REMOVE, 1), Change(ChangeKind.ADD_VOTER, 4))
    cluster.do(1, lambda raw: raw.propose_conf_change(ConfChange(changes, Transition.JOINT_EXPLICIT)))
    cluster.settle()
    assert cluster.propose(1, b"still leading")
    cluster.settle()
    before = cluster[1].raft.role, cluster[1].raft.log.committed

    cluster.do(1, lambda raw: raw.propose_conf_change(ConfChange()))
    cluster.settle()

    assert (before, cluster[1].raft.role) == ((Role.LEADER, 3), Role.FOLLOWER)
    assert cluster[1].raft.log.committed == 4
    cluster.pass_time(4 * ELECTION_TICKS)
    assert cluster.leader.id in {2, 3, 4}
    assert not cluster[1].raft.is_promotable


def test_a_new_server_is_no_voter_before_its_promotion_is_applied() -> None:
    cluster = Cluster(4, conf_state=ConfState(voters=(1, 2, 3)), configure=BARE)
    cluster.elect(1)
    cluster.isolate(2, 3)
    cluster.do(1, lambda raw: raw.propose_conf_change(ConfChange((Change(ChangeKind.ADD_VOTER, 4),))))

    cluster.settle()

    assert cluster[1].raft.log.committed == 1  # a majority of three, not of four
    assert 4 not in cluster[1].raft.tracker.members.voters


# 7, Figure 13: snapshots.


def test_a_snapshot_of_a_leader_of_an_older_term_changes_nothing() -> None:
    cluster = Cluster(3)
    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=3, to=1, term=9))
    snapshot = Snapshot(SnapshotMeta(5, 4, ConfState(voters=(1, 2, 3))))

    cluster.deliver(Message(type=MessageType.SNAPSHOT, sender=2, to=1, term=8, snapshot=snapshot))

    assert (cluster[1].raft.log.last_index, cluster[1].raft.term, cluster[1].raft.leader_id) == (0, 9, 3)


def test_a_snapshot_is_answered_when_it_is_durable_with_the_index_that_it_includes() -> None:
    cluster = Cluster(3)
    snapshot = Snapshot(SnapshotMeta(5, 4, ConfState(voters=(1, 2, 3))))
    cluster.deliver(Message(type=MessageType.SNAPSHOT, sender=2, to=1, term=8, snapshot=snapshot))
    before = list(cluster.messages)

    cluster.settle(only=[1])

    assert before == []
    assert [(message.type, message.index, message.reject) for message in cluster.messages] == [
        (MessageType.APPEND_RESPONSE, 5, False)
    ]
    assert cluster[1].storage.snapshot() == snapshot


def test_entries_follow_a_snapshot_where_it_ends() -> None:
    cluster = Cluster(3)
    snapshot = Snapshot(SnapshotMeta(5, 4, ConfState(voters=(1, 2, 3))))
    cluster.deliver(Message(type=MessageType.SNAPSHOT, sender=2, to=1, term=8, snapshot=snapshot))

    for log_term in (3, 4):
        cluster.deliver(
            Message(
                type=MessageType.APPEND,
                sender=2,
                to=1,
                term=8,
                index=5,
                log_term=log_term,
                entries=(Entry(log_term, 6),),
            )
        )
    cluster.settle(only=[1])

    answers = [(message.index, message.reject) for message in cluster.messages]
    assert answers[0] == (5, False)
    assert cluster[1].log() == [(4, 6)]


def test_each_server_takes_snapshots_by_itself_of_what_it_has_applied() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    for number in range(3):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.pass_time(1)

    cluster.compact(2)
    cluster.propose(1, b"after")
    cluster.settle()
    cluster.pass_time(1)

    assert [node.storage.first_index() for node in cluster.nodes.values()] == [1, 5, 1]
    assert {node.applied_index for node in cluster.nodes.values()} == {5}


# 8: clients.


def test_a_server_that_does_not_lead_rejects_a_command_and_knows_who_leads() -> None:
    cluster = Cluster(3, configure=options(proposal_forwarding=False))
    cluster.elect(2)

    with pytest.raises(ProposalDroppedError) as caught:
        cluster[1].raw.propose(b"x")

    assert caught.value.reason is DropReason.NOT_LEADER
    assert cluster[1].raw.status().soft_state.leader_id == 2


def test_a_read_needs_the_heartbeats_of_a_majority_and_no_entry() -> None:
    cluster = Cluster(5)
    cluster.elect(1)
    last_index = cluster[1].raft.log.last_index
    cluster.do(1, lambda raw: raw.read_index(b"r"))
    heartbeats = [message for message in cluster.messages if message.type is MessageType.HEARTBEAT]
    cluster.messages.clear()

    answered = []
    for message in heartbeats[:3]:
        cluster.deliver(message)
        cluster.deliver_next()
        answered.append(len(cluster[1].read_states))

    assert answered == [0, 1, 1]
    assert cluster[1].raft.log.last_index == last_index
