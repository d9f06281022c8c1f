"""Commands: what a client asks for, turned into the events that say it happened.

Pure: the caller brings the clock's word, new ids, token counts and vectors. Every limit on a value is here, once,
with the reason beside it. Each function raises `RequestError`s only.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple, assert_never, get_args

from engram.errors import InvalidError, TooLargeError
from engram.events import (
    TENANT_DEFAULT,
    Chunk,
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    Role,
    Scalar,
    SessionCreated,
    SessionDeleted,
    Visibility,
    VisibilityChanged,
    Work,
    WorkAbandoned,
)

ID_CHARACTERS_MAX = 200
"""An id is a name, not a document: it goes into keys, headers and log lines."""

TEXT_BYTES_MAX = 256 * 1024
"""One message or fact, in UTF-8: many novels' chapters, and still small beside one log entry."""

BATCH_MESSAGES_MAX = 500
"""Messages of one atomic batch; with vectors they fill about one entry."""

ENTRY_BYTES_MAX = 4 * 1024 * 1024
"""One log entry: a body of 2 MiB of text, with its vectors and framing."""

METADATA_KEYS_MAX = 64
METADATA_BYTES_MAX = 16 * 1024
"""Metadata is for filters; what is larger belongs into the text."""

NAME_CHARACTERS_MAX = 200

TIME_MS_MIN = -62_135_596_800_000
TIME_MS_MAX = 253_402_300_799_999
"""Years 1 to 9999, what RFC 3339 can write."""


AHEAD_MS_MAX = 60_000
"""How far the clock of another machine may be ahead of this one's. New events are never stamped before an old one, so
one from next year would stamp all of this year with it."""


class MessageDraft(NamedTuple):
    """A message as a client brings it, with what was computed for it. `tokens` counts `text`."""

    message_id: str
    role: str
    text: str
    name: str | None
    occurred_at_ms: int | None
    metadata: Mapping[str, Scalar]
    tokens: int


class Vectors(NamedTuple):
    """The vectors of one message, made by `model`."""

    model: str
    dimension: int
    chunks: Sequence[Chunk]


def check_id(field: str, value: str) -> str:
    """Return `value` if it can be an id: 1 to 200 characters, any Unicode but control characters and surrogates."""
    if not 1 <= len(value) <= ID_CHARACTERS_MAX:
        raise InvalidError(f"{field} has {len(value)} characters; it takes 1 to {ID_CHARACTERS_MAX}", code="invalid_id")
    if value.isprintable():  # all that can be said of nearly every id, at a twentieth of the price
        return value
    for position, character in enumerate(value):
        if unicodedata.category(character) in {"Cc", "Cs"}:
            raise InvalidError(
                f"{field} has the control character U+{ord(character):04X} at position {position}", code="invalid_id"
            )
    return value


def check_text(field: str, value: str) -> str:
    """Return `value` if it can be the text of a message or fact: not blank, within 256 KiB, encodable."""
    if not value.strip():
        raise InvalidError(f"{field} must not be blank")
    if len(value) > TEXT_BYTES_MAX:
        raise TooLargeError(field, size_bytes=len(value), limit_bytes=TEXT_BYTES_MAX)
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(f"{field} has a lone surrogate at position {error.start}") from None
    if size_bytes > TEXT_BYTES_MAX:
        raise TooLargeError(field, size_bytes=size_bytes, limit_bytes=TEXT_BYTES_MAX)
    return value


def check_event(event: Event, *, now_ms: int) -> None:  # noqa: C901 - a case an event
    """Check an event that another engram recorded, by the limits of the commands here; `now_ms` is the clock's time.

    Raises:
        InvalidError, TooLargeError: A value in it is none that a command would have made.
    """
    check_id("session_id", event.session_id)
    if not 0 <= event.at_ms <= now_ms + AHEAD_MS_MAX:
        raise InvalidError(f"at_ms is {event.at_ms}, but now it is {now_ms}: an event cannot be of a later time")
    match event:
        case SessionCreated():
            _check_session(event.agent_id, event.user_id, event.metadata)
        case MessageAppended():
            _check_message(event.message_id, event.text, event.name, event.occurred_at_ms, event.metadata)
        case MessageEmbedded():
            check_id("message_id", event.message_id)
            _check_chunks(event)
        case FactPinned():
            check_id("fact_id", event.fact_id)
            check_text("fact", event.text)
        case MessageDeleted() | WorkAbandoned():
            check_id("message_id", event.message_id)
        case FactUnpinned():
            check_id("fact_id", event.fact_id)
        case SessionDeleted() | VisibilityChanged():
            pass
        case _:
            assert_never(event)


def create_session(
    *,
    session_id: str,
    agent_id: str | None,
    user_id: str | None,
    metadata: Mapping[str, Scalar],
    at_ms: int,
) -> list[Event]:
    """Return the event that makes a session by name."""
    check_id("session_id", session_id)
    _check_session(agent_id, user_id, metadata)
    return [SessionCreated(session_id=session_id, at_ms=at_ms, agent_id=agent_id, user_id=user_id, metadata=metadata)]


def append_messages(
    *,
    session_id: str,
    drafts: Sequence[MessageDraft],
    vectors: Sequence[Vectors | None],
    at_ms: int,
) -> list[Event]:
    """Return the events of one atomic batch: each message, followed by its vectors where they are known already."""
    check_id("session_id", session_id)
    if not 1 <= len(drafts) <= BATCH_MESSAGES_MAX:
        raise InvalidError(f"messages has {len(drafts)} items; it takes 1 to {BATCH_MESSAGES_MAX}")
    seen: set[str] = set()
    events: list[Event] = []
    for draft, known in zip(drafts, vectors, strict=True):
        if draft.message_id in seen:
            raise InvalidError(f"id {draft.message_id!r} stands twice in one batch", code="invalid_id")
        seen.add(draft.message_id)
        events.append(_appended(session_id, draft, at_ms))
        if known is not None:
            events.append(_embedded(session_id, draft.message_id, 0, known, at_ms))
    return events


def embed_message(
    *, tenant: str, session_id: str, message_id: str, source_index: int, vectors: Vectors, at_ms: int
) -> list[Event]:
    """Return the event that gives a message its vectors later than it was written."""
    return [_embedded(session_id, message_id, source_index, vectors, at_ms, tenant)]


def abandon_work(
    *, tenant: str, session_id: str, message_id: str, work: Work, error: str, attempts: int, at_ms: int
) -> list[Event]:
    """Return the event that says a worker gave up on a message."""
    return [
        WorkAbandoned(
            tenant=tenant,
            session_id=session_id,
            message_id=message_id,
            work=work,
            error=error,
            attempts=attempts,
            at_ms=at_ms,
        )
    ]


def delete_message(*, session_id: str, message_id: str, at_ms: int) -> list[Event]:
    """Return the event that forgets a message."""
    check_id("session_id", session_id)
    check_id("message_id", message_id)
    return [MessageDeleted(session_id=session_id, message_id=message_id, at_ms=at_ms)]


def pin_fact(*, session_id: str, fact_id: str, text: str, tokens: int, at_ms: int) -> list[Event]:
    """Return the event that pins a fact into core memory."""
    check_id("session_id", session_id)
    check_id("id", fact_id)
    check_text("fact", text)
    return [FactPinned(session_id=session_id, fact_id=fact_id, text=text, tokens=tokens, at_ms=at_ms)]


def unpin_fact(*, session_id: str, fact_id: str, at_ms: int) -> list[Event]:
    """Return the event that takes a fact out of core memory."""
    check_id("session_id", session_id)
    check_id("fact_id", fact_id)
    return [FactUnpinned(session_id=session_id, fact_id=fact_id, at_ms=at_ms)]


def delete_session(*, session_id: str, at_ms: int) -> list[Event]:
    """Return the event that forgets a session."""
    check_id("session_id", session_id)
    return [SessionDeleted(session_id=session_id, at_ms=at_ms)]


def change_visibility(*, session_id: str, visibility: str, at_ms: int) -> list[Event]:
    """Return the event that opens or closes a session; `visibility` is taken in any case."""
    check_id("session_id", session_id)
    wanted = visibility.lower()
    if wanted not in get_args(Visibility):
        raise InvalidError(f"visibility is {visibility!r}; it takes 'Private' or 'Shared'")
    return [
        VisibilityChanged(session_id=session_id, visibility="shared" if wanted == "shared" else "private", at_ms=at_ms)
    ]


def _appended(session_id: str, draft: MessageDraft, at_ms: int) -> MessageAppended:
    _check_message(draft.message_id, draft.text, draft.name, draft.occurred_at_ms, draft.metadata)
    return MessageAppended(
        session_id=session_id,
        at_ms=at_ms,
        message_id=draft.message_id,
        role=_role(draft.role),
        text=draft.text,
        name=draft.name,
        occurred_at_ms=draft.occurred_at_ms,
        tokens=draft.tokens,
        metadata=draft.metadata,
    )


def _check_session(agent_id: str | None, user_id: str | None, metadata: Mapping[str, Scalar]) -> None:
    for field, value in (("agent_id", agent_id), ("user_id", user_id)):
        if value is not None:
            check_id(field, value)
    _check_metadata(metadata)


def _check_message(
    message_id: str, text: str, name: str | None, occurred_at_ms: int | None, metadata: Mapping[str, Scalar]
) -> None:
    check_id("id", message_id)
    check_text("content", text)
    if name is not None and not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise InvalidError(f"name has {len(name)} characters; it takes 1 to {NAME_CHARACTERS_MAX}")
    if name is not None:
        check_id("name", name)
    if occurred_at_ms is not None and not TIME_MS_MIN <= occurred_at_ms <= TIME_MS_MAX:
        raise InvalidError(f"timestamp is {occurred_at_ms} ms; it takes the years 1 to 9999")
    _check_metadata(metadata)


def _check_chunks(event: MessageEmbedded) -> None:
    wanted = 2 * event.dimension
    for chunk in event.chunks:
        if len(chunk.vector) != wanted:
            raise InvalidError(
                f"a vector has {len(chunk.vector)} bytes; {event.dimension} dimensions of float16 have {wanted}"
            )
        if not 0 <= chunk.start <= chunk.end <= TEXT_BYTES_MAX:
            raise InvalidError(f"a vector is of the characters {chunk.start} to {chunk.end}; a text has no such part")


_ROLES: Mapping[str, Role] = {role: role for role in get_args(Role)}


def _role(value: str) -> Role:
    role = _ROLES.get(value)
    if role is None:
        raise InvalidError(f"role is {value!r}; it takes {', '.join(map(repr, _ROLES))}")
    return role


def _check_metadata(metadata: Mapping[str, Scalar]) -> None:
    if len(metadata) > METADATA_KEYS_MAX:
        raise InvalidError(f"metadata has {len(metadata)} keys; it takes {METADATA_KEYS_MAX} at most")
    size_bytes = 0
    for key, value in metadata.items():
        check_id("a metadata key", key)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InvalidError(f"metadata {key!r} is {value}; integers take 64 bits")
        size_bytes += len(key) + len(str(value))
    if size_bytes > METADATA_BYTES_MAX:
        raise TooLargeError("metadata", size_bytes=size_bytes, limit_bytes=METADATA_BYTES_MAX)


def _embedded(
    session_id: str,
    message_id: str,
    source_index: int,
    vectors: Vectors,
    at_ms: int,
    tenant: str = TENANT_DEFAULT,
) -> MessageEmbedded:
    return MessageEmbedded(
        session_id=session_id,
        at_ms=at_ms,
        tenant=tenant,
        message_id=message_id,
        source_index=source_index,
        model=vectors.model,
        dimension=vectors.dimension,
        chunks=vectors.chunks,
    )
