"""The forms of a context: lines and sections of text, and messages ready to send to a model.

Pure. Text is never escaped or cut: what a client wrote comes back as it was.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from engram.projections.rows import FactRow, MessageRow

CORE_HEADING = "Core memories:"
MEMORIES_HEADING = "Memories:"
CONVERSATION_HEADING = "Conversation:"

LINE_JOINER = "\n"
SECTION_JOINER = "\n\n"

FIRST_TURN = "(earlier messages are not shown)"
"""What Anthropic's form puts first when the conversation shown starts with the assistant: user turns come first there."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_openai_name = re.compile(r"[^\s<|\\/>]{1,64}")
"""What OpenAI takes as the name of a participant."""


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message in the form that a model's API takes."""

    role: str
    content: str
    name: str | None = None


def fact_prefix() -> str:
    """Return what stands before a fact."""
    return "- "


def memory_prefix(message: MessageRow) -> str:
    """Return what stands before a memory: its day, and who said it."""
    day = (_EPOCH + message.when_ms * _MILLISECOND).date().isoformat()
    return f"- [{day}] {message.name or message.role}: "


def turn_prefix(message: MessageRow) -> str:
    """Return what stands before a message of the conversation."""
    return f"{message.role}: "


def timestamp(at_ms: int) -> str:
    """Return `at_ms` as RFC 3339 in UTC, to the millisecond."""
    return (_EPOCH + at_ms * _MILLISECOND).isoformat(timespec="milliseconds")[:-6] + "Z"


def core_lines(facts: Iterable[FactRow]) -> list[str]:
    """Return the heading and the core facts, in the order given; nothing for none."""
    return _headed(CORE_HEADING, [fact_prefix() + fact.text for fact in facts])


def memories_lines(messages: Iterable[MessageRow]) -> list[str]:
    """Return the heading and the memories, in the order given; nothing for none."""
    return _headed(MEMORIES_HEADING, [memory_prefix(message) + message.text for message in messages])


def conversation_lines(messages: Iterable[MessageRow]) -> list[str]:
    """Return the heading and the conversation, in the order given; nothing for none."""
    return _headed(CONVERSATION_HEADING, [turn_prefix(message) + message.text for message in messages])


def core_section(facts: Iterable[FactRow]) -> str:
    """Return the section of the core facts, in the order given; empty for none."""
    return LINE_JOINER.join(core_lines(facts))


def memories_section(messages: Iterable[MessageRow]) -> str:
    """Return the section of the memories, in the order given; empty for none."""
    return LINE_JOINER.join(memories_lines(messages))


def background(facts: Iterable[FactRow], memories: Iterable[MessageRow]) -> str:
    """Return what a model is told beside the conversation; empty for nothing."""
    return SECTION_JOINER.join(filter(None, (core_section(facts), memories_section(memories))))


def openai_messages(system: str, conversation: Sequence[MessageRow]) -> list[Turn]:
    """Return the messages for OpenAI's chat API: the background as a system message, then the conversation.

    Tool output becomes a user's turn, since its API takes it only right after the call that it answers.
    """
    turns = [Turn(role="system", content=system)] if system else []
    for message in conversation:
        if message.role == "tool":
            turns.append(Turn(role="user", content=turn_prefix(message) + message.text))
        else:
            named = message.name is not None and _openai_name.fullmatch(message.name)
            turns.append(Turn(role=message.role, content=message.text, name=message.name if named else None))
    return turns


def anthropic_messages(conversation: Sequence[MessageRow]) -> list[Turn]:
    """Return the messages for Anthropic's API: user and assistant in turn, the user first.

    What a tool or the system said becomes part of the user's turn, with its role before it; neighbours of one role
    are joined by a blank line. A final assistant turn loses its trailing white space, which that API refuses.
    """
    turns = list(_alternating(conversation))
    if turns and turns[0].role == "assistant":
        turns.insert(0, Turn(role="user", content=FIRST_TURN))
    if turns and turns[-1].role == "assistant":
        turns[-1] = Turn(role="assistant", content=turns[-1].content.rstrip())
    return turns


def _alternating(conversation: Sequence[MessageRow]) -> Iterator[Turn]:
    role, contents = "", list[str]()
    for message in conversation:
        folded = message.role in {"tool", "system"}
        speaker = "user" if folded else message.role
        if contents and speaker != role:
            yield Turn(role=role, content=SECTION_JOINER.join(contents))
            contents = []
        role = speaker
        contents.append(turn_prefix(message) + message.text if folded else message.text)
    if contents:
        yield Turn(role=role, content=SECTION_JOINER.join(contents))


def _headed(heading: str, lines: list[str]) -> list[str]:
    return [heading, *lines] if lines else []
