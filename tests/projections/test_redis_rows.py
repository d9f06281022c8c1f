"""Rows come back from Redis as they went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.projections import redis_rows
from engram.projections.redis_rows import State, UnreadableError
from engram.projections.rows import FactRow, MessageRow, SessionRow

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(0, 2**62)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
labels = st.dictionaries(texts, scalars, max_size=3)
messages = st.builds(
    MessageRow,
    session_key=numbers,
    ordinal=numbers,
    message_id=texts,
    role=st.sampled_from(["user", "assistant", "system", "tool"]),
    name=st.none() | texts,
    text=texts,
    tokens=numbers,
    occurred_at_ms=st.none() | st.integers(-(2**62), 2**62),
    at_ms=numbers,
    log_index=numbers,
    metadata=labels,
    embedding=st.sampled_from(["done", "pending", "abandoned"]),
)
sessions = st.builds(
    SessionRow,
    tenant=texts,
    session_id=texts,
    agent_id=st.none() | texts,
    user_id=st.none() | texts,
    metadata=labels,
    visibility=st.sampled_from(["private", "shared"]),
    **{field: numbers for field in SessionRow._fields if SessionRow.__annotations__[field] is int},
)
facts = st.builds(FactRow, texts, texts, numbers, numbers, numbers)


@given(st.lists(messages, max_size=3))
def test_messages_come_back(rows: list[MessageRow]) -> None:
    assert repr(redis_rows.decode_messages([redis_rows.encode_message(row) for row in rows])) == repr(rows)


@given(st.lists(facts, max_size=5, unique_by=lambda fact: fact.fact_id))
def test_facts_come_back_in_their_order(rows: list[FactRow]) -> None:
    stored = {name.encode(): value for name, value in reversed(redis_rows.encode_facts(rows).items())}

    assert redis_rows.decode_facts(stored) == rows


@given(sessions, st.integers(0, 9))
def test_sessions_come_back(row: SessionRow, count: int) -> None:
    header = redis_rows.decode_header(redis_rows.encode_header(row, "log", window=5, messages=count, facts=count))

    assert header is not None
    assert repr(redis_rows.session_of(header)) == repr(row)
    assert (header.store, header.window, header.messages, header.facts) == ("log", 5, count, count)


def test_the_state_comes_back() -> None:
    state = State(store="log", epoch="e", number=3, applied=7, complete=True, unscrubbed=True)

    assert redis_rows.decode_state(redis_rows.encode_state(state)) == state


@pytest.mark.parametrize("data", [None, b"", b"{}", b"[1]", b'{"format":1}', b"\xff"])
def test_what_is_no_state_or_header_is_none(data: bytes | None) -> None:
    assert redis_rows.decode_state(data) is None
    assert redis_rows.decode_header(data) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff\xfe"])
def test_what_is_no_message_or_fact_cannot_be_read(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        redis_rows.decode_messages([data])
    with pytest.raises(UnreadableError):
        redis_rows.decode_facts({b"f": data})
