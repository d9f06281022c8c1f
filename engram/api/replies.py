"""What a handler hands back. Which HTTP status stands for it is the middleware's business."""

from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple

import msgspec

JSON = "application/json"
NOTHING: Mapping[str, str] = {}

_encoder = msgspec.json.Encoder()


class Reply(NamedTuple):
    """An answer that went well; without a body there is nothing to say but the headers."""

    body: bytes | None = None
    content_type: str = JSON
    log_index: int | None = None
    """The entry that a write went into; None: the index that reads are at."""
    headers: Mapping[str, str] = NOTHING
    is_begun: bool = False
    """What was asked for goes on after this answer."""


class Stream(NamedTuple):
    """An answer that is sent while it is made."""

    parts: AsyncGenerator[bytes]
    """Closed when the client has gone."""
    content_type: str
    headers: Mapping[str, str] = NOTHING


Answer = Reply | Stream


def say(
    answer: object,
    *,
    log_index: int | None = None,
    headers: Mapping[str, str] = NOTHING,
    is_begun: bool = False,
) -> Reply:
    """Return an answer in JSON."""
    return Reply(_encoder.encode(answer), JSON, log_index, headers, is_begun)
