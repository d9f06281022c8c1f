"""Two messages for one node, said as one: what the other end is told is the same."""

import msgspec
import pytest

from engram.log.consensus.types import Entry, Message, MessageType
from engram.log.merging import merged


def entries(*indexes: int, term: int = 3) -> tuple[Entry, ...]:
    return tuple(Entry(term, index, data=b"x") for index in indexes)


def append(index: int, *indexes: int, commit: int = 0, log_term: int = 3, session: int = 1) -> Message:
    return Message(
        type=MessageType.APPEND,
        to=2,
        sender=1,
        term=3,
        log_term=log_term,
        index=index,
        entries=entries(*indexes),
        commit=commit,
        session=session,
    )


def answer(index: int, *, reject: bool = False, term: int = 3, session: int = 1) -> Message:
    return Message(
        type=MessageType.APPEND_RESPONSE, to=1, sender=2, term=term, index=index, reject=reject, session=session
    )


def test_an_append_goes_on_where_the_one_before_it_ends() -> None:
    both = merged(append(7, 8, 9, commit=5), append(9, 10, commit=7))

    assert both == append(7, 8, 9, 10, commit=7)


def test_news_of_a_commit_joins_the_append_before_it() -> None:
    assert merged(append(7, 8, commit=5), append(8, commit=8)) == append(7, 8, commit=8)


def test_entries_join_the_news_of_a_commit_before_them() -> None:
    assert merged(append(7, commit=7), append(7, 8, commit=7)) == append(7, 8, commit=7)


def test_an_older_commit_does_not_take_back_a_newer_one() -> None:
    assert merged(append(7, 8, commit=6), append(8, 9, commit=5)) == append(7, 8, 9, commit=6)


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(append(9, 10), id="a gap"),
        pytest.param(append(7, 8), id="the same again"),
        pytest.param(append(8, 9, log_term=2), id="behind an entry of another term"),
        pytest.param(append(8, 9, session=2), id="another stay of the member"),
        pytest.param(msgspec.structs.replace(append(8, 9), term=4), id="another term"),
        pytest.param(answer(8), id="another kind"),
    ],
)
def test_an_append_that_does_not_follow_is_a_message_of_its_own(later: Message) -> None:
    assert merged(append(7, 8), later) is None


def test_an_acknowledgement_holds_for_all_below_it() -> None:
    assert merged(answer(7), answer(9)) == answer(9)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param(answer(9), answer(7), id="an older one"),
        pytest.param(answer(7, reject=True), answer(9), id="after a rejection"),
        pytest.param(answer(7), answer(9, reject=True), id="before a rejection"),
        pytest.param(answer(7, term=2), answer(9), id="another term"),
        pytest.param(answer(7), answer(9, session=2), id="another stay of the member"),
    ],
)
def test_other_answers_are_messages_of_their_own(earlier: Message, later: Message) -> None:
    assert merged(earlier, later) is None


@pytest.mark.parametrize("kind", [MessageType.HEARTBEAT, MessageType.VOTE, MessageType.SNAPSHOT])
def test_no_other_kind_is_merged(kind: MessageType) -> None:
    message = Message(type=kind, to=2, sender=1, term=3)

    assert merged(message, message) is None
