from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.api.explain import misfit
from engram.api.schemas import Membership, NewMessage, NewMessages, NewSession, SearchQuery

MESSAGE = {"role": "user", "content": "hi"}
REASONS: list[tuple[type, object, str]] = [
    (NewMessage, [1], "the body is an array; it takes an object"),
    (NewMessage, None, "the body is null; it takes an object"),
    (NewMessage, {"role": "user"}, "content is missing"),
    (NewMessage, MESSAGE | {"content": 7}, "content is 7; it takes a string"),
    (NewMessage, MESSAGE | {"id": True}, "id is true; it takes a string"),
    (NewMessage, MESSAGE | {"role": "boss"}, "role is 'boss'; it takes 'assistant' or 'system' or 'tool' or 'user'"),
    (NewMessage, MESSAGE | {"metadata": {"a": [1]}}, "metadata['a'] is an array; it takes a string, a number, true, "),
    (NewMessage, MESSAGE | {"metadata": 3}, "metadata is 3; it takes an object"),
    (NewMessages, {"messages": []}, "messages has 0 items; it takes 1 to 500"),
    (NewMessages, {"messages": [MESSAGE, {"role": "user"}]}, "messages[1].content is missing"),
    (NewMessages, {"messages": None}, "messages is null; it takes an array"),
    (SearchQuery, {"query": "a", "top_k": 0}, "top_k is 0; it takes a whole number from 1 to 200"),
    (SearchQuery, {"query": "a", "top_k": 2**64}, "top_k is 18446744073709551616; it takes a whole number"),
    (SearchQuery, {"query": "a", "top_k": 10**70}, "top_k is a number of more than 64 digits; it takes"),
    (SearchQuery, {"query": "a", "top_k": 1.5}, "top_k is 1.5; it takes a whole number"),
    (SearchQuery, {"query": "a", "top_k": 1, "min_score": 2}, "min_score is 2; it takes a number from 0 to 1"),
    (SearchQuery, {"query": "a", "top_k": 1, "explain": "yes"}, "explain is 'yes'; it takes true or false"),
    (SearchQuery, {"query": "a", "top_k": 1, "filter": {"roles": []}}, "filter.roles has 0 items; it takes at least 1"),
    (Membership, {"members": ["1"]}, "members[0] is '1'; it takes a whole number from 1"),
    (NewSession, {"session_id": "x" * 99 + "y"} | {"agent_id": 1.0}, "agent_id is 1.0; it takes a string"),
]


@pytest.mark.parametrize(("schema", "value", "reason"), REASONS)
def test_the_reason_names_the_field_its_value_and_what_it_takes(schema: type, value: object, reason: str) -> None:
    said = misfit(value, schema)

    assert said is not None
    assert said.startswith(reason)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["role", "content", "id", "name", "metadata", "messages", "query", "top_k", "filter", "scope"])


@given(
    st.sampled_from([NewMessage, NewMessages, NewSession, SearchQuery]),
    st.dictionaries(fields, json_values | st.just("user") | st.just(3) | st.just("session")) | json_values,
)
def test_there_is_a_reason_exactly_when_msgspec_refuses(schema: Any, value: object) -> None:
    data = msgspec.json.encode(value)
    try:
        msgspec.json.decode(data, type=schema)
        refused = False
    except msgspec.ValidationError:
        refused = True

    assert (misfit(msgspec.json.decode(data), schema) is not None) == refused
