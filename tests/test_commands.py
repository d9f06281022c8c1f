"""Commands: what becomes which event, and which values are refused with which words."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram import commands
from engram.commands import MessageDraft, Vectors
from engram.errors import InvalidError, RequestError, TooLargeError
from engram.events import Chunk, MessageAppended, MessageEmbedded, decode, encode

VECTORS = Vectors("m", 2, [Chunk(start=0, end=2, vector=b"\0\0\0\0")])


def draft(**changes: object) -> MessageDraft:
    plain = MessageDraft("m1", "user", "hello", None, None, {}, 1)
    return plain._replace(**changes)  # type: ignore[arg-type]


def append(*drafts: MessageDraft) -> list[object]:
    return list(commands.append_messages(session_id="s1", drafts=drafts, vectors=[None for _ in drafts], at_ms=5))


def test_a_message_travels_with_the_vectors_that_are_known_already() -> None:
    events = commands.append_messages(session_id="s1", drafts=[draft()], vectors=[VECTORS], at_ms=5)

    assert [type(event) for event in events] == [MessageAppended, MessageEmbedded]
    embedded = events[1]
    assert isinstance(embedded, MessageEmbedded)
    assert (embedded.message_id, embedded.source_index, embedded.model) == ("m1", 0, "m")


def test_a_batch_keeps_its_order() -> None:
    events = append(draft(message_id="b"), draft(message_id="a"))

    assert [event.message_id for event in events if isinstance(event, MessageAppended)] == ["b", "a"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"message_id": ""}, "id has 0 characters; it takes 1 to 200"),
        ({"message_id": "x" * 201}, "id has 201 characters"),
        ({"message_id": "a\nb"}, r"control character U\+000A at position 1"),
        ({"message_id": "a\x7f"}, r"U\+007F"),
        ({"message_id": "\ud800"}, r"U\+D800"),
        ({"role": "robot"}, "role is 'robot'; it takes 'user', 'assistant', 'system', 'tool'"),
        ({"role": "User"}, "role is 'User'"),
        ({"text": ""}, "content must not be blank"),
        ({"text": " \n\t"}, "content must not be blank"),
        ({"text": "a\udfff"}, "lone surrogate at position 1"),
        ({"name": ""}, "name has 0 characters"),
        ({"occurred_at_ms": 10**18}, "years 1 to 9999"),
        ({"metadata": {"k": 2**63}}, "64 bits"),
        ({"metadata": {str(n): 0 for n in range(65)}}, "65 keys; it takes 64"),
    ],
)
def test_a_refused_value_is_named_with_its_limit(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        append(draft(**changes))


def test_text_is_limited_in_bytes_not_characters() -> None:
    append(draft(text="é" * (128 * 1024)))

    with pytest.raises(TooLargeError, match="262146 bytes; the limit is 262144 bytes"):
        append(draft(text="é" * (128 * 1024 + 1)))


def test_a_batch_is_bounded_and_has_no_id_twice() -> None:
    with pytest.raises(InvalidError, match="0 items; it takes 1 to 500"):
        append()
    with pytest.raises(InvalidError, match="501 items"):
        append(*[draft(message_id=str(n)) for n in range(501)])
    with pytest.raises(InvalidError, match="'m1' stands twice"):
        append(draft(), draft())


def test_visibility_is_taken_in_any_case() -> None:
    for word in ("Shared", "shared", "SHARED"):
        (event,) = commands.change_visibility(session_id="s1", visibility=word, at_ms=1)
        assert event.visibility == "shared"  # type: ignore[union-attr]
    with pytest.raises(InvalidError, match="visibility is 'open'; it takes 'Private' or 'Shared'"):
        commands.change_visibility(session_id="s1", visibility="open", at_ms=1)


def test_metadata_is_bounded_in_bytes() -> None:
    with pytest.raises(TooLargeError, match="metadata has 16385 bytes"):
        append(draft(metadata={"k": "v" * 16384}))


@given(st.text(max_size=210))
def test_an_accepted_id_survives_the_log(name: str) -> None:
    try:
        events = commands.pin_fact(session_id=name, fact_id="f", text="t", tokens=1, at_ms=1)
    except RequestError:
        return

    assert decode(encode(events)) == events
    assert 1 <= len(name) <= 200


@given(st.text(alphabet=string.printable + "\0é漢😀", max_size=50))
def test_a_text_is_either_refused_or_kept_to_the_letter(text: str) -> None:
    try:
        (event,) = commands.pin_fact(session_id="s", fact_id="f", text=text, tokens=1, at_ms=1)
    except InvalidError:
        assert not text.strip()
        return

    assert event.text == text  # type: ignore[union-attr]
