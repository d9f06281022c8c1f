"""What was forgotten after a place in the log, so that a fold up to that place does not bring it back.

Erased entries have lost it already. Between a deletion and its erasure, which a stopped node may have left undone, the
log still holds the text: here it is left out on the way into the fold, as the eraser would.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engram.events import Event, FactPinned, FactUnpinned, MessageDeleted, SessionDeleted, decode
from engram.projections.erasures import ERASED, Erasure, Kind, rewrite


class _Subject(NamedTuple):
    kind: Kind
    name: str
    deleted_index: int
    """The deletion."""
    text: str | None
    """Of a fact."""


@dataclass(slots=True)
class _Forgotten:
    """What was forgotten of the sessions of one name: until which entry."""

    whole: int = 0
    subjects: dict[tuple[Kind, str], int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    """Texts of forgotten facts, met on the way: the same text again was a duplicate, and must not take their place."""


class Forgetting:
    """Deletions, and payloads without what they forgot. It holds ids, one for each deletion that it was told of."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Forgotten] = {}

    def note(self, log_index: int, events: Iterable[Event]) -> None:
        """Take note of the deletions in an entry behind the place that is looked back to."""
        for event in events:
            match event:
                case SessionDeleted():
                    self._of(event).whole = log_index
                case MessageDeleted():
                    self._of(event).subjects[Kind.MESSAGE, event.message_id] = log_index
                case FactUnpinned():
                    self._of(event).subjects[Kind.FACT, event.fact_id] = log_index
                case _:
                    pass

    def left(self, log_index: int, payload: bytes) -> bytes:
        """Return an entry's payload without what was forgotten; entries come in order.

        Raises:
            CorruptionError: It cannot be decoded.
        """
        if not payload or not self._sessions:
            return payload
        events = decode(payload)
        forgotten = self._sessions.get((events[0].tenant, events[0].session_id))
        if forgotten is None:
            return payload
        if log_index <= forgotten.whole:
            return ERASED
        for subject in _subjects(events, forgotten):
            payload = _without(payload, log_index, subject, events[0])
        return payload

    def _of(self, event: Event) -> _Forgotten:
        return self._sessions.setdefault((event.tenant, event.session_id), _Forgotten())


def _subjects(events: Sequence[Event], forgotten: _Forgotten) -> list[_Subject]:
    """Return what of an entry was forgotten; remembers the texts of facts among it."""
    found: dict[_Subject, None] = {}
    for event in events:
        if isinstance(event, FactPinned):
            subject = (Kind.FACT, event.fact_id)
            if subject in forgotten.subjects:
                forgotten.texts[event.text] = forgotten.subjects[subject]
            if event.text in forgotten.texts:
                found[_Subject(*subject, forgotten.texts[event.text], event.text)] = None
        elif (subject := (Kind.MESSAGE, getattr(event, "message_id", ""))) in forgotten.subjects:
            found[_Subject(*subject, forgotten.subjects[subject], None)] = None
    return list(found)


def _without(payload: bytes, log_index: int, subject: _Subject, event: Event) -> bytes:
    # The entry may be the one that the session began with: an event that makes it takes the place of what goes, which
    # has no effect where the session was there before.
    erasure = Erasure(
        subject.deleted_index, subject.kind, subject.name, log_index, event.tenant, event.session_id, text=subject.text
    )
    return rewrite({log_index: payload}, erasure, {log_index}).get(log_index, payload)
