"""Which part of an old entry still counts: the rest is history that no state needs any more.

Memory stays, old edits go. Of an entry at or below the horizon this leaves out

* the whole of it, if it never had an effect: it was refused, said before, or came too late;
* in one that had effects, the events that had none;
* the vectors that others have replaced, and the words in which work was given up that was done since. The events
  themselves stay, so that the session's timeline does.

Everything else stays: what is there now, and every deletion, whatever it deleted, because a store that comes back from
an older state must hear of it. What a deletion forgets is the eraser's work, not this module's.

A history of which any part was reduced folds to the same state as the full one, at the horizon and at every index
behind it. Between its entries a reduced history may differ in the vectors that a message had at the time.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from engram.events import (
    Event,
    FactPinned,
    MessageAppended,
    MessageEmbedded,
    SessionCreated,
    SessionDeleted,
    WorkAbandoned,
    encode,
)
from engram.projections import facts
from engram.projections.erasures import ERASED
from engram.projections.ledger import Decoded
from engram.projections.lives import DONE, Life, MessageState
from engram.projections.slots import log_index_of


class Standing(NamedTuple):
    """What has become of some entries, as a store knows it that has folded them all."""

    lives: Mapping[tuple[str, str], Life]
    """The sessions that they name and that are there, each with the messages and facts that they name."""
    effective: frozenset[tuple[int, int]]
    """(session key, log index) of those that had an effect on such a session."""


def reductions(entries: Sequence[Decoded], standing: Standing, horizon_index: int) -> dict[int, bytes]:
    """Return what may stand in the log instead of `entries`, by log index; those that stay as they are are left out.

    The state that is to stay the same is that at `horizon_index` and later; no entry is behind it.
    """
    changed: dict[int, bytes] = {}
    for entry in entries:
        assert entry.log_index <= horizon_index, "what is younger than the horizon is not touched"
        left = _left(entry, standing, horizon_index)
        if left != list(entry.events):
            changed[entry.log_index] = encode(left) if left else ERASED
    return changed


def _left(entry: Decoded, standing: Standing, horizon_index: int) -> list[Event]:
    events = list(entry.events)
    life = standing.lives.get((events[0].tenant, events[0].session_id)) if events else None
    # Of a session that is gone, or that was made again since, all is the eraser's.
    if life is None or life.key > entry.log_index or any(isinstance(event, SessionDeleted) for event in events):
        return events
    if (life.key, entry.log_index) not in standing.effective:
        return []
    counting = (event for event in events if _counts(event, life, entry.log_index))
    return [_reduced(event, life, entry.log_index, horizon_index) for event in counting]


def _counts(event: Event, life: Life, log_index: int) -> bool:
    """Return False for an event that, in an entry that had effects, had none; what cannot be told counts.

    What is not there any more was deleted, and is left to the eraser.
    """
    match event:
        case SessionCreated():
            return life.key == log_index
        case MessageAppended():
            message = life.messages.get(event.message_id)
            return message is None or message.log_index >= log_index
        case MessageEmbedded():
            message = life.messages.get(event.message_id)
            return message is None or _is_of(event, message, log_index)
        case FactPinned():
            first = facts.same_text(life, event.text)
            return first is None or log_index_of(first.slot) >= log_index
        case _:
            return True


def _reduced(event: Event, life: Life, log_index: int, horizon_index: int) -> Event:
    """Return the event without what another one has replaced at the horizon."""
    if not isinstance(event, MessageEmbedded | WorkAbandoned):
        return event
    message = life.messages.get(event.message_id)
    if message is None or not log_index < message.vectors_index <= horizon_index:
        return event
    match event:
        case MessageEmbedded() if _is_of(event, message, log_index):
            return msgspec.structs.replace(event, chunks=[])
        case WorkAbandoned(work="embedding") if message.embedding == DONE:
            return msgspec.structs.replace(event, error="")
        case _:
            return event


def _is_of(event: MessageEmbedded, message: MessageState, log_index: int) -> bool:
    """Return whether the vectors were made from the message."""
    return message.log_index == (event.source_index or log_index)
