"""What a session's only writer knows of it, and what that says about any answer of the node. No I/O.

Every judgement returns what is wrong in words, and nothing when the answer is what it has to be. None of them leaves
room for a store that is behind: who has had a write acknowledged must see it in the next read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SHOWN_MAX = 200
"""Characters of what is shown as evidence."""

PAGE_MESSAGES = 50
"""The default length of a list."""


class Said(NamedTuple):
    """A message."""

    role: str
    text: str


@dataclass
class Expected:
    """A session as it must be read."""

    session_id: str
    is_there: bool = False
    messages: dict[str, Said] = field(default_factory=dict)
    """By id, in order."""
    facts: dict[str, str] = field(default_factory=dict)
    """By id, in order of pinning."""
    log_index: int = 0
    """Of the last acknowledged write: no read may be older."""

    def forget(self) -> None:
        """Note that the session is deleted."""
        self.is_there = False
        self.messages.clear()
        self.facts.clear()


def wrong_context(expected: Expected, short_term_count: int, context: Mapping[str, Any]) -> str | None:
    """Judge a context with room for everything: all facts, and the conversation up to the newest message."""
    sections = {section["name"]: section["items"] for section in context["sections"]}
    facts = [item["id"] for item in sections["core"]]
    if facts != list(expected.facts):
        return f"core memory in the context is {shown(facts)}, and has to be {shown(list(expected.facts))}"
    missing = [text for text in expected.facts.values() if f"- {text}" not in context["context"]]
    if missing:
        return f"the context does not have the facts {shown(missing)}"
    if context["index"] < expected.log_index:
        return f"the context is of entry {context['index']}, and entry {expected.log_index} was acknowledged"
    return _wrong_conversation(expected, short_term_count, [item["id"] for item in sections["conversation"]])


def _wrong_conversation(expected: Expected, short_term_count: int, ids: Sequence[str]) -> str | None:
    """Judge the conversation: the last messages, but for answers at its head whose question lies before it."""
    wanted = list(expected.messages)[-short_term_count:]
    starts_with_question = not wanted or expected.messages[wanted[0]].role == "user"
    is_whole = len(ids) == len(wanted) or not starts_with_question
    if list(ids) == list(expected.messages)[len(expected.messages) - len(ids) :] and is_whole and (ids or not wanted):
        return None
    return f"the conversation is {shown(ids)}, and has to be {shown(wanted)}"


def wrong_facts(expected: Expected, listed: Mapping[str, Any]) -> str | None:
    """Judge the list of facts."""
    found = {fact["id"]: fact["fact"] for fact in listed["facts"]}
    if list(found.items()) == list(expected.facts.items()) and len(found) == len(listed["facts"]):
        return None
    return f"the facts are {shown(found)}, and have to be {shown(expected.facts)}"


def wrong_page(expected: Expected, listed: Mapping[str, Any]) -> str | None:
    """Judge the newest page of messages, newest first."""
    found = [(message["id"], Said(message["role"], message["content"])) for message in listed["messages"]]
    wanted = list(reversed(expected.messages.items()))[:PAGE_MESSAGES]
    if found == wanted:
        return None
    return f"the newest messages are {shown([key for key, _ in found])}, and have to be {shown([key for key, _ in wanted])}"


def wrong_messages(expected: Expected, listed: Sequence[Mapping[str, Any]]) -> str | None:
    """Judge all messages, oldest first: each once, in order, as it was sent."""
    found = [(message["id"], Said(message["role"], message["content"])) for message in listed]
    wanted = list(expected.messages.items())
    if found == wanted:
        return None
    ids = [key for key, _ in found]
    lost = [key for key in expected.messages if key not in set(ids)]
    twice = sorted({key for key in ids if ids.count(key) > 1})
    stray = [key for key in ids if key not in expected.messages]
    return f"of {len(wanted)} messages: lost {shown(lost)}, twice {shown(twice)}, not to be there {shown(stray)}, or altered"


def wrong_hits(expected: Expected, wanted_id: str, found: Mapping[str, Any]) -> str | None:
    """Judge what a search for a word found that message `wanted_id` alone has."""
    ids = [hit["id"] for hit in found["results"]]
    stray = [key for key in ids if key not in expected.messages]
    if ids.count(wanted_id) == 1 and not stray:
        return None
    return f"{wanted_id} is {ids.count(wanted_id)} times among the hits, with {shown(stray)} that must not be there"


def shown(what: object) -> str:
    """Return the end of something long, where the newest is."""
    text = str(what)
    return text if len(text) <= SHOWN_MAX else f"...{text[-SHOWN_MAX:]}"
