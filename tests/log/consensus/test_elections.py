"""Who may lead, and who is voted for."""

import random
from itertools import combinations

import msgspec
import pytest

from engram.log.consensus.elections import TRANSFER
from engram.log.consensus.raft import Config, Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import (
    NO_NODE,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    InvariantViolation,
    Message,
    MessageRefusedError,
    MessageType,
    Snapshot,
    SnapshotMeta,
)
from engram.log.storage import MemoryStorage
from tests.log.consensus.cluster import ELECTION_TICKS, Cluster, options

WITHOUT_PRE_VOTE = options(pre_vote=False)
BARE = options(pre_vote=False, check_quorum=False)


def vote(sender: int, to: int, *, term: int, index: int = 100, log_term: int = 100) -> Message:
    return Message(type=MessageType.VOTE, sender=sender, to=to, term=term, index=index, log_term=log_term)


def answers(cluster: Cluster, to: int) -> list[Message]:
    """Return the votes on their way to `to`."""
    kinds = {MessageType.VOTE_RESPONSE, MessageType.PRE_VOTE_RESPONSE}
    return [message for message in cluster.messages if message.to == to and message.type in kinds]


def test_the_only_voter_elects_itself_as_soon_as_its_vote_is_durable() -> None:
    cluster = Cluster(1)

    cluster.do(1, RawNode.campaign)
    assert not cluster.leaders
    cluster.settle()

    assert cluster.leaders == [1]
    assert cluster[1].raft.log.committed == 1
    assert cluster[1].storage.initial_state()[0] == HardState(term=1, vote=1, commit=1)


def test_a_majority_elects_a_leader_which_all_follow() -> None:
    cluster = Cluster(3)

    cluster.elect(2)

    assert [node.raft.leader_id for node in cluster.nodes.values()] == [2, 2, 2]
    assert {node.raft.term for node in cluster.nodes.values()} == {1}


def test_a_cluster_without_a_leader_elects_one_when_time_passes() -> None:
    cluster = Cluster(3)

    cluster.pass_time(3 * ELECTION_TICKS)

    assert len(cluster.leaders) == 1


def test_a_minority_elects_nobody() -> None:
    cluster = Cluster(3)
    cluster.isolate(1)

    cluster.do(1, RawNode.campaign)
    cluster.settle()

    assert cluster[1].raft.role is Role.PRE_CANDIDATE


def test_a_node_votes_once_in_a_term() -> None:
    cluster = Cluster(3, configure=BARE)

    cluster.deliver(vote(2, 1, term=1))
    cluster.deliver(vote(3, 1, term=1))
    cluster.settle(only=[1])

    assert [answer.reject for answer in [*answers(cluster, 2), *answers(cluster, 3)]] == [False, True]


def test_a_node_repeats_its_vote_to_the_same_candidate() -> None:
    cluster = Cluster(3, configure=BARE)

    cluster.deliver(vote(2, 1, term=1))
    cluster.deliver(vote(2, 1, term=1))
    cluster.write(1)
    cluster.write(1)

    assert [answer.reject for answer in answers(cluster, 2)] == [False, False]


def test_a_candidate_that_steps_down_within_its_term_does_not_vote_again() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.do(1, RawNode.campaign)
    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=1))
    assert cluster[1].raft.role is Role.FOLLOWER

    cluster.do(1, RawNode.forget_leader)
    cluster.deliver(vote(3, 1, term=1))
    while cluster[1].appends:
        cluster.write(1)

    assert [answer.reject for answer in answers(cluster, 3)] == [True]


def test_a_node_that_knows_the_leader_of_its_term_votes_for_no_other_in_it() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=1))

    cluster.deliver(vote(3, 1, term=1))
    cluster.settle(only=[1])

    assert [answer.reject for answer in answers(cluster, 3)] == [True]


def test_a_vote_leaves_only_when_it_is_durable() -> None:
    cluster = Cluster(3, configure=BARE)

    cluster.deliver(vote(2, 1, term=1))
    assert not answers(cluster, 2)
    cluster.write(1)

    assert len(answers(cluster, 2)) == 1


def test_a_crash_does_not_make_a_node_vote_twice() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.deliver(vote(2, 1, term=1))
    cluster.write(1)

    cluster.crash(1)
    cluster.deliver(vote(3, 1, term=1))
    cluster.write(1)

    assert [answer.reject for answer in answers(cluster, 3)] == [True]


def test_the_own_vote_counts_only_when_it_is_durable() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.do(1, RawNode.campaign)

    cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=2, to=1, term=1))
    assert not cluster.leaders
    cluster.write(1)

    assert cluster.leaders == [1]


def test_a_majority_of_others_makes_no_leader_before_the_own_vote_is_durable() -> None:
    """A crash would make it forget the term, and win it again: two logs of one term, and nobody to tell them apart."""
    cluster = Cluster(3, configure=BARE)
    cluster.do(1, RawNode.campaign)

    for voter in (2, 3):
        cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=voter, to=1, term=1))
    assert not cluster.leaders
    cluster.write(1)

    assert cluster.leaders == [1]


def test_a_longer_but_older_log_is_not_voted_for() -> None:
    newer = MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
    newer.append([Entry(1, 1), Entry(3, 2)])
    newer.set_hard_state(HardState(term=3))
    cluster = Cluster(3, configure=BARE)
    cluster.boot(1, newer)

    cluster.deliver(vote(2, 1, term=4, index=5, log_term=2))
    cluster.deliver(vote(2, 1, term=5, index=1, log_term=3))
    cluster.deliver(vote(2, 1, term=6, index=2, log_term=3))
    for _ in range(3):
        cluster.write(1)

    assert [answer.reject for answer in answers(cluster, 2)] == [True, True, False]


def test_entries_that_are_not_durable_yet_count_for_the_comparison_of_logs() -> None:
    cluster = Cluster(3, configure=BARE)
    append = Message(type=MessageType.APPEND, sender=3, to=1, term=1, entries=(Entry(1, 1), Entry(1, 2)))
    cluster.deliver(append)

    cluster.deliver(vote(2, 1, term=2, index=1, log_term=1))
    for _ in range(2):
        cluster.write(1)

    assert [answer.reject for answer in answers(cluster, 2)] == [True]


def test_an_answer_counts_once_however_often_it_comes() -> None:
    cluster = Cluster(5, configure=BARE)
    cluster.do(1, RawNode.campaign)
    cluster.write(1)

    for _ in range(3):
        cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=2, to=1, term=1))

    assert not cluster.leaders


def test_the_vote_of_a_node_that_is_no_member_is_refused() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.do(1, RawNode.campaign)
    cluster.write(1)

    with pytest.raises(MessageRefusedError):
        cluster[1].raw.step(Message(type=MessageType.VOTE_RESPONSE, sender=9, to=1, term=1))

    assert not cluster.leaders


def test_the_vote_of_a_learner_does_not_count() -> None:
    cluster = Cluster(4, conf_state=ConfState(voters=(1, 2, 3), learners=(4,)), configure=BARE)
    cluster.do(1, RawNode.campaign)
    cluster.write(1)

    cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=4, to=1, term=1))

    assert not cluster.leaders


@pytest.mark.parametrize("kind", [MessageType.APPEND_RESPONSE, MessageType.HEARTBEAT_RESPONSE, MessageType.VOTE])
def test_a_newer_term_deposes_a_leader_even_in_an_answer(kind: MessageType) -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.elect(1)

    cluster.deliver(Message(type=kind, sender=2, to=1, term=9))

    assert cluster[1].raft.role is Role.FOLLOWER
    assert cluster[1].raft.term == 9


def test_a_candidate_follows_the_leader_of_its_own_term() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.do(1, RawNode.campaign)

    cluster.deliver(Message(type=MessageType.APPEND, sender=2, to=1, term=1))

    assert cluster[1].raft.role is Role.FOLLOWER
    assert cluster[1].raft.leader_id == 2


def test_a_candidate_that_most_voters_refuse_gives_up() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.do(1, RawNode.campaign)

    for sender in (2, 3):
        cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=sender, to=1, term=1, reject=True))

    assert cluster[1].raft.role is Role.FOLLOWER


# Pre-votes.


def test_a_pre_vote_changes_no_term_and_is_no_vote() -> None:
    cluster = Cluster(3)
    request = Message(type=MessageType.PRE_VOTE, sender=2, to=1, term=7, index=1, log_term=1)

    cluster.deliver(request)
    cluster.settle(only=[1])

    assert (cluster[1].raft.term, cluster[1].raft.vote) == (0, NO_NODE)
    assert [(answer.term, answer.reject) for answer in answers(cluster, 2)] == [(7, False)]


def test_a_refused_pre_vote_is_answered_with_the_own_term() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()
    cluster.do(1, RawNode.forget_leader)
    for node in (2, 3):
        cluster.do(node, RawNode.forget_leader)

    cluster.deliver(Message(type=MessageType.PRE_VOTE, sender=3, to=2, term=7, index=1, log_term=1))
    cluster.settle(only=[2])

    assert [(answer.term, answer.reject) for answer in answers(cluster, 3)] == [(1, True)]


def test_a_pre_vote_from_an_older_term_is_answered_so_that_nobody_waits_in_vain() -> None:
    cluster = Cluster(3)
    storage = MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
    storage.set_hard_state(HardState(term=5))
    cluster.boot(1, storage)

    cluster.deliver(Message(type=MessageType.PRE_VOTE, sender=2, to=1, term=2, index=9, log_term=1))
    cluster.settle(only=[1])

    assert [(answer.term, answer.reject) for answer in answers(cluster, 2)] == [(5, True)]


def test_a_node_that_was_cut_off_does_not_raise_its_term() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)

    cluster.pass_time(10 * ELECTION_TICKS)
    assert cluster[3].raft.term == 1
    cluster.heal()
    cluster.pass_time(3 * ELECTION_TICKS)

    assert cluster.leaders == [1]
    assert cluster[1].raft.term == 1


# Leaders that are heard of, and leaders that are not.


def test_nobody_votes_against_a_leader_that_is_heard_of() -> None:
    cluster = Cluster(3, configure=WITHOUT_PRE_VOTE)
    cluster.elect(1)

    cluster.deliver(vote(3, 2, term=9))

    assert cluster[2].raft.term == 1
    assert not answers(cluster, 3)


def test_a_leader_that_hands_over_overrides_the_belief_in_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.deliver(msgspec.structs.replace(vote(3, 2, term=2), context=TRANSFER))
    cluster.settle(only=[2])

    assert [answer.reject for answer in answers(cluster, 3)] == [False]


def test_a_leader_that_hears_of_no_majority_steps_down() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)

    for _ in range(2 * ELECTION_TICKS):
        cluster.tick(1)

    assert cluster[1].raft.role is Role.FOLLOWER
    assert not cluster.propose(1, b"lost")


def test_a_leader_that_hears_of_a_majority_leads_on() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)

    cluster.pass_time(10 * ELECTION_TICKS)

    assert cluster.leader.id == 1


def test_a_node_in_a_newer_term_is_brought_back_without_an_election_it_could_lose_for_ever() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    storage = cluster[3].storage.copy()
    storage.set_hard_state(HardState(term=8))
    cluster.boot(3, storage)

    cluster.pass_time(6 * ELECTION_TICKS)

    assert len(cluster.leaders) == 1
    assert {node.raft.term for node in cluster.nodes.values()} == {cluster.leader.raft.term}
    assert cluster.leader.raft.term > 8


def test_a_partly_cut_network_does_not_keep_a_cluster_from_leading() -> None:
    """Three nodes see one another; of the other two, each sees only one of the three."""
    cluster = Cluster(5)
    cluster.connect_only([*combinations((1, 2, 3), 2), (2, 4), (3, 5)])
    cluster.pass_time(20 * ELECTION_TICKS)
    leaders, term = cluster.leaders, max(node.raft.term for node in cluster.nodes.values())

    cluster.pass_time(20 * ELECTION_TICKS)

    assert len(leaders) == 1
    assert cluster.leaders == leaders
    assert max(node.raft.term for node in cluster.nodes.values()) == term


def test_a_node_that_forgot_its_leader_helps_another_to_power() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)

    cluster.do(2, RawNode.forget_leader)
    cluster.do(3, RawNode.forget_leader)
    cluster.do(3, RawNode.campaign)
    cluster.settle()

    assert cluster[3].leads


def forget_and_campaign(cluster: Cluster, *node_ids: int) -> None:
    """Let nodes do what they do when the connection to their leader breaks; the last of them campaigns."""
    for node_id in node_ids:
        cluster.do(node_id, RawNode.forget_leader)
    cluster.do(node_ids[-1], RawNode.campaign)


def test_when_both_followers_lost_their_leader_one_is_elected_without_a_tick() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)

    forget_and_campaign(cluster, 2, 3)
    cluster.settle()

    assert (cluster[3].leads, cluster[3].raft.term, cluster[2].raft.leader_id) == (True, 2, 3)


def test_who_alone_lost_the_leader_gets_no_vote_and_follows_again_at_its_next_heartbeat() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut = {(1, 3), (3, 1)}

    forget_and_campaign(cluster, 3)
    cluster.settle()
    assert not answers(cluster, 3)
    before = cluster[3].raft.role
    cluster.heal()
    cluster.pass_time(1)

    assert cluster.leaders == [1]
    assert [(node.raft.term, node.raft.leader_id) for node in cluster.nodes.values()] == [(1, 1)] * 3
    assert (before, cluster[3].raft.role) == (Role.PRE_CANDIDATE, Role.FOLLOWER)


def test_who_lost_the_leader_first_is_granted_nothing_and_helps_who_loses_it_later() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    forget_and_campaign(cluster, 2)
    cluster.settle()
    assert cluster[2].raft.role is Role.PRE_CANDIDATE

    forget_and_campaign(cluster, 3)
    cluster.settle()

    assert (cluster[3].leads, cluster[3].raft.term) == (True, 2)


def test_who_lost_the_leader_and_has_the_older_log_falls_back_and_elects_the_other() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"x")
    cluster.settle()
    cluster.heal()
    cluster.isolate(1)

    forget_and_campaign(cluster, 2, 3)
    cluster.settle()
    assert cluster[3].raft.role is Role.PRE_CANDIDATE  # one vote of three is missing, that of the dead one
    cluster.do(2, RawNode.campaign)
    cluster.settle()

    assert (cluster[2].leads, cluster[2].raft.term) == (True, 2)


def test_a_pre_candidate_that_is_refused_by_most_follows_and_waits_a_whole_time_out() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    for _ in range(ELECTION_TICKS - 1):
        cluster.tick(3)
    forget_and_campaign(cluster, 3)

    for sender in (1, 2):
        cluster.deliver(Message(type=MessageType.PRE_VOTE_RESPONSE, sender=sender, to=3, term=1, reject=True))

    raft = cluster[3].raft
    assert (raft.role, raft.term, raft.leader_id, raft.election_elapsed) == (Role.FOLLOWER, 1, NO_NODE, 0)


@pytest.mark.parametrize("kind", [MessageType.HEARTBEAT, MessageType.APPEND])
def test_a_pre_candidate_follows_the_leader_of_its_own_term_again(kind: MessageType) -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    forget_and_campaign(cluster, 3)

    cluster.deliver(Message(type=kind, sender=1, to=3, term=1))

    assert (cluster[3].raft.role, cluster[3].raft.leader_id, cluster[3].raft.term) == (Role.FOLLOWER, 1, 1)


def test_a_pre_vote_that_is_granted_too_late_elects_nobody() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    forget_and_campaign(cluster, 3)
    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=1, to=3, term=1))

    cluster.deliver(Message(type=MessageType.PRE_VOTE_RESPONSE, sender=2, to=3, term=2))
    cluster.settle()

    assert cluster.leaders == [1]
    assert {node.raft.term for node in cluster.nodes.values()} == {1}


def test_a_pre_vote_that_comes_late_is_no_vote() -> None:
    cluster = Cluster(5)
    cluster.do(1, RawNode.campaign)
    cluster.write(1)
    for sender in (2, 3):
        cluster.deliver(Message(type=MessageType.PRE_VOTE_RESPONSE, sender=sender, to=1, term=1))
    assert cluster[1].raft.role is Role.CANDIDATE

    for sender in (4, 5):
        cluster.deliver(Message(type=MessageType.PRE_VOTE_RESPONSE, sender=sender, to=1, term=1))

    assert (cluster[1].raft.role, cluster[1].raft.term) == (Role.CANDIDATE, 1)
    assert cluster[1].raft.tracker.votes == {}


def test_a_vote_of_a_lost_election_is_no_pre_vote_for_the_next() -> None:
    cluster = Cluster(5)
    cluster.do(1, RawNode.campaign)
    cluster.write(1)
    for sender in (2, 3):
        cluster.deliver(Message(type=MessageType.PRE_VOTE_RESPONSE, sender=sender, to=1, term=1))
    cluster.do(1, RawNode.campaign)
    assert cluster[1].raft.role is Role.PRE_CANDIDATE

    for sender in (2, 3, 4):
        cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=sender, to=1, term=1))

    assert (cluster[1].raft.role, cluster[1].raft.term) == (Role.PRE_CANDIDATE, 1)


def test_a_leader_that_steps_down_follows_nobody_in_the_same_term() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")

    cluster.do(1, RawNode.step_down)

    raft = cluster[1].raft
    assert (raft.role, raft.leader_id, raft.term, raft.vote) == (Role.FOLLOWER, NO_NODE, 1, 1)
    assert not cluster.propose(1, b"y")
    cluster.messages.clear()
    for _ in range(ELECTION_TICKS - 1):
        cluster.tick(1)
    assert MessageType.HEARTBEAT not in {message.type for message in cluster.messages}


def test_a_leader_that_stepped_down_neither_takes_back_what_it_gave_nor_leads_on_acknowledgements() -> None:
    cluster = Cluster(3, configure=BARE)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.do(1, RawNode.step_down)

    cluster.settle()
    cluster.deliver(vote(3, 1, term=1))
    cluster.settle(only=[1])

    assert cluster[1].raft.log.committed == 1
    assert [answer.reject for answer in answers(cluster, 3)] == [True]


def test_the_others_elect_a_leader_when_one_has_stepped_down() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.do(1, RawNode.step_down)

    for _ in range(4 * ELECTION_TICKS):
        for node_id in (2, 3):
            cluster.tick(node_id)
        cluster.settle()

    assert cluster.leader.id in {2, 3}
    assert cluster[1].raft.leader_id == cluster.leader.id


def test_only_a_leader_steps_down() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(2, RawNode.step_down)

    assert cluster[2].raft.leader_id == 1


def test_a_leader_cannot_forget_itself() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, RawNode.forget_leader)

    assert cluster.leader.raft.leader_id == 1


# Who may campaign, and when.


def test_a_learner_does_not_campaign() -> None:
    cluster = Cluster(2, conf_state=ConfState(voters=(1,), learners=(2,)))

    cluster.do(2, RawNode.campaign)
    for _ in range(4 * ELECTION_TICKS):
        cluster.tick(2)

    assert cluster[2].raft.role is Role.FOLLOWER


def test_a_node_that_is_no_member_does_not_campaign() -> None:
    cluster = Cluster(3, conf_state=ConfState(voters=(1, 2)))

    cluster.do(3, RawNode.campaign)

    assert cluster[3].raft.role is Role.FOLLOWER


def test_a_node_does_not_campaign_before_it_goes_by_a_membership_that_is_committed() -> None:
    storage = MemoryStorage(conf_state=ConfState(voters=(1,)))
    storage.append([Entry(1, 1, EntryKind.CONF_CHANGE_V2, b"")])
    storage.set_hard_state(HardState(term=1, commit=1))
    raw = RawNode(Config(id=1, storage=storage, rng=random.Random(1)))

    raw.campaign()

    assert raw.raft.role is Role.FOLLOWER


def test_a_node_does_not_campaign_while_a_snapshot_is_to_be_installed() -> None:
    cluster = Cluster(3)
    snapshot = Snapshot(SnapshotMeta(5, 1, ConfState(voters=(1, 2, 3))))
    cluster.deliver(Message(type=MessageType.SNAPSHOT, sender=2, to=1, term=1, snapshot=snapshot))

    cluster.do(1, RawNode.campaign)
    before = cluster[1].raft.role
    cluster.settle(only=[1])
    cluster.do(1, RawNode.campaign)

    assert (before, cluster[1].raft.role) == (Role.FOLLOWER, Role.PRE_CANDIDATE)


def test_a_leader_does_not_campaign() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, RawNode.campaign)

    assert cluster.leader.raft.term == 1


def test_the_time_out_is_drawn_afresh_with_each_change_of_roles() -> None:
    cluster = Cluster(3)
    drawn = set()
    for term in range(1, 200):
        cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=term))
        drawn.add(cluster[1].raft.randomized_election_ticks)

    assert drawn == set(range(ELECTION_TICKS, 2 * ELECTION_TICKS))


def test_a_heartbeat_puts_off_an_election() -> None:
    cluster = Cluster(3)
    for _ in range(10):
        for _ in range(ELECTION_TICKS - 1):
            cluster.tick(1)
        cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=1))

    assert cluster[1].raft.role is Role.FOLLOWER


def test_a_role_that_cannot_follow_from_another_is_a_bug() -> None:
    cluster = Cluster(1)
    with pytest.raises(InvariantViolation, match="FOLLOWER in term 0"):
        cluster[1].raft.become_leader()

    cluster.elect(1)
    with pytest.raises(InvariantViolation, match="LEADER in term 1"):
        cluster[1].raft.become_candidate()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": 0}, "id 0 is reserved"),
        ({"id": 2**64 - 1}, "is reserved"),
        ({"heartbeat_ticks": 0}, "heartbeat_ticks 0"),
        ({"election_ticks": 1}, "election_ticks 1"),
        ({"max_inflight_messages": 0}, "max_inflight_messages"),
        ({"max_inflight_bytes": 10}, "max_inflight_bytes"),
        ({"max_committed_bytes_per_ready": 0}, "max_committed_bytes_per_ready"),
    ],
)
def test_options_that_make_no_sense_are_refused(change: dict[str, int], complaint: str) -> None:
    good = Config(id=1, storage=MemoryStorage(), rng=random.Random(1))

    with pytest.raises(ValueError, match=complaint):
        options(**change)(good)
