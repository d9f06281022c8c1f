"""The drill's own judgement: it must find what is wrong, and nothing else."""

from typing import Any

import pytest

from tests.projection_drill.expectations import (
    Expected,
    Said,
    wrong_context,
    wrong_facts,
    wrong_hits,
    wrong_messages,
    wrong_page,
)
from tests.projection_drill.readings import differing
from tests.projection_drill.uptime import Uptime

WINDOW = 3


@pytest.fixture
def expected() -> Expected:
    said = {f"m{number}": Said("assistant" if number % 2 else "user", f"text {number}") for number in range(6)}
    return Expected("s1", is_there=True, messages=said, facts={"f1": "Ann lives in Oslo."}, log_index=9)


def context(conversation: list[str], *, facts: list[str] | None = None, index: int = 9) -> dict[str, Any]:
    core = ["f1"] if facts is None else facts
    sections = {"core": core, "memories": [], "conversation": conversation}
    return {
        "context": "Core memories:\n- Ann lives in Oslo.\n\n..." if core else "",
        "sections": [{"name": name, "items": [{"id": one} for one in ids]} for name, ids in sections.items()],
        "index": index,
    }


def listed(messages: dict[str, Said]) -> list[dict[str, str]]:
    return [{"id": key, "role": said.role, "content": said.text} for key, said in messages.items()]


def test_a_context_with_all_facts_and_the_end_of_the_conversation_is_right(expected: Expected) -> None:
    assert wrong_context(expected, WINDOW, context(["m4", "m5"])) is None  # m3 answers m2, which lies before
    assert wrong_context(expected, WINDOW - 1, context(["m4", "m5"])) is None
    assert wrong_context(Expected("s2", is_there=True), WINDOW, context([], facts=[])) is None


@pytest.mark.parametrize(
    "wrong",
    [
        context(["m3", "m4"]),
        context(["m4"]),
        context([]),
        context(["m5", "m4"]),
        context(["m4", "m5", "m9"]),
        context(["m4", "m5"], facts=[]),
        context(["m4", "m5"], facts=["f1", "f2"]),
        context(["m4", "m5"], index=8),
    ],
    ids=["newest", "oldest", "all", "order", "stray", "no-fact", "stray-fact", "older"],
)
def test_a_context_of_another_moment_is_wrong(expected: Expected, wrong: dict[str, Any]) -> None:
    assert wrong_context(expected, WINDOW, wrong) is not None


def test_a_conversation_may_not_lack_its_first_question(expected: Expected) -> None:
    assert wrong_context(expected, WINDOW - 1, context(["m5"])) is not None


def test_facts_must_be_all_there_once_and_in_order(expected: Expected) -> None:
    fact = {"id": "f1", "fact": "Ann lives in Oslo."}

    assert wrong_facts(expected, {"facts": [fact]}) is None
    assert wrong_facts(expected, {"facts": []}) is not None
    assert wrong_facts(expected, {"facts": [fact, fact]}) is not None
    assert wrong_facts(expected, {"facts": [{**fact, "fact": "Ann lives in Bergen."}]}) is not None


def test_messages_must_be_all_there_once_and_in_order(expected: Expected) -> None:
    right = listed(expected.messages)

    assert wrong_messages(expected, right) is None
    assert wrong_page(expected, {"messages": right[::-1]}) is None
    for wrong in (right[1:], [*right, right[-1]], right[::-1], [*right[:-1], {**right[-1], "content": "text"}], []):
        assert wrong_messages(expected, wrong) is not None
        assert wrong_page(expected, {"messages": wrong[::-1]}) is not None


def test_a_message_must_be_found_once_and_with_it_none_that_is_deleted(expected: Expected) -> None:
    assert wrong_hits(expected, "m1", {"results": [{"id": "m1"}, {"id": "m2"}]}) is None
    for ids in ([], ["m2"], ["m1", "m1"], ["m1", "m7"]):
        assert wrong_hits(expected, "m1", {"results": [{"id": key} for key in ids]}) is not None


def test_the_first_difference_of_two_readings_is_named() -> None:
    wanted = {"GET /a": {"items": [{"id": 1}, {"id": 2}]}, "GET /b": 404}

    assert differing(wanted, wanted) == []
    assert differing(wanted, {"GET /a": {"items": [{"id": 1}, {"id": 3}]}, "GET /b": 404}) == [
        "GET /a: .items[1].id is 3, of a fresh fold 2"
    ]
    assert differing(wanted, {"GET /a": wanted["GET /a"]}) == ["GET /b:  is None, of a fresh fold 404"]


def test_only_the_time_in_which_the_node_was_down_is_excused() -> None:
    uptime = Uptime()

    assert not uptime.excuses(0, 1e9)
    with uptime.down():
        assert uptime.excuses(0, 1e9)
    assert uptime.excuses(0, 1e9)
    assert not uptime.excuses(0, 1)
    assert not uptime.excuses(1e9, 2e9)
