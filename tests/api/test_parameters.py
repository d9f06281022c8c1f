import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.api.errors import MalformedError
from engram.api.parameters import Choice, Flag, Integer, Kind, Number, Parameter, Value, Words, parse_query
from engram.errors import InvalidError

DECLARED = {
    "limit": Parameter("limit", Integer(1, 200), "", default=50),
    "order": Parameter("order", Choice(("asc", "desc")), "", default="asc", header="Engram-Order"),
}

GOOD: list[tuple[Kind, str, Value]] = [
    (Integer(0, 9), "0", 0),
    (Integer(-5, 9), "-5", -5),
    (Number(-1, 1), "-1", -1.0),
    (Number(-1, 1), ".5", 0.5),
    (Number(-1, 1), "5e-1", 0.5),
    (Flag(), "true", True),
    (Flag(), "0", False),
    (Words(), " a ", " a "),
]
BAD: list[tuple[Kind, str]] = [
    (Integer(0, 9), "10"),
    (Integer(0, 9), "-1"),
    (Integer(0, 9), "1.0"),
    (Integer(0, 9), " 1"),
    (Integer(0, 9), "1_0"),
    (Integer(0, 9), "\u0661"),
    (Integer(0, 9), "9" * 5000),
    (Integer(0, 9), ""),
    (Number(-1, 1), "nan"),
    (Number(-1, 1), "inf"),
    (Number(-1, 1), "1.1"),
    (Number(-1, 1), "1e999"),
    (Number(-1, 1), "0x1"),
    (Number(-1, 1), "9" * 5000),
    (Flag(), "yes"),
    (Words(), "  "),
    (Choice(("a",)), "A"),
]


@pytest.mark.parametrize(("kind", "text", "value"), GOOD)
def test_a_value_is_understood(kind: Kind, text: str, value: Value) -> None:
    assert kind.parse("it", text) == value


@pytest.mark.parametrize(("kind", "text"), BAD)
def test_a_wrong_value_is_refused_in_few_words(kind: Kind, text: str) -> None:
    with pytest.raises(InvalidError, match=r"^it ") as caught:
        kind.parse("it", text)

    assert len(str(caught.value)) < 200


@given(st.floats(-1, 1))
def test_every_number_in_range_is_understood(value: float) -> None:
    parsed = Number(-1, 1).parse("it", repr(value))

    assert isinstance(parsed, float)
    assert math.isclose(parsed, value)


def test_what_is_not_sent_has_its_default() -> None:
    assert parse_query("", {}, DECLARED) == {"limit": 50, "order": "asc"}


def test_a_header_can_say_it_and_the_query_wins() -> None:
    headers = {"Engram-Order": "desc"}

    assert parse_query("", headers, DECLARED)["order"] == "desc"
    assert parse_query("order=asc", headers, DECLARED)["order"] == "asc"


@pytest.mark.parametrize("query", ["", "order=asc"])
def test_a_wrong_header_is_refused_by_its_own_name(query: str) -> None:
    with pytest.raises(InvalidError, match=r"^Engram-Order is 'up'; it takes 'asc' or 'desc'$"):
        parse_query(query, {"Engram-Order": "up"}, DECLARED)


def test_names_and_values_are_percent_decoded() -> None:
    assert parse_query("l%69mit=%32&order=desc&", {}, DECLARED) == {"limit": 2, "order": "desc"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limits=1", "unknown_parameter"),
        ("as_of=1", "unknown_parameter"),
        ("=1", "unknown_parameter"),
        ("limit=1&limit=1", "duplicate_parameter"),
        ("limit=%zz", "invalid_encoding"),
        ("limit=%ff", "invalid_encoding"),
    ],
)
def test_a_query_that_says_too_much_is_refused(query: str, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_query(query, {}, DECLARED)

    assert caught.value.code == code
