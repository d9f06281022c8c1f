"""What is appended, acknowledged, and committed."""

import random

import msgspec
import pytest

from engram.log.consensus.raft import Config, Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.tracker import Inflights, ProgressState
from engram.log.consensus.types import (
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    DropReason,
    Entry,
    HardState,
    InvariantViolation,
    Message,
    MessageRefusedError,
    MessageType,
    ProposalDroppedError,
    Snapshot,
    SnapshotMeta,
)
from engram.log.storage import MemoryStorage
from tests.log.consensus.cluster import Cluster, options

VOTERS = ConfState(voters=(1, 2, 3))

MESSAGE_BYTES, IN_FLIGHT_BYTES = 512 * 1024, 4 * 1024 * 1024
NODE_LIMITS = options(
    max_bytes_per_message=MESSAGE_BYTES, max_inflight_bytes=IN_FLIGHT_BYTES, max_inflight_messages=256
)


def append(
    *entries: Entry, term: int, index: int = 0, log_term: int = 0, commit: int = 0, sender: int = 2, to: int = 1
) -> Message:
    return Message(
        type=MessageType.APPEND,
        sender=sender,
        to=to,
        term=term,
        index=index,
        log_term=log_term,
        entries=entries,
        commit=commit,
    )


def stored(*entries: Entry, term: int, commit: int = 0) -> MemoryStorage:
    storage = MemoryStorage(conf_state=VOTERS)
    storage.append(entries)
    storage.set_hard_state(HardState(term=term, commit=commit))
    return storage


def to(cluster: Cluster, node_id: int, kind: MessageType) -> list[Message]:
    return [message for message in cluster.messages if message.to == node_id and message.type is kind]


def reason_of(raw: RawNode) -> DropReason:
    with pytest.raises(ProposalDroppedError) as caught:
        raw.propose(b"x")
    return caught.value.reason


# What counts as committed.


def test_what_is_proposed_is_applied_by_all() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.pass_time(1)

    assert [node.applied_index for node in cluster.nodes.values()] == [6, 6, 6]
    assert [cluster.referee.committed[index].data for index in range(2, 7)] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_leader_says_that_it_leads_by_an_empty_entry_of_its_term() -> None:
    cluster = Cluster(3)

    cluster.elect(1)

    assert cluster.referee.committed == {1: Entry(1, 1)}


def test_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    """Figure 8 of the paper: a majority holds it, and still another leader may replace it."""
    cluster = Cluster(3, configure=options(pre_vote=False, check_quorum=False))
    both = (Entry(1, 1), Entry(2, 2))
    for node_id, entries in {1: both, 2: both, 3: both[:1]}.items():
        cluster.boot(node_id, stored(*entries, term=3))
    cluster.isolate(3)
    cluster.do(1, RawNode.campaign)
    cluster.settle(only=[1])
    cluster.settle(only=[2])
    assert cluster.leaders == []
    cluster.deliver(to(cluster, 1, MessageType.VOTE_RESPONSE)[0])
    assert cluster.leaders == [1]

    old = Message(type=MessageType.APPEND_RESPONSE, sender=2, to=1, term=4, index=2)
    cluster.deliver(old)
    assert cluster[1].raft.log.committed == 0
    cluster.settle()

    assert cluster[1].raft.log.committed == 3


def test_the_leader_does_not_count_itself_before_its_entry_is_durable() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")

    cluster.settle(only=[2])
    answer = Message(type=MessageType.APPEND_RESPONSE, sender=2, to=1, term=1, index=2)
    cluster[2].storage.append([Entry(1, 2, data=b"x")])
    cluster.deliver(answer)
    assert cluster[1].raft.log.committed == 1
    cluster.write(1)

    assert cluster[1].raft.log.committed == 2


def test_a_majority_of_followers_commits_while_the_disk_of_the_leader_is_slow() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")

    for message in to(cluster, 2, MessageType.APPEND) + to(cluster, 3, MessageType.APPEND):
        cluster.deliver(message)
    cluster.settle(only=[2, 3])
    for message in to(cluster, 1, MessageType.APPEND_RESPONSE):
        cluster.deliver(message)

    assert cluster[1].raft.log.committed == 2
    assert not cluster[1].applies  # applied only when it is durable here too


def test_what_is_committed_is_not_lost_when_the_leader_crashes() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()

    cluster.isolate(1)
    for node_id in (2, 3):
        cluster.do(node_id, RawNode.forget_leader)
    cluster.do(3, RawNode.campaign)
    cluster.settle()

    assert cluster[3].leads
    assert cluster[3].log() == [(1, 1), (1, 2), (2, 3)]


def test_an_entry_that_was_not_committed_gives_way_to_that_of_a_newer_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    cluster.propose(1, b"lost")
    cluster.settle()

    for node_id in (2, 3):
        cluster.do(node_id, RawNode.forget_leader)
    cluster.do(2, RawNode.campaign)
    cluster.settle()
    cluster.propose(2, b"kept")
    cluster.heal()
    cluster.pass_time(3)

    assert cluster[1].log() == cluster[2].log()
    assert [entry.data for entry in cluster.referee.committed.values()] == [b"", b"", b"kept"]


def test_a_proposal_is_the_last_entry_of_the_leaders_term() -> None:
    cluster = Cluster(1)
    cluster.elect(1)

    cluster.propose(1, b"x")

    raw = cluster[1].raw
    assert (raw.last_index, raw.term, raw.committed) == (2, 1, 1)
    assert raw.raft.log.slice(2, 3, 1) == [Entry(1, 2, data=b"x")]


def test_the_only_voter_commits_what_is_durable_and_nothing_else() -> None:
    cluster = Cluster(1)
    cluster.elect(1)

    cluster.propose(1, b"x")
    assert cluster[1].raft.log.committed == 1
    cluster.write(1)

    assert cluster[1].raft.log.committed == 2


def test_many_proposals_before_one_write_are_acknowledged_once() -> None:
    raw = RawNode(
        Config(
            id=1,
            storage=MemoryStorage(conf_state=ConfState(voters=(1,))),
            rng=random.Random(1),
            async_storage_writes=True,
        )
    )
    raw.campaign()
    while raw.raft.role is not Role.LEADER:
        for message in raw.ready().messages[0].responses:
            raw.step(message)

    for number in range(100):
        raw.propose(b"%d" % number)

    kinds = [response.type for response in raw.ready().messages[0].responses]
    assert kinds == [MessageType.APPEND_RESPONSE, MessageType.STORAGE_APPEND_RESPONSE]


# What a follower does with an append.


def test_an_acknowledgement_leaves_only_when_the_entries_are_durable() -> None:
    cluster = Cluster(3)

    cluster.deliver(append(Entry(1, 1), term=1))
    assert not cluster.messages
    cluster.write(1)

    assert [(message.to, message.index) for message in cluster.messages] == [(2, 1)]


def test_even_a_rejection_waits_for_the_disk() -> None:
    cluster = Cluster(3)

    cluster.deliver(append(Entry(1, 9), term=1, index=8, log_term=1))
    assert not cluster.messages
    cluster.write(1)

    assert [message.reject for message in cluster.messages] == [True]


def test_a_late_and_shorter_append_truncates_nothing() -> None:
    cluster = Cluster(3)
    entries = [Entry(1, index) for index in range(1, 6)]
    cluster.deliver(append(*entries, term=1))

    cluster.deliver(append(*entries[:2], term=1))
    cluster.deliver(append(*entries[2:3], term=1, index=2, log_term=1))

    assert cluster[1].log() == [(1, index) for index in range(1, 6)]


def test_only_from_the_first_conflict_on_entries_are_replaced() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(*(Entry(1, index) for index in range(1, 6)), term=1))

    cluster.deliver(append(Entry(1, 2), Entry(2, 3), term=2, index=1, log_term=1, sender=3))

    assert cluster[1].log() == [(1, 1), (1, 2), (2, 3)]


def test_replacing_a_committed_entry_is_a_bug() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(Entry(1, 1), Entry(1, 2), term=1, commit=2))

    with pytest.raises(InvariantViolation, match="would replace a committed one"):
        cluster[1].raft.log.maybe_append(0, 0, [Entry(2, 1)], 0)


def test_an_append_below_the_commit_index_is_answered_with_the_commit_index() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(Entry(1, 1), Entry(1, 2), Entry(1, 3), term=1, commit=3))
    cluster.settle(only=[1])
    cluster.messages.clear()

    cluster.deliver(append(Entry(7, 2), term=1, index=1, log_term=1))
    cluster.settle(only=[1])

    assert [(message.index, message.reject) for message in cluster.messages] == [(3, False)]
    assert cluster[1].log() == [(1, 1), (1, 2), (1, 3)]


def test_a_follower_commits_no_more_than_the_append_has_verified() -> None:
    """What its log holds beyond may be another leader's."""
    cluster = Cluster(3)
    cluster.boot(1, stored(Entry(1, 1), Entry(1, 2), Entry(1, 3), term=1))

    cluster.deliver(append(term=2, index=1, log_term=1, commit=3))

    assert cluster[1].raft.log.committed == 1


def test_a_heartbeat_carries_no_commit_index_beyond_what_matches() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    for _ in range(3):
        cluster.propose(1, b"x")
    cluster.settle()
    cluster.heal()

    cluster.tick(1)

    assert [message.commit for message in to(cluster, 2, MessageType.HEARTBEAT)] == [4]
    assert [message.commit for message in to(cluster, 3, MessageType.HEARTBEAT)] == [1]


def test_a_heartbeat_tells_a_follower_what_is_committed() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(Entry(1, 1), Entry(1, 2), term=1, commit=1))

    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=1, commit=2))

    assert cluster[1].raft.log.committed == 2


def test_a_commit_index_beyond_the_log_means_that_the_log_was_lost() -> None:
    with pytest.raises(InvariantViolation, match="was the log lost"):
        Cluster(1).boot(1, stored(Entry(1, 1), term=1, commit=2))


def test_what_was_applied_is_committed_though_the_commit_index_was_not_durable() -> None:
    storage = stored(Entry(1, 1), Entry(1, 2), Entry(1, 3), term=1, commit=1)

    raw = RawNode(Config(id=1, storage=storage, rng=random.Random(1), applied=2))

    assert (raw.committed, raw.raft.log.applied) == (2, 2)
    assert not raw.has_ready()


def test_a_restart_hands_out_what_is_committed_and_was_not_applied() -> None:
    storage = stored(Entry(1, 1), Entry(1, 2), Entry(1, 3), term=1, commit=2)

    raw = RawNode(Config(id=1, storage=storage, rng=random.Random(1), async_storage_writes=True))

    assert raw.ready().committed_entries == [Entry(1, 1), Entry(1, 2)]


# What a leader makes of the answers.


def test_a_late_acknowledgement_takes_nothing_back() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()
    progress = cluster[1].raft.tracker.progress[2]
    before = (progress.match, progress.next_index)

    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=2, to=1, term=1, index=1))
    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=2, to=1, term=1, index=1, reject=True))

    assert (progress.match, progress.next_index) == before
    assert progress.state is ProgressState.REPLICATE


def answers_of_an_earlier_stay() -> tuple[Cluster, list[Message]]:
    """Return a cluster whose third member was replaced, in one term, by one with an empty disk; and what is late."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.tick(1)
    cluster.settle(only=[3])
    late = [message for message in cluster.messages if message.sender == 3]
    cluster.messages = [message for message in cluster.messages if message.sender != 3]
    cluster.isolate(3)
    cluster.settle()
    for kind in (ChangeKind.REMOVE, ChangeKind.ADD_LEARNER):
        cluster.do(1, lambda raw, kind=kind: raw.propose_conf_change(ConfChange((Change(kind, 3),))))  # type: ignore[misc]
        cluster.settle()
    cluster.boot(3, MemoryStorage(conf_state=VOTERS))
    cluster.heal()
    return cluster, late


@pytest.mark.parametrize("kind", [MessageType.APPEND_RESPONSE, MessageType.HEARTBEAT_RESPONSE])
def test_an_answer_of_an_earlier_stay_in_the_cluster_says_nothing_about_the_present_one(kind: MessageType) -> None:
    cluster, late = answers_of_an_earlier_stay()
    progress = cluster[1].raft.tracker.progress[3]
    progress.recent_active = False
    before = (progress.match, progress.next_index, progress.append_paused, progress.recent_active)
    answers = [message for message in late if message.type is kind]
    assert answers

    for message in answers:
        cluster.deliver(message)

    assert (progress.match, progress.next_index, progress.append_paused, progress.recent_active) == before


def test_a_member_that_comes_back_with_an_empty_disk_gets_the_whole_log_whatever_is_late() -> None:
    cluster, late = answers_of_an_earlier_stay()
    for message in late:
        cluster.deliver(message)

    cluster.pass_time(5)

    assert cluster[3].log() == cluster[1].log()
    assert cluster[1].raft.tracker.progress[3].state is ProgressState.REPLICATE


def test_an_answer_brings_back_the_session_of_what_it_answers() -> None:
    cluster = Cluster(3)
    cluster.boot(1, stored(Entry(1, 1), Entry(1, 2), term=3, commit=1))
    snapshot = Snapshot(SnapshotMeta(1, 1, VOTERS))
    messages = [
        append(term=3, index=2, log_term=1),
        append(term=3, index=0, log_term=0),  # below the commit index
        append(term=3, index=2, log_term=2),  # rejected
        append(term=2, index=2, log_term=1),  # of an older term
        Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=3),
        Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=2),
        Message(type=MessageType.SNAPSHOT, sender=2, to=1, term=3, snapshot=snapshot),
    ]

    for session, message in enumerate(messages, start=11):
        cluster.deliver(msgspec.structs.replace(message, session=session))
    while cluster[1].appends:
        cluster.write(1)

    assert sorted(message.session for message in cluster.messages) == list(range(11, 18))


def test_an_answer_that_says_no_session_is_believed() -> None:
    """It comes from a version that knew none."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")

    cluster[2].storage.append([Entry(1, 2, data=b"x")])
    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=2, to=1, term=1, index=2))

    assert cluster[1].raft.tracker.progress[2].match == 2


def test_a_follower_is_probed_at_most_once_for_each_term_of_its_log() -> None:
    cluster = Cluster(3, configure=options(pre_vote=False, check_quorum=False))
    own = [Entry(1, 1), *(Entry(5, index) for index in range(2, 100)), *(Entry(6, index) for index in range(100, 200))]
    other = [
        Entry(1, 1),
        *(Entry(3, index) for index in range(2, 150)),
        *(Entry(4, index) for index in range(150, 250)),
    ]
    cluster.boot(1, stored(*own, term=6))
    cluster.boot(2, stored(*other, term=6))
    cluster.isolate(2)
    cluster.boot(3, stored(*own, term=6))
    cluster.elect(1)
    cluster.heal()
    sent: list[Message] = []
    cluster.tick(1)
    while cluster.messages:
        sent += [message for message in cluster.messages if message.type is MessageType.APPEND_RESPONSE]
        cluster.settle(only=[1, 2, 3]) if not cluster.messages else cluster.deliver_next()
        while cluster[2].appends:
            cluster.write(2)

    assert len({(message.index, message.reject_hint) for message in sent if message.reject}) <= 3
    assert cluster[2].log() == cluster[1].log()


def test_a_window_that_is_full_stops_appends_until_one_is_acknowledged() -> None:
    cluster = Cluster(3, configure=options(max_inflight_messages=2))
    cluster.elect(1)

    for _ in range(5):
        cluster.propose(1, b"x")
    assert len(to(cluster, 2, MessageType.APPEND)) == 2
    cluster.settle()

    assert cluster[2].raft.log.last_index == 6


def test_a_window_is_full_when_its_bytes_are() -> None:
    cluster = Cluster(3, configure=options(max_inflight_bytes=250, max_bytes_per_message=100))
    cluster.elect(1)

    for _ in range(5):
        cluster.propose(1, b"x" * 100)

    assert len(to(cluster, 2, MessageType.APPEND)) == 3


def test_a_window_of_lost_appends_is_found_out_after_a_heartbeat() -> None:
    cluster = Cluster(3, configure=options(max_inflight_messages=2))
    cluster.elect(1)
    for _ in range(5):
        cluster.propose(1, b"x")
    cluster.messages.clear()

    cluster.pass_time(2)

    assert cluster[2].log() == cluster[3].log() == cluster[1].log()


def test_a_follower_that_is_slow_slows_down_nobody_else() -> None:
    """With the limits of a node, and more than fits the window of the follower that does not answer."""
    cluster = Cluster(3, configure=NODE_LIMITS)
    cluster.elect(1)
    for number in range(200):
        assert cluster.propose(1, bytes(64 * 1024))
        if number % 20 == 0:
            cluster.tick(1)
        cluster.settle(only=[1, 2])
        assert cluster[1].raft.log.committed == number + 2
    waiting = to(cluster, 3, MessageType.APPEND)

    assert sum(len(entry.data) for message in waiting for entry in message.entries) == IN_FLIGHT_BYTES
    assert len(to(cluster, 3, MessageType.HEARTBEAT)) == 10
    largest = 0
    while cluster[3].raft.log.last_index < 201:
        cluster.settle(only=[3])
        cluster.settle(only=[1])
        sizes = [sum(len(entry.data) for entry in message.entries) for message in to(cluster, 3, MessageType.APPEND)]
        assert sum(sizes) <= IN_FLIGHT_BYTES + MESSAGE_BYTES
        largest = max(largest, *sizes, 0)
    assert 7 * 64 * 1024 <= largest <= MESSAGE_BYTES


def test_a_window_of_many_small_appends_is_full_when_they_are_256() -> None:
    cluster = Cluster(3, configure=NODE_LIMITS)
    cluster.elect(1)

    for _ in range(300):
        cluster.propose(1, b"x")
        cluster.settle(only=[1, 2])

    sent = to(cluster, 3, MessageType.APPEND)
    assert sum(bool(message.entries) for message in sent) == 256
    assert len(sent) < 2 * 256  # the others only say what is committed
    assert cluster[1].raft.log.committed == 301


def test_sending_into_a_full_window_is_a_bug() -> None:
    window = Inflights(messages_max=1, bytes_max=10)
    window.add(1, 1)

    with pytest.raises(InvariantViolation):
        window.add(2, 1)


def test_appends_are_no_larger_than_they_may_be() -> None:
    cluster = Cluster(3, configure=options(max_bytes_per_message=300))
    cluster.elect(1)
    cluster.isolate(2)
    for _ in range(10):
        cluster.propose(1, b"x" * 100)
    cluster.settle()
    cluster.heal()

    cluster.tick(1)
    seen: list[int] = []
    while cluster.messages:
        seen += [len(message.entries) for message in to(cluster, 2, MessageType.APPEND)]
        cluster.deliver_next()
        while cluster[2].appends:
            cluster.write(2)

    assert max(seen) == 2
    assert cluster[2].log() == cluster[1].log()


# What is not taken.


def test_a_proposal_without_a_leader_is_dropped() -> None:
    assert reason_of(Cluster(3)[1].raw) is DropReason.NO_LEADER


def test_a_candidate_drops_proposals() -> None:
    cluster = Cluster(3)
    cluster.do(1, RawNode.campaign)

    assert reason_of(cluster[1].raw) is DropReason.NO_LEADER


def test_a_follower_passes_a_proposal_on() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    assert cluster.propose(2, b"x")
    cluster.settle()

    assert cluster.referee.committed[2].data == b"x"


def test_a_follower_that_must_not_pass_proposals_on_drops_them() -> None:
    cluster = Cluster(3, configure=options(proposal_forwarding=False))
    cluster.elect(1)

    assert reason_of(cluster[2].raw) is DropReason.NOT_LEADER


def test_a_leader_drops_proposals_when_too_much_is_uncommitted_and_takes_them_again_later() -> None:
    cluster = Cluster(3, configure=options(max_uncommitted_bytes=100))
    cluster.elect(1)
    assert cluster.propose(1, b"x" * 100)

    assert reason_of(cluster[1].raw) is DropReason.LOG_FULL
    cluster.settle()

    assert cluster.propose(1, b"x" * 100)


def test_what_is_proposed_together_is_sent_together_and_keeps_its_order() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.do(1, lambda raw: raw.propose(b"a", b"b", b"c"))
    sent = [[entry.data for entry in message.entries] for message in to(cluster, 2, MessageType.APPEND)]
    cluster.settle()

    assert sent == [[b"a", b"b", b"c"]]
    assert [cluster.referee.committed[index].data for index in (2, 3, 4)] == [b"a", b"b", b"c"]


def test_what_is_proposed_together_is_dropped_together() -> None:
    cluster = Cluster(3, configure=options(max_uncommitted_bytes=100))
    cluster.elect(1)
    cluster.propose(1, b"x" * 90)

    with pytest.raises(ProposalDroppedError):
        cluster[1].raw.propose(b"a" * 5, b"b" * 6)

    assert cluster[1].raft.log.last_index == 2


def test_a_single_proposal_may_exceed_the_limit() -> None:
    cluster = Cluster(3, configure=options(max_uncommitted_bytes=100))
    cluster.elect(1)

    assert cluster.propose(1, b"x" * 1000)


def test_a_new_leader_counts_what_its_predecessor_left_uncommitted() -> None:
    cluster = Cluster(1, configure=options(max_uncommitted_bytes=100))
    storage = MemoryStorage(conf_state=ConfState(voters=(1,)))
    storage.append([Entry(1, 1, data=b"x" * 100)])
    storage.set_hard_state(HardState(term=1))
    cluster.boot(1, storage)
    cluster.do(1, RawNode.campaign)
    while not cluster[1].leads:
        cluster.write(1)

    assert reason_of(cluster[1].raw) is DropReason.LOG_FULL
    cluster.settle()

    assert cluster.propose(1, b"x" * 100)


@pytest.mark.parametrize("kind", [MessageType.HUP, MessageType.BEAT, MessageType.CHECK_QUORUM, MessageType.UNREACHABLE])
def test_what_is_local_is_not_taken_from_the_network(kind: MessageType) -> None:
    cluster = Cluster(3)

    with pytest.raises(MessageRefusedError, match=kind.name):
        cluster[1].raw.step(Message(type=kind, sender=2, to=1))

    assert cluster[1].raft.role is Role.FOLLOWER


def test_a_lost_append_is_sent_again_once_it_is_known_to_be_lost() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.messages.clear()

    cluster.do(1, lambda raw: raw.report_unreachable(2))
    before = cluster[1].raft.tracker.progress[2].state
    cluster.pass_time(2)

    assert cluster[2].log() == cluster[1].log()
    assert (before, cluster[1].raft.tracker.progress[2].state) == (ProgressState.PROBE, ProgressState.REPLICATE)


# Handing out.


def test_entries_are_handed_out_only_as_fast_as_they_are_applied() -> None:
    cluster = Cluster(1, configure=options(max_committed_bytes_per_ready=250))
    cluster.elect(1)
    for _ in range(6):
        cluster.propose(1, b"x" * 100)
    while cluster[1].appends:
        cluster.write(1)

    assert sum(len(message.entries) for message in cluster[1].applies) == 3
    cluster.settle()

    assert cluster[1].applied_index == 7


def test_a_commit_index_alone_need_not_be_flushed() -> None:
    raw = RawNode(
        Config(id=1, storage=MemoryStorage(conf_state=VOTERS), rng=random.Random(1), async_storage_writes=True)
    )
    raw.step(append(Entry(1, 1), term=1))
    assert raw.ready().must_sync

    raw.step(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=1, commit=1))
    ready = raw.ready()

    assert not ready.must_sync
    assert ready.hard_state == HardState(term=1, commit=1)


def test_a_status_shows_the_members_to_a_leader_only() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    assert {node_id: status.match for node_id, status in cluster[1].raw.status().progress.items()} == {1: 1, 2: 1, 3: 1}
    assert cluster[2].raw.status().progress == {}


def test_a_ready_is_taken_only_after_the_one_before_was_done() -> None:
    raw = RawNode(Config(id=1, storage=MemoryStorage(conf_state=ConfState(voters=(1,))), rng=random.Random(1)))
    raw.campaign()
    raw.ready()
    raw.campaign()

    with pytest.raises(InvariantViolation, match="before advance"):
        raw.ready()


def test_a_node_with_asynchronous_writes_does_not_advance() -> None:
    with pytest.raises(InvariantViolation, match="advance"):
        Cluster(1)[1].raw.advance()
