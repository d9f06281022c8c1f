"""What stands in Redis: JSON objects, one for each session, message and fact, and one for the state of the whole.

Pure. Whoever reads them gets the rows of the primary store back, equal in every field.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from engram.events import Role, Scalar, Visibility
from engram.projections.redis_keys import SessionName
from engram.projections.rows import EmbeddingStatus, FactRow, MessageRow, SessionRow

FORMAT: Final = 1
"""Raise it when an object's fields change what they mean: keys of another format are written anew."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the key space holds.

    It is replaced in every transaction. So a server that has the state that was written last has all that was written,
    and one that has another lost something, or somebody else writes there.
    """

    format: int = FORMAT
    store: str
    """The log that it was folded from."""
    epoch: str
    """The stretch of writing without a doubt: a new one begins wherever it is unknown what the server has."""
    number: int
    """Counts the transactions of the epoch."""
    applied: int
    """Everything that entries of the log up to this one did is here, unless `complete` is false."""
    complete: bool
    """Every session has been compared with the primary store since the epoch began."""
    unscrubbed: bool = False
    """Something was taken out that the server's files may still hold."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A session, and how much of it is here."""

    format: int = FORMAT
    store: str
    window: int
    """How many elements the list may have."""
    messages: int
    """How many it has: fewer when texts are long."""
    facts: int
    """Fields of the hash."""
    session_key: int
    tenant: str
    session_id: str
    agent_id: str | None
    user_id: str | None
    metadata: Mapping[str, Scalar]
    visibility: Visibility
    created_at_ms: int
    updated_at_ms: int
    updated_index: int
    message_count: int
    fact_count: int
    token_count: int
    pending_embeddings: int
    abandoned_embeddings: int
    next_ordinal: int
    vectors_index: int
    deletions: int


class _Message(msgspec.Struct, frozen=True, gc=False):
    session_key: int
    ordinal: int
    message_id: str
    role: Role
    name: str | None
    text: str
    tokens: int
    occurred_at_ms: int | None
    at_ms: int
    log_index: int
    metadata: Mapping[str, Scalar]
    embedding: EmbeddingStatus


class _Fact(msgspec.Struct, frozen=True, gc=False):
    order: int
    fact_id: str
    text: str
    tokens: int
    log_index: int
    at_ms: int


class ShortTerm(NamedTuple):
    """A session as it belongs into Redis: its latest messages, oldest first, and its facts in order of pinning."""

    session: SessionRow
    recent: Sequence[MessageRow]
    facts: Sequence[FactRow]

    @property
    def name(self) -> SessionName:
        """What the session is called."""
        return SessionName(self.session.tenant, self.session.session_id)


class Stored(NamedTuple):
    """What Redis answered for one session, in the order of the commands."""

    state: bytes | None
    header: bytes | None
    messages: Sequence[bytes]
    core: Mapping[bytes, bytes]


class UnreadableError(ValueError):
    """What stands in Redis was not written here, or not as a whole."""


_encode = msgspec.json.Encoder().encode
_state = msgspec.json.Decoder(State)
_header = msgspec.json.Decoder(Header)
_message = msgspec.json.Decoder(_Message)
_fact = msgspec.json.Decoder(_Fact)


def encode_state(state: State) -> bytes:
    """Return the value of the key `state`."""
    return _encode(state)


def decode_state(data: bytes | None) -> State | None:
    """Return the state that `data` says; None when it is none of ours."""
    if data is None:
        return None
    try:
        return _state.decode(data)
    except msgspec.DecodeError:
        return None


def encode_header(session: SessionRow, store: str, *, window: int, messages: int, facts: int) -> bytes:
    """Return the value of a session's key."""
    held = {"format": FORMAT, "store": store, "window": window, "messages": messages, "facts": facts}
    return _encode({**held, **session._asdict()})


def decode_header(data: bytes | None) -> Header | None:
    """Return the header that `data` says; None when it is none of ours."""
    if data is None:
        return None
    try:
        return _header.decode(data)
    except msgspec.DecodeError:
        return None


def session_of(header: Header) -> SessionRow:
    """Return the session that a header tells of."""
    return SessionRow(*[getattr(header, field) for field in SessionRow._fields])


def encode_message(row: MessageRow) -> bytes:
    """Return the list's element for a message."""
    return _encode(_Message(*row))


def encode_facts(rows: Sequence[FactRow]) -> dict[str, bytes]:
    """Return the hash of a session's facts."""
    return {row.fact_id: _encode(_Fact(order, *row)) for order, row in enumerate(rows)}


def decode_messages(values: Sequence[bytes]) -> list[MessageRow]:
    """Return the messages of a list.

    Raises:
        UnreadableError: One of them is no message.
    """
    return [MessageRow(*_fields(_message, value)) for value in values]


def decode_facts(values: Mapping[bytes, bytes]) -> list[FactRow]:
    """Return the facts of a hash, in order of pinning.

    Raises:
        UnreadableError: One of them is no fact.
    """
    ordered = sorted(_fields(_fact, value) for value in values.values())
    return [FactRow(*fields[1:]) for fields in ordered]


def _fields(decoder: msgspec.json.Decoder[Any], value: bytes) -> tuple[Any, ...]:
    try:
        return msgspec.structs.astuple(decoder.decode(value))
    except msgspec.DecodeError as error:
        raise UnreadableError(str(error)) from error
