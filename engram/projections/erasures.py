"""What must be erased, and what an entry's payload is once it is.

An erased history folds to the same state as the full one. That holds because of two rules:

* An entry without any effect (a conflict, a duplicate, work that came too late) may become empty.
* In an entry that had effects, an event of a forgotten message becomes a `MessageDeleted` of it, and a forgotten
  fact a `FactUnpinned`: the session's life, its ordinals and its timeline stay as they were. If the session began
  with that event, a `SessionCreated` takes its place.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import NamedTuple

from engram.events import (
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    SessionCreated,
    VisibilityChanged,
    WorkAbandoned,
    decode,
    encode,
)

ERASED = b""
"""The payload of an entry of which nothing is left."""

BEGINNINGS = (SessionCreated, MessageAppended, FactPinned, VisibilityChanged)
"""What a client writes to a session that is unknown makes it."""


class Kind(StrEnum):
    """What is forgotten."""

    SESSION = "session"
    MESSAGE = "message"
    FACT = "fact"
    ENTRY = "entry"
    """An entry that was rejected because what it carries is forgotten already."""
    STALE = "stale"
    """Vectors in an entry that was accepted otherwise: their message is forgotten already."""


LONG_TERM = frozenset({Kind.SESSION, Kind.MESSAGE})
"""What the long-term store has to forget, too."""


class Erasure(NamedTuple):
    """One thing to forget; a row until the log, the projections and the long-term store are clean of it."""

    log_index: int
    """The deletion. What it forgets stands in entries up to this one."""
    kind: Kind
    subject: str
    """Id of the message or fact; empty for a session or an entry."""
    session_key: int
    """The life of the session that it is about; 0 when there is none."""
    tenant: str
    session_id: str
    source_index: int = 0
    """Of stale vectors: the message they were made from. Of a fact: the slot that it had."""
    text: str | None = None
    """Of a fact, by which its copies are known; no part of the row. None once the log is clean of it."""


def message_subject(message_id: str) -> str:
    """Return the name under which entries that carry a message are traced."""
    return "m" + message_id


def fact_subject(fact_id: str) -> str:
    """Return the name under which entries that carry a fact are traced."""
    return "f" + fact_id


def subject_of(erasure: Erasure) -> str:
    """Return the name under which the entries are traced that carry the message or fact of an erasure."""
    return message_subject(erasure.subject) if erasure.kind is Kind.MESSAGE else fact_subject(erasure.subject)


def rewrite(payloads: Mapping[int, bytes], erasure: Erasure, effective: AbstractSet[int]) -> dict[int, bytes]:
    """Return what must stand in the log instead of `payloads`, by log index; entries that stay are left out.

    `payloads` are those of all entries that carry what is forgotten, and `effective` the indexes of those that had any
    effect on the session: the others may go as a whole.

    Raises:
        CorruptionError: A payload cannot be decoded.
    """
    whole = erasure.kind in {Kind.SESSION, Kind.ENTRY}
    left: dict[int, bytes] = {}
    kept: dict[int, list[Event]] = {}
    for log_index, payload in payloads.items():
        if payload == ERASED:
            continue
        if whole or (erasure.kind is not Kind.STALE and log_index not in effective):
            left[log_index] = ERASED
        else:
            kept[log_index] = decode(payload)
    for log_index, events in kept.items():
        changed = _left(events, erasure, log_index)
        if changed != events:
            left[log_index] = encode(changed) if changed else ERASED
    return left


def _left(events: Sequence[Event], erasure: Erasure, log_index: int) -> list[Event]:
    if erasure.kind is Kind.STALE:
        return [event for event in events if not _is_stale(event, erasure)]
    reach = _reach(events, erasure) if log_index == erasure.log_index else len(events)
    left: list[Event] = []
    begun = log_index != erasure.session_key
    stubbed = False
    for place, event in enumerate(events):
        if place >= reach or not _carries(event, erasure):
            left.append(event)
            begun = begun or isinstance(event, BEGINNINGS)
            continue
        if not begun and isinstance(event, BEGINNINGS):
            left.append(SessionCreated(session_id=event.session_id, at_ms=event.at_ms, tenant=event.tenant))
            begun = True
        if not stubbed:
            left.append(_stub(event, erasure))
            stubbed = True
    return left


def _reach(events: Sequence[Event], erasure: Erasure) -> int:
    """Return how many events of the deletion's own entry can carry what it forgets.

    The same text, pinned again after a fact was unpinned, is another fact.
    """
    if erasure.kind is not Kind.FACT:
        return len(events)
    reach = 0
    is_pinned = True  # by an earlier entry, or by this one
    for place, event in enumerate(events):
        match event:
            case FactPinned(fact_id=erasure.subject) if _carries(event, erasure):
                is_pinned = True
            case FactUnpinned(fact_id=erasure.subject):
                reach = place if is_pinned else reach
                is_pinned = False
            case _:
                pass
    return reach


def _is_stale(event: Event, erasure: Erasure) -> bool:
    return (
        isinstance(event, MessageEmbedded)
        and event.message_id == erasure.subject
        and event.source_index == erasure.source_index
    )


def _carries(event: Event, erasure: Erasure) -> bool:
    match event:
        case MessageAppended() | MessageEmbedded() | WorkAbandoned():
            return erasure.kind is Kind.MESSAGE and event.message_id == erasure.subject
        case FactPinned():
            return erasure.kind is Kind.FACT and event.text == erasure.text
        case _:
            return False


def _stub(event: Event, erasure: Erasure) -> Event:
    if erasure.kind is Kind.MESSAGE:
        return MessageDeleted(
            session_id=event.session_id, at_ms=event.at_ms, tenant=event.tenant, message_id=erasure.subject
        )
    return FactUnpinned(session_id=event.session_id, at_ms=event.at_ms, tenant=event.tenant, fact_id=erasure.subject)
