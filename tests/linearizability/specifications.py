"""What engram promises of one message and of one session's core memory, as objects asked one thing at a time."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class Word(StrEnum):
    """A write's outcome, as the API tells it."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """The id is taken by other content."""
    DELETED = "deleted"
    """The id was deleted, and is not taken again."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Add:
    """Append the message with this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the message."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read the text of the message; None where it is not there."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The state of a message that was deleted."""


GONE = Gone()

MessageState = str | Gone | None
"""Its text; None before it was written."""


class MessageSpecification:
    """One message id of a session that exists: written once, deleted for ever.

    In a session that does not exist yet a deletion changes nothing, and the id can be used afterwards.
    """

    initial: MessageState = None

    def apply(self, state: MessageState, call: Add | Delete | Look) -> tuple[MessageState, Word | str | None]:
        match call:
            case Add(text):
                if state is None:
                    return text, Word.CREATED
                if isinstance(state, Gone):
                    return state, Word.DELETED
                return state, Word.DUPLICATE if state == text else Word.CONFLICT
            case Delete():
                return GONE, Word.DONE
            case Look():
                return state, None if isinstance(state, Gone) else state
            case _:
                assert_never(call)


@dataclass(frozen=True, slots=True)
class Pin:
    """Pin a fact. The answer is the id under which the text is pinned then."""

    fact_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Unpin:
    """Take a fact out."""

    fact_id: str


@dataclass(frozen=True, slots=True)
class LookAll:
    """Read all facts, in the order of pinning."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Where a text is pinned."""

    fact_id: str


Facts = tuple[tuple[str, str], ...]
"""Ids and texts, in the order of pinning."""


class FactsSpecification:
    """The core memory of one session: a text stands there once, and an id holds one text at a time."""

    initial: Facts = ()

    def apply(self, state: Facts, call: Pin | Unpin | LookAll) -> tuple[Facts, Pinned | Word | Facts]:
        match call:
            case Pin(fact_id, text):
                for known_id, known_text in state:
                    if known_text == text:
                        return state, Pinned(known_id)
                if any(known_id == fact_id for known_id, _ in state):
                    return state, Word.CONFLICT
                return (*state, (fact_id, text)), Pinned(fact_id)
            case Unpin(fact_id):
                return tuple(fact for fact in state if fact[0] != fact_id), Word.DONE
            case LookAll():
                return state, state
            case _:
                assert_never(call)
