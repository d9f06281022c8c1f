"""What stands in for entries that are gone."""

import pytest

from engram.log.consensus.raft import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.tracker import Progress, ProgressState
from engram.log.consensus.types import (
    ConfState,
    Entry,
    InvariantViolation,
    Message,
    MessageType,
    Snapshot,
    SnapshotMeta,
)
from engram.log.storage import MemoryStorage, SnapshotTemporarilyUnavailableError
from tests.log.consensus.cluster import ELECTION_TICKS, Cluster

VOTERS = ConfState(voters=(1, 2, 3))


def snapshot(index: int, term: int, members: ConfState = VOTERS) -> Message:
    return Message(
        type=MessageType.SNAPSHOT, sender=2, to=1, term=9, snapshot=Snapshot(SnapshotMeta(index, term, members))
    )


def append(*entries: Entry, term: int, index: int = 0, log_term: int = 0, commit: int = 0) -> Message:
    return Message(
        type=MessageType.APPEND,
        sender=2,
        to=1,
        term=term,
        index=index,
        log_term=log_term,
        entries=entries,
        commit=commit,
    )


def behind() -> Cluster:
    """Return a cluster whose third node lacks what the leader, node 1, has compacted."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.compact(1)
    cluster.heal()
    return cluster


def waiting_for_snapshot(cluster: Cluster) -> Progress:
    """Let the leader send the third node a snapshot, and return what it then knows of it."""
    while cluster[1].raft.tracker.progress[3].state is not ProgressState.SNAPSHOT:
        cluster.tick(1)
        cluster.step_once()
    return cluster[1].raft.tracker.progress[3]


def test_a_follower_that_needs_what_was_compacted_gets_a_snapshot_and_then_the_rest() -> None:
    cluster = behind()
    cluster.propose(1, b"after")

    cluster.pass_time(3)

    assert cluster[3].storage.first_index() == 7
    assert cluster[3].log() == cluster[1].log()
    assert cluster[1].raft.tracker.progress[3].state is ProgressState.REPLICATE


def test_a_snapshot_replaces_a_log_that_conflicts_with_it() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(*(Entry(1, index) for index in range(1, 9)), term=1, commit=2))

    cluster.deliver(snapshot(5, 2))
    cluster.settle(only=[1])

    assert cluster[1].log() == []
    assert cluster[1].raft.log.last_index == cluster[1].raft.log.committed == 5
    assert cluster[1].raft.log.term(5) == 2


def test_a_log_that_holds_all_of_a_snapshot_keeps_what_it_has_beyond() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(*(Entry(1, index) for index in range(1, 9)), term=1, commit=2))

    cluster.deliver(snapshot(5, 1))
    cluster.settle(only=[1])

    assert cluster[1].log() == [(1, index) for index in range(1, 9)]
    assert cluster[1].raft.log.committed == 5


def test_a_snapshot_of_what_is_committed_already_is_ignored() -> None:
    cluster = Cluster(3)
    cluster.deliver(append(*(Entry(1, index) for index in range(1, 9)), term=1, commit=6))

    cluster.deliver(snapshot(5, 7))
    cluster.settle(only=[1])

    assert cluster[1].log() == [(1, index) for index in range(1, 9)]
    assert [message.index for message in cluster.messages if message.term == 9] == [6]


def test_a_snapshot_without_this_node_among_the_members_is_ignored() -> None:
    cluster = Cluster(3)

    cluster.deliver(snapshot(5, 1, ConfState(voters=(2, 3))))

    assert cluster[1].raft.log.last_index == 0


def test_a_snapshot_brings_its_membership() -> None:
    cluster = Cluster(3)
    members = ConfState(voters=(1, 2), voters_outgoing=(2, 3), learners=(7,), learners_next=(3,), auto_leave=True)

    cluster.deliver(snapshot(5, 1, members))

    assert cluster[1].raft.tracker.members.conf_state() == members


def test_nothing_is_handed_out_before_a_snapshot_is_installed() -> None:
    cluster = Cluster(3)
    cluster.deliver(snapshot(5, 1))
    cluster.deliver(append(Entry(9, 6), term=9, index=5, log_term=1, commit=6))

    assert not cluster[1].applies
    cluster.settle(only=[1])

    assert cluster[1].applied_index == 6


def test_the_term_of_a_snapshots_entry_is_known_before_and_after_it_is_installed() -> None:
    cluster = Cluster(3)

    cluster.deliver(snapshot(5, 3))
    before = cluster[1].raft.log.term(5)
    cluster.settle(only=[1])

    assert (before, cluster[1].raft.log.term(5)) == (3, 3)


def test_a_snapshot_that_is_installed_late_is_not_forgotten_in_a_newer_term() -> None:
    cluster = Cluster(3)
    cluster.deliver(snapshot(5, 1))
    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=3, to=1, term=10))

    cluster.settle(only=[1])

    assert cluster[1].raft.log.unstable.snapshot is None
    assert cluster[1].raft.log.applied == 5


def test_no_snapshot_is_sent_to_a_node_that_is_not_heard_of() -> None:
    cluster = behind()
    cluster.do(1, lambda raw: raw.report_unreachable(3))
    cluster[1].raft.tracker.progress[3].recent_active = False

    cluster.propose(1, b"x")

    assert MessageType.SNAPSHOT not in {message.type for message in cluster.messages}


def test_nothing_is_sent_to_a_node_that_is_installing_a_snapshot() -> None:
    cluster = behind()
    waiting_for_snapshot(cluster)
    cluster.messages.clear()

    cluster.propose(1, b"x")

    assert {message.to for message in cluster.messages} == {2}


def test_a_snapshot_that_did_not_arrive_is_sent_again() -> None:
    cluster = behind()
    waiting_for_snapshot(cluster)
    cluster.messages.clear()

    cluster.pass_time(3)
    assert cluster[3].raft.log.last_index == 1
    cluster.do(1, lambda raw: raw.report_snapshot(3, ok=False))
    cluster.pass_time(3)

    assert cluster[3].log() == cluster[1].log()


def test_after_a_snapshot_that_did_not_arrive_its_receiver_is_probed_from_where_it_was() -> None:
    cluster = behind()
    progress = waiting_for_snapshot(cluster)

    cluster.do(1, lambda raw: raw.report_snapshot(3, ok=False))

    assert (progress.state, progress.next_index, progress.is_paused) == (ProgressState.PROBE, 2, True)


def test_a_snapshot_that_arrived_is_followed_by_what_comes_after_it() -> None:
    cluster = behind()
    progress = waiting_for_snapshot(cluster)

    cluster.do(1, lambda raw: raw.report_snapshot(3, ok=True))

    assert progress.state is ProgressState.PROBE
    assert progress.next_index == 7


def test_an_acknowledgement_from_before_the_log_begins_does_not_end_the_wait_for_a_snapshot() -> None:
    cluster = behind()
    progress = waiting_for_snapshot(cluster)
    cluster.messages.clear()

    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=3, to=1, term=1, index=3))
    before = progress.state
    assert not cluster.messages
    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=3, to=1, term=1, index=6))

    assert (before, progress.state) == (ProgressState.SNAPSHOT, ProgressState.REPLICATE)


def with_window(held: int) -> Cluster:
    """Return a cluster whose leader, node 1, has a snapshot at entry 9 and still the entries from 5 on.

    The third node holds `held` entries.
    """
    cluster = Cluster(3)
    cluster.elect(1)
    for number in range(2, 10):
        if number > held:
            cluster.isolate(3)
        cluster.propose(1, b"%d" % number)
        cluster.settle()
    cluster.compact(1, kept=5)
    assert (cluster[1].storage.first_index(), cluster[1].storage.snapshot().meta.index) == (5, 9)
    cluster.isolate(3)
    cluster.propose(1, b"after")
    cluster.settle()
    assert cluster[3].raft.log.last_index == held
    return cluster


def sent_to_third(cluster: Cluster) -> set[MessageType]:
    """Let the third node catch up, and return what kinds of messages it took."""
    kinds = set()
    for _ in range(3):
        cluster.tick(1)
        while cluster.messages or cluster[3].appends:
            kinds |= {message.type for message in cluster.messages if message.to == 3}
            cluster.step_once()
    return kinds


@pytest.mark.parametrize(("held", "needs_snapshot"), [(3, True), (4, False), (6, False), (9, False)])
def test_only_who_needs_entries_older_than_the_kept_ones_gets_a_snapshot(held: int, *, needs_snapshot: bool) -> None:
    """Entries may be kept from before the snapshot: then they, and not the snapshot, are what a follower is sent."""
    cluster = with_window(held)
    cluster.heal()

    kinds = sent_to_third(cluster)

    assert (MessageType.SNAPSHOT in kinds) is needs_snapshot
    assert cluster[3].raft.log.last_index == cluster[3].applied_index == 10
    assert cluster[3].storage.first_index() == (10 if needs_snapshot else 1)


@pytest.mark.parametrize(("acknowledged", "state"), [(3, ProgressState.SNAPSHOT), (4, ProgressState.REPLICATE)])
def test_an_acknowledgement_that_reaches_the_kept_entries_ends_the_wait_for_a_snapshot(
    acknowledged: int, state: ProgressState
) -> None:
    cluster = with_window(held=1)
    cluster.heal()
    progress = waiting_for_snapshot(cluster)
    cluster.messages.clear()

    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=3, to=1, term=1, index=acknowledged))

    assert progress.state is state
    sent = [entry.index for message in cluster.messages for entry in message.entries]
    assert sent == ([] if state is ProgressState.SNAPSHOT else [5, 6, 7, 8, 9, 10])


def test_a_restart_on_entries_from_before_the_snapshot_hands_out_only_what_came_after_it() -> None:
    cluster = with_window(held=9)

    cluster.crash(1)
    assert cluster[1].applied_index == cluster[1].raft.log.applied == 9
    cluster.heal()
    cluster.pass_time(3 * ELECTION_TICKS)

    assert cluster[1].log()[0] == (1, 5)
    assert cluster[1].applied_index == cluster.leader.applied_index == 11


def test_a_snapshot_message_without_a_snapshot_changes_nothing() -> None:
    cluster = Cluster(3)

    cluster.deliver(Message(type=MessageType.SNAPSHOT, sender=2, to=1, term=1))

    assert cluster[1].raft.log.last_index == 0


def test_a_late_rejection_does_not_disturb_the_wait_for_a_snapshot() -> None:
    cluster = behind()
    progress = waiting_for_snapshot(cluster)

    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=3, to=1, term=1, index=6, reject=True))

    assert (progress.state, progress.next_index) == (ProgressState.SNAPSHOT, 7)


class Unready(MemoryStorage):
    """Its snapshot may be one that is still being made."""

    is_ready = True

    def snapshot(self) -> Snapshot:
        if not self.is_ready:
            raise SnapshotTemporarilyUnavailableError
        return super().snapshot()


@pytest.mark.parametrize("ready", [True, False])
def test_a_snapshot_that_is_not_ready_is_asked_for_again(*, ready: bool) -> None:
    storage = Unready()
    storage.apply_snapshot(Snapshot(SnapshotMeta(6, 1, VOTERS)))
    cluster = Cluster(3)
    cluster.boot(1, storage)
    storage.is_ready = ready
    cluster.elect(1)

    cluster.pass_time(3)

    assert cluster[2].raft.log.last_index == (7 if ready else 0)


def test_entries_that_are_gone_without_a_snapshot_are_a_bug() -> None:
    storage = MemoryStorage(conf_state=VOTERS)
    storage.append([Entry(1, 1), Entry(1, 2)])
    storage.compact(1)
    cluster = Cluster(3)
    cluster.boot(1, storage)

    with pytest.raises(InvariantViolation, match="there is no snapshot"):
        cluster.elect(1)


def test_a_restart_on_a_snapshot_goes_on_after_it() -> None:
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(SnapshotMeta(6, 1, ConfState(voters=(1,)))))
    cluster = Cluster(1)
    cluster.boot(1, storage)

    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()

    assert cluster[1].log() == [(1, 7), (1, 8)]
    assert cluster[1].applied_index == 8


def test_a_node_without_asynchronous_writes_installs_a_snapshot_before_it_advances() -> None:
    storage = MemoryStorage(conf_state=VOTERS)
    raw = RawNode(Config(id=1, storage=storage, rng=Cluster(1).rng))
    raw.step(snapshot(5, 1))

    ready = raw.ready()
    assert ready.snapshot is not None
    storage.apply_snapshot(ready.snapshot)
    raw.advance()

    assert raw.raft.log.unstable.snapshot is None
    assert raw.raft.log.applied == 5
