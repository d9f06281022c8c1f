"""What is checked after every move, checked itself: each claim fails when it is made false."""

from collections.abc import Callable

import pytest

from engram.log.consensus import invariants
from engram.log.consensus.raft import Raft, Role
from engram.log.consensus.tracker import Members
from engram.log.consensus.types import Entry, InvariantViolation, Message, MessageType
from tests.log.consensus.cluster import Cluster


def commit_beyond_the_log(raft: Raft) -> None:
    raft.log.committed = raft.log.last_index + 1


def apply_what_is_not_committed(raft: Raft) -> None:
    raft.log.applied = raft.log.committed + 1


def skip_an_entry(raft: Raft) -> None:
    raft.log.unstable.entries = [Entry(1, raft.log.unstable.offset + 1)]


def lower_a_term(raft: Raft) -> None:
    offset = raft.log.unstable.offset
    raft.log.unstable.entries = [Entry(1, offset), Entry(0, offset + 1)]


def write_ahead(raft: Raft) -> None:
    raft.log.unstable.offset_in_progress = raft.log.unstable.offset - 1


def come_from_the_future(raft: Raft) -> None:
    raft.log.unstable.entries = [Entry(99, raft.log.unstable.offset)]


def match_more_than_there_is(raft: Raft) -> None:
    raft.tracker.progress[2].match = raft.log.last_index + 1


def lose_count_of_bytes(raft: Raft) -> None:
    raft.tracker.progress[2].inflights.bytes += 1


def wait_for_no_snapshot(raft: Raft) -> None:
    raft.tracker.progress[2].pending_snapshot = 3


def send_before_the_snapshot(raft: Raft) -> None:
    raft.tracker.progress[2].become_snapshot(5)
    raft.tracker.progress[2].next_index = 3


def probe_with_many(raft: Raft) -> None:
    progress = raft.tracker.progress[2]
    progress.become_probe()
    progress.inflights.add(1, 1)


def share_a_session(raft: Raft) -> None:
    raft.tracker.progress[2].session = raft.tracker.progress[3].session


def say_no_session(raft: Raft) -> None:
    raft.tracker.progress[2].session = 0


def forget_a_member(raft: Raft) -> None:
    del raft.tracker.progress[2]


def follow_while_leading(raft: Raft) -> None:
    raft.leader_id = 2


def lead_without_leading(raft: Raft) -> None:
    raft.role = Role.FOLLOWER


def stand_without_a_vote(raft: Raft) -> None:
    raft.role, raft.leader_id, raft.vote = Role.CANDIDATE, 0, 3


def stand_and_follow(raft: Raft) -> None:
    raft.role, raft.leader_id = Role.CANDIDATE, 2


def hand_over_without_leading(raft: Raft) -> None:
    raft.role, raft.leader_id, raft.transferee = Role.FOLLOWER, 0, 2


def demote_who_stays(raft: Raft) -> None:
    raft.tracker.members = Members(frozenset({1, 2, 3}), frozenset(), frozenset(), frozenset({2}))


BROKEN = [
    commit_beyond_the_log,
    apply_what_is_not_committed,
    skip_an_entry,
    lower_a_term,
    write_ahead,
    come_from_the_future,
    match_more_than_there_is,
    lose_count_of_bytes,
    wait_for_no_snapshot,
    send_before_the_snapshot,
    probe_with_many,
    share_a_session,
    say_no_session,
    forget_a_member,
    follow_while_leading,
    lead_without_leading,
    stand_without_a_vote,
    stand_and_follow,
    hand_over_without_leading,
    demote_who_stays,
]


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_node_is_found_out(damage: Callable[[Raft], None]) -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    invariants.check(cluster[1].raft)

    damage(cluster[1].raft)

    with pytest.raises(InvariantViolation, match="not true that"):
        invariants.check(cluster[1].raft)


def test_a_message_of_a_node_to_itself_is_a_bug() -> None:
    raft = Cluster(1)[1].raft

    with pytest.raises(InvariantViolation, match="to the node itself"):
        raft.send(Message(type=MessageType.HEARTBEAT, to=1))
