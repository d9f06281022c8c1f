"""Reads that see whatever was committed when they were asked for."""

import random

import pytest

from engram.log.consensus.raft import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.readonly import ReadOnlyOption
from engram.log.consensus.types import ConfState, Entry, HardState, Message, MessageType, ReadState
from engram.log.storage import MemoryStorage
from tests.log.consensus.cluster import Cluster, options


def read(cluster: Cluster, node_id: int, context: bytes) -> None:
    cluster.do(node_id, lambda raw: raw.read_index(context))


def test_a_leader_answers_a_read_once_a_majority_has_confirmed_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    read(cluster, 1, b"r")
    assert not cluster[1].read_states
    cluster.settle()

    assert cluster[1].read_states == [ReadState(1, b"r")]


def test_a_follower_asks_its_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    read(cluster, 2, b"r")
    cluster.settle()

    assert cluster[2].read_states == [ReadState(1, b"r")]
    assert not cluster[1].read_states


def test_a_read_without_a_leader_is_not_answered() -> None:
    cluster = Cluster(3)

    read(cluster, 2, b"r")
    cluster.settle()

    assert not cluster[2].read_states


def test_a_leader_that_was_deposed_unknowingly_answers_no_read() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    for node_id in (2, 3):
        cluster.do(node_id, RawNode.forget_leader)
    cluster.do(2, RawNode.campaign)
    cluster.settle()
    cluster.propose(2, b"news")
    cluster.settle()

    read(cluster, 1, b"r")
    cluster.settle()
    cluster.heal()
    cluster.pass_time(3)

    assert not cluster[1].read_states


def test_a_read_does_not_outlive_the_term_it_was_asked_in() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    read(cluster, 1, b"r")
    cluster.messages.clear()

    cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=5))
    for node_id in cluster.nodes:
        cluster.do(node_id, RawNode.forget_leader)
    cluster.elect(1)
    cluster.pass_time(2)

    assert not cluster[1].read_states


def test_an_answer_to_an_earlier_heartbeat_confirms_no_later_read() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    read(cluster, 1, b"first")
    first = [message for message in cluster.messages if message.type is MessageType.HEARTBEAT]
    cluster.messages.clear()
    cluster.propose(1, b"x")
    cluster.messages.clear()

    read(cluster, 1, b"second")
    cluster.messages.clear()
    for message in first:
        cluster.deliver(message)
    while cluster.messages:
        cluster.deliver_next()

    assert [state.context for state in cluster[1].read_states] == [b"first"]


def test_one_round_confirms_all_reads_that_waited_for_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    for number in range(5):
        read(cluster, 1, b"%d" % number)
    del cluster.messages[:-2]  # of all heartbeats, only the last two arrive

    cluster.settle()

    assert [state.context for state in cluster[1].read_states] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_lost_heartbeat_is_made_up_for_by_the_next() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    read(cluster, 1, b"r")
    cluster.messages.clear()

    cluster.pass_time(1)

    assert [state.context for state in cluster[1].read_states] == [b"r"]


def test_a_read_is_answered_once_however_often_it_is_confirmed() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    read(cluster, 1, b"r")
    cluster.settle(only=[2, 3])
    answers = [message for message in cluster.messages if message.to == 1]

    for message in answers * 2:
        cluster.deliver(message)

    assert len(cluster[1].read_states) == 1


def test_a_learner_confirms_nothing() -> None:
    cluster = Cluster(4, conf_state=ConfState(voters=(1, 2, 3), learners=(4,)))
    cluster.elect(1)
    cluster.isolate(2)
    cluster.isolate(3)

    read(cluster, 1, b"r")
    cluster.settle()

    assert not cluster[1].read_states


@pytest.mark.parametrize("voters", [(1,), (1, 2, 3)])
def test_a_new_leader_answers_only_when_it_has_committed_an_entry_of_its_term(voters: tuple[int, ...]) -> None:
    """Before that it may not know what is committed: its commit index was not durable, or another's was ahead."""
    cluster = Cluster(len(voters))
    for node_id in voters:
        storage = MemoryStorage(conf_state=ConfState(voters=voters))
        storage.append([Entry(1, 1), Entry(1, 2)])
        storage.set_hard_state(HardState(term=1))
        cluster.boot(node_id, storage)
    cluster.do(1, RawNode.campaign)
    while not cluster.leaders:
        cluster.step_once()

    read(cluster, 1, b"r")
    assert not cluster[1].read_states
    cluster.settle()

    assert cluster[1].read_states == [ReadState(3, b"r")]


def test_the_only_voter_answers_at_once() -> None:
    cluster = Cluster(1)
    cluster.elect(1)

    read(cluster, 1, b"r")

    assert cluster[1].read_states == [ReadState(1, b"r")]


def test_with_a_lease_a_leader_answers_at_once() -> None:
    cluster = Cluster(3, configure=options(read_only_option=ReadOnlyOption.LEASE_BASED))
    cluster.elect(1)

    read(cluster, 1, b"r")

    assert cluster[1].read_states == [ReadState(1, b"r")]


def test_with_a_lease_nobody_forgets_the_leader() -> None:
    cluster = Cluster(3, configure=options(read_only_option=ReadOnlyOption.LEASE_BASED))
    cluster.elect(1)

    cluster.do(2, RawNode.forget_leader)

    assert cluster[2].raft.leader_id == 1


def test_a_lease_needs_a_leader_that_steps_down_without_a_majority() -> None:
    with pytest.raises(ValueError, match="lease-based reads need check_quorum"):
        Config(
            id=1,
            storage=MemoryStorage(),
            rng=random.Random(1),
            read_only_option=ReadOnlyOption.LEASE_BASED,
            check_quorum=False,
        )


def test_a_read_that_carries_no_context_is_ignored() -> None:
    cluster = Cluster(1)
    cluster.elect(1)

    cluster.deliver(Message(type=MessageType.READ_INDEX, sender=1, to=1))

    assert not cluster[1].read_states
