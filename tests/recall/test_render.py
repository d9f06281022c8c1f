"""Forms of a context."""

from engram.recall.render import (
    FIRST_TURN,
    Turn,
    anthropic_messages,
    background,
    memory_prefix,
    openai_messages,
    timestamp,
)
from tests.recall.rows import fact, message


def test_openai_gets_the_background_as_a_system_message_before_the_conversation() -> None:
    turns = openai_messages("Core memories:\n- x", [message(1, "hello", name="Ann"), message(2, "hi", "assistant")])

    assert turns == [
        Turn(role="system", content="Core memories:\n- x"),
        Turn(role="user", content="hello", name="Ann"),
        Turn(role="assistant", content="hi"),
    ]


def test_openai_gets_no_name_that_it_refuses() -> None:
    turns = openai_messages("", [message(1, "hello", name="Ann Lee"), message(2, "hello", name="<|Ann|>")])

    assert [turn.name for turn in turns] == [None, None]


def test_openai_gets_tool_output_as_a_turn_of_the_user() -> None:
    assert openai_messages("", [message(1, "21 degrees", "tool")]) == [Turn(role="user", content="tool: 21 degrees")]


def test_anthropic_gets_user_and_assistant_in_turn() -> None:
    turns = anthropic_messages(
        [
            message(1, "one"),
            message(2, "two"),
            message(3, "21 degrees", "tool"),
            message(4, "three", "assistant"),
            message(5, "be brief", "system"),
            message(6, "four", "assistant"),
            message(7, "five", "assistant"),
        ]
    )

    assert turns == [
        Turn(role="user", content="one\n\ntwo\n\ntool: 21 degrees"),
        Turn(role="assistant", content="three"),
        Turn(role="user", content="system: be brief"),
        Turn(role="assistant", content="four\n\nfive"),
    ]


def test_anthropic_gets_a_user_turn_first_and_no_white_space_last() -> None:
    assert anthropic_messages([message(1, "welcome \n", "assistant")]) == [
        Turn(role="user", content=FIRST_TURN),
        Turn(role="assistant", content="welcome"),
    ]
    assert anthropic_messages([]) == []


def test_the_background_is_what_stands_before_the_conversation() -> None:
    assert background([fact(1, "x")], [message(1, "y")]) == "Core memories:\n- x\n\nMemories:\n- [2026-05-01] user: y"
    assert background([], []) == ""


def test_any_year_that_a_client_can_send_has_a_date() -> None:
    assert memory_prefix(message(1, "x", at_ms=-62_135_596_800_000)) == "- [0001-01-01] user: "
    assert memory_prefix(message(1, "x", at_ms=253_402_300_799_999)) == "- [9999-12-31] user: "
    assert timestamp(1_777_636_800_001) == "2026-05-01T12:00:00.001Z"
