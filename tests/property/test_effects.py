"""What of the log counts is read back from the read models; the ledger's own words, kept aside, must say the same."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hypothesis import example, given

from engram.events import (
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    SessionCreated,
    SessionDeleted,
    decode,
)
from engram.projections.effects import effective
from engram.projections.ledger import Decoded
from engram.projections.verdicts import Outcome, Verdict
from tests.projections.histories import (
    Entry,
    apply,
    deleted,
    embedded,
    ended,
    entries_of,
    open_store,
    pinned,
    said,
    scratch_folder,
    unpinned,
)
from tests.property.test_projections import HISTORIES

SAID_AGAIN = entries_of([said("m1"), [said("m1"), said("m2")], [said("m3"), said("m3")]])
FORGOTTEN = entries_of([[said("m1"), said("m2")], pinned("f1"), deleted("m1"), unpinned("f1"), pinned("f1")])
VECTORS_OF_NOTHING = entries_of([said("m1"), [said("m2"), embedded("m1", 7)], embedded("m1", 1)])
PINNED_AGAIN = entries_of([[pinned("f1"), unpinned("f1"), pinned("f1"), pinned("f1")]])
PINNED_ELSEWHERE = entries_of([pinned("f1", "b"), [pinned("f2", "b"), pinned("f2", "a")]])
BEGUN_AGAIN = entries_of([said("m1"), ended(), said("m1"), SessionCreated(session_id="s", at_ms=1)])


async def told(entries: Sequence[Entry]) -> tuple[list[list[Verdict]], list[list[bool]]]:
    """Return what the ledger said of each event, and which of them count in the end."""
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        verdicts = await apply(store, entries)
        decoded = [Decoded(entry.index, decode(entry.data) if entry.data else []) for entry in entries]
        counting = await store.ask(partial(effective, entries=decoded))
        await store.close()
    return verdicts, counting


def forgets(event: Event, later: Event) -> bool:
    """Return whether `later` takes away what `event` made, if it is accepted."""
    if later.session_id != event.session_id:
        return False
    match later:
        case SessionDeleted():
            return True
        case MessageDeleted():
            return isinstance(event, MessageAppended | MessageEmbedded) and event.message_id == later.message_id
        case FactUnpinned():
            return isinstance(event, FactPinned) and event.fact_id == later.fact_id
        case _:
            return False


@given(HISTORIES)
@example(SAID_AGAIN)
@example(FORGOTTEN)
@example(VECTORS_OF_NOTHING)
@example(PINNED_AGAIN)
@example(PINNED_ELSEWHERE)
@example(BEGUN_AGAIN)
def test_what_counts_is_what_the_ledger_accepted_and_nothing_has_forgotten(entries: list[Entry]) -> None:
    verdicts, counting = asyncio.run(told(entries))

    flat = [
        (event, verdict == Verdict(Outcome.ACCEPTED, entry.index), counts)  # of a refused entry nothing counts: 0
        for entry, of_entry, counted in zip(entries, verdicts, counting, strict=True)
        for event, verdict, counts in zip(decode(entry.data) if entry.data else [], of_entry, counted, strict=True)
    ]
    for place, (event, accepted, counts) in enumerate(flat):
        is_forgotten = any(taken and forgets(event, later) for later, taken, _ in flat[place + 1 :])
        if isinstance(event, SessionDeleted):
            assert counts
        elif isinstance(event, SessionCreated | MessageAppended | MessageEmbedded | FactPinned):
            assert counts == (accepted and not is_forgotten), (event, accepted, is_forgotten)
