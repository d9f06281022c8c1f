"""Query parameters: declared beside the routes, parsed without guessing.

Each kind says what a text stands for and describes itself as a JSON schema, so that the parser and the published
document cannot differ.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from engram.api.errors import MalformedError
from engram.api.paths import decode_percent
from engram.api.schemas import ID_PATTERN, NOT_BLANK
from engram.api.times import RFC3339, parse_time
from engram.commands import ID_CHARACTERS_MAX, check_id, check_text
from engram.errors import InvalidError

SHOWN_CHARACTERS_MAX = 64
"""How much of a wrong value an error repeats."""

LINEARIZABLE = "linearizable"
"""The value of `consistency` that asks for more than what this node has."""

Value = str | int | float | bool | None
Schema = Mapping[str, object]

_integer = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_number = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)


class Kind(Protocol):
    """What the text of a parameter stands for."""

    def parse(self, name: str, text: str) -> Value:
        """Return the value; InvalidError when the text stands for none."""

    def schema(self) -> Schema:
        """Return the JSON schema of the value."""


class Integer(NamedTuple):
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def parse(self, name: str, text: str) -> Value:
        if _integer.fullmatch(text) is None or not self.least <= int(text) <= self.most:
            raise InvalidError(f"{name} is {shown(text)}; it takes a whole number from {self.least} to {self.most}")
        return int(text)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Number(NamedTuple):
    """A finite number from `least` to `most`."""

    least: float
    most: float

    def parse(self, name: str, text: str) -> Value:
        value = float(text) if _number.fullmatch(text) else math.nan
        if not self.least <= value <= self.most:
            raise InvalidError(f"{name} is {shown(text)}; it takes a number from {self.least:g} to {self.most:g}")
        return value

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.least, "maximum": self.most}


class Choice(NamedTuple):
    """One of a few words."""

    words: Sequence[str]

    def parse(self, name: str, text: str) -> Value:
        if text not in self.words:
            raise InvalidError(f"{name} is {shown(text)}; it takes {' or '.join(map(repr, self.words))}")
        return text

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.words)}


class Choices(NamedTuple):
    """Any of a few words, with commas between them."""

    words: Sequence[str]

    def parse(self, name: str, text: str) -> Value:
        if not set(text.split(",")) <= set(self.words):
            raise InvalidError(
                f"{name} is {shown(text)}; it takes any of {', '.join(map(repr, self.words))}, with commas between them"
            )
        return text

    def schema(self) -> Schema:
        word = "|".join(self.words)
        return {"type": "string", "pattern": f"^({word})(,({word}))*$"}


class Flag:
    """Yes or no."""

    def parse(self, name: str, text: str) -> Value:
        if text not in {"true", "false", "1", "0"}:
            raise InvalidError(f"{name} is {shown(text)}; it takes 'true' or 'false'")
        return text in {"true", "1"}

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Identifier:
    """An id: the limits of `commands.check_id`."""

    def parse(self, name: str, text: str) -> Value:
        return check_id(name, text)

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS_MAX, "pattern": ID_PATTERN}


class Words:
    """Some text that is not blank."""

    def parse(self, name: str, text: str) -> Value:
        return check_text(name, text)

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "pattern": NOT_BLANK}


class Time:
    """An RFC 3339 time; its value is milliseconds since the Unix epoch."""

    def parse(self, name: str, text: str) -> Value:
        return parse_time(name, text)

    def schema(self) -> Schema:
        return {"type": "string", "format": "date-time", "pattern": RFC3339}


class Cursor:
    """A cursor, checked by the list that it belongs to."""

    def parse(self, name: str, text: str) -> Value:  # noqa: ARG002 - the shape of a kind
        return text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}


class Parameter(NamedTuple):
    """A query parameter, and the header that says the same where there is one. The query wins."""

    name: str
    kind: Kind
    about: str
    default: Value = None
    header: str | None = None


def parse_query(query: str, headers: Mapping[str, str], declared: Mapping[str, Parameter]) -> dict[str, Value]:
    """Return a value for every declared parameter.

    Raises:
        MalformedError: The encoding is wrong, or a parameter is unknown or stands twice.
        InvalidError: A value is not what its parameter takes.
    """
    sent = _split_query(query, declared) if query else {}
    values: dict[str, Value] = {}
    for name, parameter in declared.items():
        value = parameter.default
        said = None if parameter.header is None else headers.get(parameter.header)
        if said is not None and parameter.header is not None:
            value = parameter.kind.parse(parameter.header, said)
        text = sent.get(name)
        values[name] = value if text is None else parameter.kind.parse(name, text)
    return values


def _split_query(query: str, declared: Mapping[str, Parameter]) -> dict[str, str]:
    sent: dict[str, str] = {}
    for pair in query.split("&"):
        if not pair:
            continue
        name, _, text = (decode_percent("the query", part.replace("+", " ")) for part in pair.partition("="))
        if name not in declared:
            known = f"it takes {', '.join(declared)}" if declared else "it takes none"
            raise MalformedError(f"query parameter {shown(name)} is unknown; {known}", code="unknown_parameter")
        if name in sent:
            raise MalformedError(f"query parameter {name!r} stands twice", code="duplicate_parameter")
        sent[name] = text
    return sent


def shown(text: str) -> str:
    """Return `text` as an error repeats it."""
    return repr(text) if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]!r}..."
