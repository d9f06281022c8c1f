"""`as_of`: reads that are answered as they were at an earlier log index, or at a time."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from engram.api.calls import Call
from engram.api.parameters import Parameter, Schema, Value, Words, shown
from engram.api.replies import Answer
from engram.api.schemas import INDEX_MAX
from engram.api.times import RFC3339, parse_time
from engram.errors import InvalidError, NotFoundError
from engram.recall.lookback import Lookback

NAME: Final = "as_of"
HEADER: Final = "Engram-As-Of"

_index = re.compile(r"[0-9]{1,19}", re.ASCII)


class Moment:
    """A log index, or an RFC 3339 time; its value is the text, whose form tells which of them it is."""

    def parse(self, name: str, text: str) -> Value:
        if _index.fullmatch(text):
            if int(text) > INDEX_MAX:
                raise InvalidError(f"{name} is {shown(text)}; a log index is at most {INDEX_MAX}")
            return text
        try:
            parse_time(name, text)
        except InvalidError:
            raise InvalidError(
                f"{name} is {shown(text)}; it takes a log index, or an RFC 3339 time such as '2026-05-01T09:30:00Z'"
            ) from None
        return text

    def schema(self) -> Schema:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": INDEX_MAX},
                {"type": "string", "format": "date-time", "pattern": RFC3339},
            ]
        }


AS_OF: Final = Parameter(
    NAME, Moment(), "Answer as of this log index, or of this time: what was known then, and is not forgotten since.",
    header=HEADER,
)  # fmt: skip

SPAN: Final = (
    Parameter("from", Moment(), "What changed behind this log index or time; 0: since the beginning.", default="0"),
    Parameter("to", Moment(), "What changed up to this log index or time; else up to now."),
    Parameter("query", Words(), "Also says how the context for this query changed."),
)


async def answer(call: Call, handler: Callable[[Call], Awaitable[Answer]]) -> Answer:
    """Let `handler` answer, as of the moment that the call names if it names one.

    Raises:
        InvalidError: It is not applied here yet, or this node cannot look back.
        NotFoundError: The handler's, with the log index that was looked back to.
    """
    moment = call.values.get(NAME)
    if not isinstance(moment, str):
        return await handler(call)
    index = await index_of(call, NAME, moment)
    assert call.services.lookback is not None, "an index was found by it"
    call.past = await call.services.lookback.at(index)
    call.read_index = index
    try:
        return await handler(call)
    except NotFoundError as error:
        raise NotFoundError(error.kind, error.identifier, as_of=index) from None


async def index_of(call: Call, name: str, moment: str) -> int:
    """Return the log index that a moment stands for.

    Raises:
        InvalidError: It is not applied here yet, or this node cannot look back.
    """
    lookback = call.services.lookback
    if lookback is None:
        raise InvalidError(f"{name} is {shown(moment)}; this node answers as of one log index only")
    return await index_among(lookback, call.services.reads.applied_index, name, moment)


async def index_among(lookback: Lookback, applied_index: int, name: str, moment: str) -> int:
    """Return the log index, up to the applied one, that a moment stands for.

    Raises:
        InvalidError: It is none, or not applied yet.
    """
    Moment().parse(name, moment)
    if not _index.fullmatch(moment):
        return await lookback.index_at(parse_time(name, moment))
    if int(moment) > applied_index:
        raise InvalidError(
            f"{name} is {moment}; this node has applied the log up to entry {applied_index}: "
            f"min_index={moment} waits for more"
        )
    return int(moment)
