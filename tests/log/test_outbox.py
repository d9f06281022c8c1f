"""What waits for one node: how much, in which order, and what is dropped."""

import pytest

from engram.log.codec import message_bytes
from engram.log.consensus.types import Message, MessageType
from engram.log.outbox import MERGED_BYTES_MAX, RESERVE_MESSAGES, Outbox
from tests.log.nodes import append, vote

KIB = 1024


def heartbeat(*, term: int = 1, commit: int = 0, context: bytes = b"") -> Message:
    return Message(type=MessageType.HEARTBEAT, to=2, sender=1, term=term, commit=commit, context=context)


def acknowledgement(index: int, *, term: int = 1, session: int = 1, reject: bool = False) -> Message:
    kind = MessageType.APPEND_RESPONSE
    return Message(type=kind, to=2, sender=1, term=term, session=session, index=index, reject=reject)


def outbox(*, messages_max: int = 100, bytes_max: int = 100 * KIB, message_bytes_max: int = 1024 * KIB) -> Outbox:
    return Outbox(messages_max=messages_max, bytes_max=bytes_max, message_bytes_max=message_bytes_max)


def test_messages_are_taken_in_order_and_by_size() -> None:
    box = outbox()
    for index in (1, 3, 5, 7, 9):  # none goes on where another one ends
        assert box.add(append(2, index, 10 * KIB))

    assert [message.index for message in box.take(25 * KIB)] == [1, 3]
    assert [message.index for message in box.take(100 * KIB)] == [5, 7, 9]
    assert box.take(100 * KIB) == []
    assert (len(box), box.bytes, box.dropped) == (0, 0, 0)


def test_appends_are_dropped_beyond_the_count() -> None:
    box = outbox(messages_max=3)

    assert [box.add(append(2, index, 1)) for index in (1, 3, 5, 7, 9)] == [True, True, True, False, False]
    assert box.dropped == 2


def test_appends_are_dropped_beyond_the_bytes() -> None:
    box = outbox()

    assert [box.add(append(2, index, 40 * KIB)) for index in range(3)] == [True, True, False]


def test_votes_still_fit_when_appends_do_not_but_not_without_end() -> None:
    box = outbox(messages_max=1)
    box.add(append(2, 0, 1))

    assert [box.add(vote(2, index)) for index in range(RESERVE_MESSAGES + 1)] == [True] * RESERVE_MESSAGES + [False]


def test_one_message_over_the_limit_fits_when_nothing_else_waits() -> None:
    box = outbox()

    assert box.add(append(2, 0, 500 * KIB))
    assert not box.add(append(2, 1, 1))
    assert len(box.take(1)) == 1
    assert box.add(append(2, 1, 1))


def test_a_message_that_the_other_end_would_refuse_is_dropped() -> None:
    box = outbox(message_bytes_max=1024)

    assert not box.add(append(2, 0, 1024))
    assert box.dropped == 1


def test_heartbeats_that_say_the_same_are_sent_once() -> None:
    box = outbox()

    assert box.add(heartbeat())
    assert box.add(heartbeat(commit=5))
    assert len(box) == 1
    assert box.add(heartbeat(term=2))
    assert box.add(heartbeat(context=b"read"))
    assert len(box.take(100 * KIB)) == 3
    assert box.add(heartbeat())
    assert (len(box), box.dropped) == (1, 0)


def test_nothing_is_left_once_all_is_dropped() -> None:
    box = outbox()
    box.add(heartbeat())
    box.add(append(2, 0, KIB))

    assert box.drop_all() == 2
    assert (len(box), box.bytes, box.dropped) == (0, 0, 2)
    assert box.add(heartbeat())
    assert len(box) == 1


def test_appends_that_go_on_where_the_last_one_ends_are_one_message() -> None:
    box = outbox(messages_max=2)
    for index in range(50):
        assert box.add(append(2, index, 10))

    [message] = box.take(100 * KIB)

    assert [entry.index for entry in message.entries] == list(range(1, 51))
    assert (box.bytes, box.dropped) == (0, 0)


def test_a_message_does_not_grow_beyond_what_the_other_end_can_soon_begin_with() -> None:
    box = outbox(bytes_max=10 * MERGED_BYTES_MAX)
    for index in range(20):
        assert box.add(append(2, index, MERGED_BYTES_MAX // 8))

    sizes = [message_bytes(message) for message in box.take(10 * MERGED_BYTES_MAX)]

    assert 1 < len(sizes) < 20
    assert max(sizes) <= MERGED_BYTES_MAX


def test_what_is_said_in_one_message_counts_towards_the_bytes() -> None:
    box = outbox(bytes_max=100 * KIB)

    assert [box.add(append(2, index, 40 * KIB)) for index in range(3)] == [True, True, False]
    assert box.dropped == 1


def test_an_acknowledgement_repeats_the_one_before_that_has_left() -> None:
    box = outbox()
    box.add(acknowledgement(7))
    waiting = box.repeats(acknowledgement(7))
    box.take(KIB)

    assert (waiting, box.repeats(acknowledgement(7))) == (False, True)


@pytest.mark.parametrize(
    "message",
    [
        acknowledgement(8),
        acknowledgement(6),
        acknowledgement(7, term=2),
        acknowledgement(7, session=2),
        acknowledgement(7, reject=True),
        heartbeat(),
    ],
)
def test_what_says_something_else_repeats_nothing(message: Message) -> None:
    box = outbox()
    box.add(acknowledgement(7))
    box.take(KIB)

    assert not box.repeats(message)


def test_what_left_on_a_stream_that_broke_may_not_have_arrived() -> None:
    box = outbox()
    box.add(acknowledgement(7))
    box.take(KIB)
    box.drop_all()

    assert not box.repeats(acknowledgement(7))
