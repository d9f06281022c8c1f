"""What a `Ready` says must be flushed."""

import random

from engram.log.consensus.config import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import ConfState, HardState, Message, MessageType
from engram.log.storage import MemoryStorage


def node(term: int) -> RawNode:
    storage = MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
    storage.set_hard_state(HardState(term=term))
    return RawNode(Config(id=1, storage=storage, rng=random.Random(1)))


def vote(term: int) -> Message:
    return Message(type=MessageType.VOTE, to=1, sender=2, term=term)


def test_a_vote_in_a_term_that_was_known_must_be_flushed() -> None:
    raw = node(term=3)
    raw.step(vote(3))

    ready = raw.ready()

    assert ready.hard_state == HardState(term=3, vote=2)
    assert ready.must_sync


def test_a_term_without_a_vote_must_be_flushed() -> None:
    raw = node(term=3)
    raw.step(Message(type=MessageType.HEARTBEAT, to=1, sender=2, term=4))

    ready = raw.ready()

    assert ready.hard_state == HardState(term=4)
    assert ready.must_sync


def test_nothing_but_a_higher_commit_index_need_not_be_flushed() -> None:
    storage = MemoryStorage(conf_state=ConfState(voters=(1, 2, 3)))
    raw = RawNode(Config(id=1, storage=storage, rng=random.Random(1)))
    raw.step(Message(type=MessageType.HEARTBEAT, to=1, sender=2, term=1))
    raw.ready()
    raw.advance()
    raw.step(Message(type=MessageType.HEARTBEAT, to=1, sender=2, term=1))

    assert not raw.ready().must_sync
