"""What an import makes of an entry that another engram recorded: what of it is new here, and what is left out.

Pure. Ids mean here what they mean there, and times are kept, so what is there already can be told from what is not, and
what was made after a deletion from what it forgets. So the same export twice records nothing the second time.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, assert_never

import msgspec
import numpy as np

from engram.events import (
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    SessionCreated,
    SessionDeleted,
    VisibilityChanged,
    WorkAbandoned,
)
from engram.projections import sessions
from engram.projections.erasures import BEGINNINGS
from engram.projections.facts import same_text
from engram.projections.lance_rows import Space
from engram.projections.lives import DONE, Life

NORM_TOLERANCE: Final = 0.01
"""float16 of a vector of length 1 is off by less."""


class Word(StrEnum):
    """What becomes of an event."""

    NEW = "new"
    THERE = "there"
    """It counts here already, or what it did was undone since."""
    FORGOTTEN = "forgotten"
    """Of a message that was deleted here: its id is not taken again."""
    FOREIGN = "foreign"
    """Of no use here: vectors of another model, a worker's failure, a deletion of what is not here."""
    UNWANTED = "unwanted"
    """A deletion, where deletions are to be left out."""


class Sorted(NamedTuple):
    """The events of an entry that are to be recorded, and a word on each event of it."""

    events: Sequence[Event]
    words: Sequence[Word]


def sort(life: Life | None, events: Sequence[Event], space: Space, *, deletions: bool) -> Sorted:
    """Return what of an entry is new to the session as it is now.

    `deletions`: whether what was deleted there is deleted here.
    """
    kept: list[Event] = []
    words: list[Word] = []
    arriving = {event.message_id: event for event in events if isinstance(event, MessageAppended)}
    begins = False
    for event in events:
        word = _word(life, event, deletions=deletions)
        begins = begins or (life is None and isinstance(event, BEGINNINGS))
        if begins and deletions and isinstance(event, MessageDeleted):
            word = Word.NEW  # it keeps the place of a message that was forgotten
        if isinstance(event, MessageEmbedded):
            word, event = _vectors(life, event, arriving.get(event.message_id), space)  # noqa: PLW2901 - as it is here
        words.append(word)
        if word is Word.NEW:
            kept.append(event)
    return Sorted(kept, words)


def needs_earlier(life: Life | None, events: Sequence[Event]) -> bool:
    """Return whether an entry names a log index of a message that is not in the log yet."""
    if life is None:
        return False
    return any(isinstance(event, MessageEmbedded) and event.message_id in life.new_messages for event in events)


def _word(life: Life | None, event: Event, *, deletions: bool) -> Word:  # noqa: C901, PLR0911 - a case an event
    match event:
        case SessionCreated():
            return Word.THERE if life is not None and sessions.is_same(life, event) else Word.NEW
        case MessageAppended():
            return Word.NEW if life is None else _message(life, event)
        case FactPinned():
            return Word.NEW if life is None or same_text(life, event.text) is None else Word.THERE
        case VisibilityChanged():
            if life is None or event.at_ms > life.updated_at_ms:
                return Word.NEW
            stands = life.visibility == event.visibility or life.updated_at_ms > event.at_ms
            return Word.THERE if stands else Word.NEW
        case WorkAbandoned():
            return Word.FOREIGN
        case MessageEmbedded():
            return Word.NEW
        case MessageDeleted() | FactUnpinned() | SessionDeleted():
            if not deletions:
                return Word.UNWANTED
            return Word.FOREIGN if life is None else _deletion(life, event)
        case _:
            assert_never(event)


def _message(life: Life, event: MessageAppended) -> Word:
    if event.message_id in life.tombstones:
        return Word.FORGOTTEN
    known = life.messages.get(event.message_id)
    is_there = known is not None and (known.role, known.text) == (event.role, event.text)
    return Word.THERE if is_there else Word.NEW


def _deletion(life: Life, event: MessageDeleted | FactUnpinned | SessionDeleted) -> Word:
    """Return whether a deletion still has something to forget: what is younger than it was made again afterwards.

    One that has not, of a session that is there, is taken as well if it is the latest that is known of the session:
    it is its last change.
    """
    is_last_change = event.at_ms > life.updated_at_ms
    match event:
        case MessageDeleted():
            if event.message_id in life.tombstones:
                return Word.NEW if is_last_change else Word.THERE
            known = life.messages.get(event.message_id)
            is_younger = life.created_at_ms > event.at_ms if known is None else known.at_ms >= event.at_ms
            return Word.FOREIGN if is_younger else Word.NEW
        case FactUnpinned():
            fact = life.facts.get(event.fact_id)
            forgets = is_last_change if fact is None else fact.at_ms < event.at_ms
            return Word.NEW if forgets else Word.FOREIGN
        case SessionDeleted():
            return Word.NEW if life.created_at_ms < event.at_ms else Word.FOREIGN
        case _:
            assert_never(event)


def _vectors(
    life: Life | None, event: MessageEmbedded, arriving: MessageAppended | None, space: Space
) -> tuple[Word, MessageEmbedded]:
    """Return the word on vectors, and the vectors as of the message that is here."""
    known = None if life is None else life.messages.get(event.message_id)
    if known is not None and known.embedding == DONE and known.model == space.model:
        return Word.THERE, event
    text = known.text if known is not None else None if arriving is None else arriving.text
    is_forgotten = life is not None and event.message_id in life.tombstones
    if text is None or is_forgotten or (arriving is not None and arriving.text != text):
        return Word.FOREIGN, event
    if (event.model, event.dimension) != space or not _are_sound(event, text):
        return Word.FOREIGN, event
    source_index = 0 if known is None else known.log_index
    return Word.NEW, msgspec.structs.replace(event, source_index=source_index)


def _are_sound(event: MessageEmbedded, text: str) -> bool:
    """Return whether these can be vectors of `text`: parts of it, and of length 1, or of none."""
    if not event.chunks or any(chunk.end > len(text) for chunk in event.chunks):
        return False
    rows = np.frombuffer(b"".join(chunk.vector for chunk in event.chunks), "<f2").astype(np.float32)
    norms = np.linalg.norm(rows.reshape(len(event.chunks), event.dimension), axis=1)
    return bool(np.all((norms == 0) | (np.abs(norms - 1) < NORM_TOLERANCE)))
