"""Proposals of one turn of the loop: each has its place at once, and they reach the core together, before anything else."""

import random

import pytest

from engram.clock import SystemClock
from engram.log.consensus.config import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import ConfState, DropReason, Message, MessageType, ProposalDroppedError, Role
from engram.log.options import UNCOMMITTED_BYTES_MAX
from engram.log.proposals import Proposals
from engram.log.storage import MemoryStorage
from tests.log.replicas import Transactions


def leader(storage: MemoryStorage | None = None) -> RawNode:
    """Return a leader of three that has committed nothing yet."""
    storage = storage or MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
    raw = RawNode(Config(id=1, storage=storage, rng=random.Random(1)))
    raw.campaign()
    for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
        for node_id in (1, 2):
            raw.step(Message(type=kind, to=1, sender=node_id, term=1))
    assert raw.raft.role is Role.LEADER
    return raw


def test_each_has_its_place_before_it_is_appended() -> None:
    raw, proposals = leader(), Proposals(SystemClock(), Transactions())
    before = raw.last_index

    positions = [proposals.add(raw, b"%d" % number) for number in range(3)]
    assert raw.last_index == before
    proposals.flush(raw)

    assert [position.log_index for position in positions] == [before + 1, before + 2, before + 3]
    assert [entry.data for entry in raw.ready().entries][-3:] == [b"0", b"1", b"2"]


def test_they_share_an_append() -> None:
    storage = MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
    raw, proposals = leader(storage), Proposals(SystemClock(), Transactions())
    storage.append(raw.ready().entries)
    raw.advance()
    raw.step(Message(type=MessageType.APPEND_RESPONSE, to=1, sender=2, term=1, index=raw.last_index))
    raw.ready()
    raw.advance()

    for number in range(10):
        proposals.add(raw, b"%d" % number)
    proposals.flush(raw)

    appends = [message for message in raw.ready().messages if message.to == 2]
    assert [len(message.entries) for message in appends] == [10]


def test_nothing_is_appended_twice() -> None:
    raw, proposals = leader(), Proposals(SystemClock(), Transactions())
    proposals.add(raw, b"one")

    proposals.flush(raw)
    last_index = raw.last_index
    proposals.flush(raw)

    assert raw.last_index == last_index


def test_what_the_core_would_refuse_is_not_taken() -> None:
    raw, proposals = leader(), Proposals(SystemClock(), Transactions())
    proposals.add(raw, bytes(UNCOMMITTED_BYTES_MAX))  # the first may be of any size

    with pytest.raises(ProposalDroppedError) as raised:
        proposals.add(raw, b"x")
    assert raised.value.reason is DropReason.LOG_FULL

    proposals.flush(raw)
    raw.transfer_leadership(2)
    with pytest.raises(ProposalDroppedError) as raised:
        proposals.add(raw, b"x")
    assert raised.value.reason is DropReason.TRANSFERRING

    raw.step(Message(type=MessageType.HEARTBEAT, to=1, sender=3, term=7))
    with pytest.raises(ProposalDroppedError) as raised:
        proposals.add(raw, b"x")
    assert raised.value.reason is DropReason.NOT_LEADER


def test_how_long_a_commit_took_is_told_once() -> None:
    raw, observer = leader(), Transactions()
    proposals = Proposals(SystemClock(), observer)
    first, second = (proposals.add(raw, data) for data in (b"one", b"two"))

    proposals.committed(first.log_index)
    proposals.committed(first.log_index)
    assert len(observer.waits_s) == 1

    proposals.committed(second.log_index)
    assert len(observer.waits_s) == 2
