"""A member that was removed and added again is another one: what the first one said is not about it."""

import random

import pytest

from engram.log.consensus.config import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import Change, ChangeKind, ConfChange, ConfState, Message, MessageType, Role
from engram.log.storage import MemoryStorage


@pytest.fixture
def leader() -> RawNode:
    """Node 1 of three leads, and has entry 1."""
    raw = RawNode(Config(id=1, storage=MemoryStorage(conf_state=ConfState(voters=(1, 2, 3))), rng=random.Random(1)))
    raw.campaign()
    for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
        for node_id in (1, 2):
            raw.step(Message(type=kind, to=1, sender=node_id, term=1))
    assert raw.raft.role is Role.LEADER
    return raw


def added_again(raw: RawNode, node_id: int) -> tuple[int, int]:
    """Let a node leave and come back, and return the sessions of both stays."""
    first = raw.raft.tracker.progress[node_id].session
    for kind in (ChangeKind.REMOVE, ChangeKind.ADD_VOTER):
        raw.apply_conf_change(ConfChange(changes=(Change(kind, node_id),)))
    return first, raw.raft.tracker.progress[node_id].session


def test_what_a_removed_node_acknowledged_does_not_count_for_its_successor(leader: RawNode) -> None:
    first, second = added_again(leader, 3)
    answer = Message(type=MessageType.APPEND_RESPONSE, to=1, sender=3, term=1, index=1, session=first)

    leader.step(answer)

    assert first != second
    assert leader.raft.tracker.progress[3].match == 0
    assert leader.committed == 0

    leader.step(Message(type=MessageType.APPEND_RESPONSE, to=1, sender=3, term=1, index=1, session=second))
    assert leader.raft.tracker.progress[3].match == 1


def test_what_a_removed_node_confirmed_does_not_count_for_its_successor(leader: RawNode) -> None:
    first, _ = added_again(leader, 3)
    leader.raft.tracker.progress[3].recent_active = False

    leader.step(Message(type=MessageType.HEARTBEAT_RESPONSE, to=1, sender=3, term=1, session=first))

    assert not leader.raft.tracker.progress[3].recent_active
