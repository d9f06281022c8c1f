"""What a dialogue says between the lines: who speaks, who asks, and when things happened."""

import re
from collections.abc import Collection

from engram.events import Role
from engram.recall import calendar_words
from engram.recall.terms import MONTHS, WEEKDAYS, bare, words

ASK_CHARS = 200
"""A question mark this near to a text's end means that the text asks for an answer."""

QUERY_CHARS_MAX = 4096
"""How much of a query is searched for cues: a question fits, and a pasted document costs nothing."""

NAME_CHARS_MAX = 60
"""A longer text before a colon is a sentence, not a speaker's name."""

_QUESTION_MARKS = "?\uff1f\u061f\u037e"
"""Latin, East Asian, Arabic, Greek."""
_SPEAKER = re.compile(r"[^\W\d_][\w.'-]*(?: [^\W\d_][\w.'-]*){0,2}(?=: )")
_ASKS_WHEN = re.compile(
    r"\b(?:when|how long|how many (?:days|weeks|months|years)|(?:what|which) (?:date|day|month|year|time)"
    rf"|{calendar_words.ASKS_WHEN})\b"
)
_SAY = "recommend suggest mention tell say give list provide advise propose explain share describe create write make"
_SAID = (
    "recommended suggested mentioned told said gave given listed provided advised proposed explained shared described "
    "created wrote written made"
)
_ASKS_ASSISTANT = re.compile(
    rf"\bdid you (?:\w+ )?(?:{'|'.join(_SAY.split())})\b"
    rf"|\byou(?:'ve| have| had)?(?: \w+)? (?:{'|'.join(_SAID.split())})\b"
    r"|\bremind me (?:of )?what you\b|\bour (?:previous|last|earlier|past) (?:conversation|chat|discussion)\b"
    rf"|\b(?:{calendar_words.ASKS_ASSISTANT})\b"
)
_SPEAKING_ROLES = ("user", "assistant")
_NEAR_WORDS = "yesterday today tonight tomorrow ago days week weeks weekend month months year years"
_TIME_WORDS = frozenset(
    {*MONTHS, *WEEKDAYS, *map(str, range(1900, 2100)), *_NEAR_WORDS.split(), *calendar_words.TIME_WORDS}
) - {"may"}
"""A text with one of these says when something was. "may" is left out: it is mostly the verb."""


def asks(text: str) -> bool:
    """Whether a message asks something, so that the next one may hold the answer."""
    end = text[-ASK_CHARS:]
    return any(mark in end for mark in _QUESTION_MARKS)


def tells_time(found: Collection[str]) -> bool:
    """Whether a message with these words (of `terms.words`) says when something was."""
    return not _TIME_WORDS.isdisjoint(found)


def asks_when(query: str) -> bool:
    """Whether a query asks for a time or a duration."""
    return _ASKS_WHEN.search(query[:QUERY_CHARS_MAX].lower()) is not None


def asks_assistant(query: str) -> bool:
    """Whether a query asks what the one it is put to has said before: "what did you suggest?"."""
    return _ASKS_ASSISTANT.search(query[:QUERY_CHARS_MAX].lower()) is not None


def speaker(name: str | None, text: str, role: Role) -> str:
    """Return who speaks, lower-case: the given name, else the one before the text as in "Melanie: Hi", else the role.

    "" for systems and tools: those words are said about other things.
    """
    if name is None:
        match = _SPEAKER.match(text[:NAME_CHARS_MAX])
        name = match.group() if match is not None else role if role in _SPEAKING_ROLES else ""
    return " ".join(words(name[:NAME_CHARS_MAX]))


def named(query: str, speakers: Collection[str]) -> set[str]:
    """Return the speakers that a query names, by their whole name or else by its first word.

    A whole name wins: "John Smith" is not also "John Doe".
    """
    spoken = f" {' '.join(bare(word) for word in words(query[:QUERY_CHARS_MAX]))} "
    whole = {name for name in speakers if name and f" {name} " in spoken}
    return whole or {name for name in speakers if name and f" {name.partition(' ')[0]} " in spoken}
