"""The events: what can have happened, and how it is written into the log.

An entry's payload is `msgspec.msgpack` of a list of events of one session. A tag, once released, keeps its meaning
for ever; fields are only added, last, with a default. One encoding of each event ever released stands in
`tests/golden/events/` and must decode for ever.

Everything that is not deterministic (clocks, random ids, vectors) is decided before an event is made, and recorded
in it, so that every replay reaches the same state.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from engram.errors import CorruptionError

TENANT_DEFAULT = "default"

Role = Literal["user", "assistant", "system", "tool"]
Work = Literal["embedding", "extraction", "summary"]
Visibility = Literal["private", "shared"]
Scalar = str | int | float | bool | None


class SessionCreated(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A session was made by name; writing to an unknown session makes it too, without this event."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    agent_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, Scalar] = {}


class MessageAppended(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A message was added to a session, which is created when unknown."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    message_id: str
    role: Role
    text: str
    name: str | None = None
    occurred_at_ms: int | None = None
    """The client's own time for the message; `at_ms` is when it was accepted."""
    tokens: int
    """cl100k_base tokens of `text`."""
    metadata: Mapping[str, Scalar] = {}


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A vector for the characters [start, end) of a message's text."""

    start: int
    end: int
    vector: bytes
    """Little-endian float16, L2-normalized; its length is 2 * dimension."""


class MessageEmbedded(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A message got its vectors. Replaces vectors that it had before."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    message_id: str
    source_index: int
    """Log index of the message it was made from; 0: the same entry."""
    model: str
    dimension: int
    chunks: Sequence[Chunk]


class MessageDeleted(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A message was forgotten; its id is not accepted again in this session."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    message_id: str


class FactPinned(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A fact was pinned into core memory. The same text again is a duplicate."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    fact_id: str
    text: str
    tokens: int
    """cl100k_base tokens of `text`."""


class FactUnpinned(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A fact was taken out of core memory and forgotten."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    fact_id: str


class SessionDeleted(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A session was forgotten with everything in it; a client may use its id again for a new one."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT


class VisibilityChanged(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A session was opened to, or closed from, the tenant's shared knowledge."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    visibility: Visibility


class WorkAbandoned(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A worker gave up on a message, visibly."""

    session_id: str
    at_ms: int
    tenant: str = TENANT_DEFAULT
    work: Work
    message_id: str
    error: str
    """What went wrong, in our own words: never text of the message, never a library's raw error."""
    attempts: int


Event = (
    SessionCreated
    | MessageAppended
    | MessageEmbedded
    | MessageDeleted
    | FactPinned
    | FactUnpinned
    | SessionDeleted
    | VisibilityChanged
    | WorkAbandoned
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Event])


def encode(events: Sequence[Event]) -> bytes:
    """Return the payload of one entry: one or more events of exactly one session."""
    assert events, "an entry holds at least one event"
    assert len({(event.tenant, event.session_id) for event in events}) == 1, "one entry, one session"
    return _encoder.encode(events)


def decode(payload: bytes) -> list[Event]:
    """Return the events of an entry's payload.

    Raises:
        CorruptionError: The payload is not what `encode` writes. Skipping it would make this node disagree
            with the others, so the node must stop.
    """
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"undecodable payload of {len(payload)} bytes: {error}") from error
