"""What a dialogue says between the lines: who speaks, who asks, and when things happened."""

import re
from collections.abc import Collection

from engram.events import Role
from engram.recall.terms import MONTHS, WEEKDAYS, bare, words

ASK_CHARS = 200
"""A question mark this near to a text's end means that the text asks for an answer."""

QUERY_CHARS_MAX = 4096
"""How much of a query is searched for cues: a question fits, and a pasted document costs nothing."""

NAME_CHARS_MAX = 60
"""A longer text before a colon is a sentence, not a speaker's name."""

_SPEAKER = re.compile(r"[^\W\d_][\w.'-]*(?: [^\W\d_][\w.'-]*){0,2}(?=: )")
_ASKS_WHEN = re.compile(
    r"\b(?:when|how long|how many (?:days|weeks|months|years)|(?:what|which) (?:date|day|month|year|time))\b"
)
_SPEAKING_ROLES = ("user", "assistant")
_NEAR_WORDS = "yesterday today tonight tomorrow ago days week weeks weekend month months year years"
_TIME_WORDS = frozenset({*MONTHS, *WEEKDAYS, *map(str, range(1900, 2100)), *_NEAR_WORDS.split()}) - {"may"}
"""A text with one of these says when something was. "may" is left out: it is mostly the verb."""


def asks(text: str) -> bool:
    """Whether a message asks something, so that the next one may hold the answer."""
    return "?" in text[-ASK_CHARS:]


def tells_time(found: Collection[str]) -> bool:
    """Whether a message with these words (of `terms.words`) says when something was."""
    return not _TIME_WORDS.isdisjoint(found)


def asks_when(query: str) -> bool:
    """Whether a query asks for a time or a duration."""
    return _ASKS_WHEN.search(query[:QUERY_CHARS_MAX].lower()) is not None


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
