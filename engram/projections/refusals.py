"""Refusing an entry as a whole, before anything of it has an effect.

An entry is atomic. If one of its events conflicts with what is there, or names a deleted message, nothing of it
counts. What earlier events of the same entry would change is taken into account.
"""

from collections.abc import Sequence
from typing import NamedTuple, assert_never

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
from engram.projections.lives import Life
from engram.projections.slots import log_index_of
from engram.projections.verdicts import Outcome, Verdict

CONFLICT = Verdict(Outcome.CONFLICT, 0)
DELETED = Verdict(Outcome.DELETED, 0)
_UNTOUCHED = Verdict(Outcome.ACCEPTED, 0)
"""It would have counted in an entry of its own."""


def refusal(life: Life | None, events: Sequence[Event]) -> list[Verdict] | None:
    """Return the verdicts on the events of an entry that is refused as a whole; None when it is not.

    The events that are the reason have CONFLICT or DELETED; the others have the word they would have got without
    them, with 0 as their first index where they would have been new.
    """
    if len(events) == 1 or (len(events) == 2 and isinstance(events[1], MessageEmbedded)):  # noqa: PLR2004
        verdict = _check(life, events[0])
        refused = verdict is CONFLICT or verdict is DELETED
        return [verdict, *(_UNTOUCHED for _ in events[1:])] if refused else None
    ahead = _Ahead(life)
    verdicts = [ahead.check(event) for event in events]
    return verdicts if CONFLICT in verdicts or DELETED in verdicts else None


def _check(life: Life | None, event: Event) -> Verdict:  # noqa: C901, PLR0911 - a case an event
    if life is None:
        return _UNTOUCHED
    match event:
        case MessageAppended():
            message = life.messages.get(event.message_id)
            if message is None:
                return DELETED if event.message_id in life.tombstones else _UNTOUCHED
            is_same = message.text == event.text and message.role == event.role
            return Verdict(Outcome.DUPLICATE, message.log_index) if is_same else CONFLICT
        case SessionCreated():
            return Verdict(Outcome.DUPLICATE, life.key) if sessions.is_same(life, event) else CONFLICT
        case FactPinned():
            for fact in life.facts.values():
                if fact.text == event.text:
                    return Verdict(Outcome.DUPLICATE, log_index_of(fact.slot))
            return CONFLICT if event.fact_id in life.facts else _UNTOUCHED
        case (
            MessageEmbedded()
            | MessageDeleted()
            | FactUnpinned()
            | SessionDeleted()
            | VisibilityChanged()
            | WorkAbandoned()
        ):
            return _UNTOUCHED
        case _:
            assert_never(event)


class _Content(NamedTuple):
    role: str
    text: str


class _Ahead:
    """What the events of one entry see of those before them in it."""

    def __init__(self, life: Life | None) -> None:
        self._life = life
        self._messages: dict[str, _Content | None] = {}
        """None: deleted."""
        self._facts: dict[str, str | None] = {}
        """Texts of facts; None: unpinned."""
        self._created: SessionCreated | None = None
        """What the session is made as, when an event of the entry makes it."""

    def check(self, event: Event) -> Verdict:  # noqa: C901 - a case an event
        """Return the word on the next event."""
        match event:
            case MessageAppended():
                return self._append(event)
            case MessageEmbedded() | WorkAbandoned():
                pass
            case SessionCreated():
                return self._create(event)
            case FactPinned():
                return self._pin(event)
            case MessageDeleted():
                if self._life is not None or self._created is not None:
                    self._messages[event.message_id] = None
            case FactUnpinned():
                self._facts[event.fact_id] = None
            case SessionDeleted():
                self.__init__(None)  # type: ignore[misc]
            case VisibilityChanged():
                self._begin(event)
            case _:
                assert_never(event)
        return _UNTOUCHED

    def _append(self, event: MessageAppended) -> Verdict:
        self._begin(event)
        if event.message_id in self._messages:
            staged = self._messages[event.message_id]
            if staged is None:
                return DELETED
            return _UNTOUCHED if staged == _Content(event.role, event.text) else CONFLICT
        verdict = _check(self._life, event)
        if verdict is _UNTOUCHED:
            self._messages[event.message_id] = _Content(event.role, event.text)
        return verdict

    def _create(self, event: SessionCreated) -> Verdict:
        if self._created is None:
            self._begin(event, event)
            return _check(self._life, event)
        made = self._created
        is_same = (made.agent_id, made.user_id, made.metadata) == (event.agent_id, event.user_id, event.metadata)
        return _UNTOUCHED if is_same else CONFLICT

    def _pin(self, event: FactPinned) -> Verdict:
        self._begin(event)
        facts = {} if self._life is None else {fact.fact_id: fact.text for fact in self._life.facts.values()}
        pinned = {fact_id: text for fact_id, text in (facts | self._facts).items() if text is not None}
        if event.text in pinned.values():
            return _UNTOUCHED
        if event.fact_id in pinned:
            return CONFLICT
        self._facts[event.fact_id] = event.text
        return _UNTOUCHED

    def _begin(self, event: Event, made: SessionCreated | None = None) -> None:
        if self._life is None and self._created is None:
            self._created = made or SessionCreated(session_id=event.session_id, at_ms=event.at_ms)
