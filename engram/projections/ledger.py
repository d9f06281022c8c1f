"""The ledger: what each event of the log counts for, decided in log order and the same on every node.

Pure. The state that a batch needs is named by `needs`, brought in a `View`, and changed there entry by entry; what
must be written is collected in the view's lives. An entry is folded as a whole or refused as a whole.
"""

from collections.abc import Iterable, Sequence
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
from engram.projections import facts, messages, pending, sessions, vectors
from engram.projections.erasures import Kind, fact_subject, message_subject
from engram.projections.lives import Life, View
from engram.projections.refusals import DELETED, refusal
from engram.projections.verdicts import Verdict


class Decoded(NamedTuple):
    """An entry whose payload is decoded; without events when it is empty, erased, or not ours."""

    log_index: int
    events: Sequence[Event]


class Needs:
    """What must be known of one session to fold a batch."""

    __slots__ = ("fact_ids", "fact_texts", "message_ids")

    def __init__(self) -> None:
        self.message_ids: set[str] = set()
        self.fact_ids: set[str] = set()
        self.fact_texts: set[str] = set()


def needs(entries: Iterable[Decoded]) -> dict[tuple[str, str], Needs]:  # noqa: C901 - a case an event
    """Return what must be known of each session, by tenant and session id, to fold `entries`."""
    wanted: dict[tuple[str, str], Needs] = {}
    for entry in entries:
        if not entry.events:
            continue
        session = (entry.events[0].tenant, entry.events[0].session_id)
        need = wanted.get(session)
        if need is None:
            need = wanted[session] = Needs()
        for event in entry.events:
            match event:
                case MessageAppended() | MessageEmbedded() | MessageDeleted() | WorkAbandoned():
                    need.message_ids.add(event.message_id)
                case FactPinned():
                    need.fact_ids.add(event.fact_id)
                    need.fact_texts.add(event.text)
                case FactUnpinned():
                    need.fact_ids.add(event.fact_id)
                case SessionCreated() | SessionDeleted() | VisibilityChanged():
                    pass
                case _:
                    assert_never(event)
    return wanted


def fold(view: View, entries: Iterable[Decoded]) -> list[list[Verdict]]:
    """Fold entries into the view, in order; return the verdicts on each one's events."""
    return [_fold_entry(view, entry) for entry in entries]


def _fold_entry(view: View, entry: Decoded) -> list[Verdict]:
    if not entry.events:
        return []
    view.begin_entry(entry.log_index)
    view.last_at_ms = max(view.last_at_ms, *(event.at_ms for event in entry.events))
    life = view.find(entry.events[0])
    refused = refusal(life, entry.events)
    if refused is not None:
        _keep_erasable(view, life, entry.events, refused)
        return refused
    verdicts = [_fold_event(view, event) for event in entry.events]
    if life is not None and life.touched_index != entry.log_index and view.find(entry.events[0]) is life:
        view.trace(life, "")
    return verdicts


def _fold_event(view: View, event: Event) -> Verdict:  # noqa: C901, PLR0911 - a case an event
    match event:
        case MessageAppended():
            return messages.append(view, event)
        case MessageEmbedded():
            return vectors.embed(view, event)
        case MessageDeleted():
            return messages.delete(view, event)
        case FactPinned():
            return facts.pin(view, event)
        case FactUnpinned():
            return facts.unpin(view, event)
        case SessionCreated():
            return sessions.create(view, event)
        case SessionDeleted():
            return sessions.end(view, event)
        case VisibilityChanged():
            return sessions.change_visibility(view, event)
        case WorkAbandoned():
            return pending.abandon(view, event)
        case _:
            assert_never(event)


def _keep_erasable(view: View, life: Life | None, events: Sequence[Event], refused: Sequence[Verdict]) -> None:
    """See to it that the text of a refused entry goes: with what it is about, or at once when that is gone already."""
    if life is None or DELETED in refused or not _is_about(life, events):
        view.erase(events[0], Kind.ENTRY, "", life)
        return
    view.trace(life, "")
    for event in events:
        match event:
            case MessageAppended() | MessageEmbedded() | WorkAbandoned():
                view.trace(life, message_subject(event.message_id))
            case FactPinned():
                view.trace(life, fact_subject(event.fact_id))
                first = facts.same_text(life, event.text)
                if first is not None:
                    view.trace(life, fact_subject(first.fact_id))
            case _:
                pass


def _is_about(life: Life, events: Sequence[Event]) -> bool:
    """Return whether any of it is there to be forgotten one day; else the events only contradict one another."""
    return any(
        isinstance(event, SessionCreated)
        or getattr(event, "message_id", None) in life.messages
        or (
            isinstance(event, FactPinned)
            and (event.fact_id in life.facts or facts.same_text(life, event.text) is not None)
        )
        for event in events
    )
