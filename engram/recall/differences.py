"""What changed in a session between two log indexes: its read models at both, and the events of its timeline between."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from engram.errors import InvalidError, NotFoundError
from engram.events import Event, FactUnpinned, MessageDeleted, MessageEmbedded
from engram.projections.ledger import Decoded
from engram.projections.past import Log, PastReads, entries_at, events_of
from engram.projections.rows import FactRow, MessageRow, SessionRow

CHANGES_MAX: Final = 10_000
"""Entries of a session's timeline that a difference goes through: about two seconds, and some megabytes of an answer."""

PAGE_ENTRIES: Final = 512
PAGE_MESSAGES: Final = 200


class Reads(Protocol):
    """The part of the primary store that tells what counts."""

    async def timeline(self, session_key: int, *, after: int, limit: int) -> list[int]:
        """Return the log indexes of the entries that had an effect on a session, from behind `after`."""

    async def effective(self, entries: Sequence[Decoded]) -> list[list[bool]]:
        """Return for each event of each entry whether it counts."""


class Embedded(NamedTuple):
    """Vectors that a message got, and who made them."""

    message_id: str
    log_index: int
    model: str


class Difference(NamedTuple):
    """What changed. What is forgotten by now is told by its id alone, and by its last deletion only."""

    before: SessionRow | None
    """None: the session was not there yet."""
    after: SessionRow
    added: list[MessageRow]
    deleted: Mapping[str, int]
    """Message id -> log index of its deletion."""
    embedded: list[Embedded]
    pinned: list[FactRow]
    unpinned: Mapping[str, int]
    """Fact id -> log index at which it was unpinned."""


async def difference(
    reads: Reads, log: Log, before: PastReads, after: PastReads, *, session_id: str, tenant: str
) -> Difference:
    """Return what changed in a session behind the index of `before`, up to that of `after`.

    Raises:
        InvalidError: Too much did.
        NotFoundError: The session was not there at the later index, or is forgotten.
    """
    there = await after.session(session_id, tenant)
    if there is None:
        raise NotFoundError("session", session_id, as_of=after.applied_index)
    was = await before.session(session_id, tenant)
    embedded: list[Embedded] = []
    deleted: dict[str, int] = {}
    unpinned: dict[str, int] = {}
    async for index, event in _changes(reads, log, there.session_key, before.applied_index, after.applied_index):
        match event:
            case MessageEmbedded() if index <= after.applied_index:
                embedded.append(Embedded(event.message_id, index, event.model))
            case MessageDeleted():
                deleted[event.message_id] = index
            case FactUnpinned():
                unpinned[event.fact_id] = index
            case _:
                pass
    facts = await after.facts(there.session_key)
    return Difference(
        before=None if was is None else await before.whole_session(was),
        after=await after.whole_session(there),
        added=[row async for row in _added(after, there, -1 if was is None else was.next_ordinal - 1)],
        deleted=_up_to(after.applied_index, deleted),
        embedded=embedded,
        pinned=[fact for fact in facts if fact.log_index > before.applied_index],
        unpinned=_up_to(after.applied_index, unpinned),
    )


def _up_to(log_index: int, gone: Mapping[str, int]) -> dict[str, int]:
    """Return what was gone by then: the last mention is the deletion, earlier ones stand where something was erased."""
    return {identifier: index for identifier, index in gone.items() if index <= log_index}


async def _changes(
    reads: Reads, log: Log, session_key: int, after: int, up_to: int
) -> AsyncIterator[tuple[int, Event]]:
    """Yield the events that count behind `after`, also those behind `up_to`: a deletion may be told of again there."""
    seen = 0
    while places := await reads.timeline(session_key, after=after, limit=PAGE_ENTRIES):
        seen += sum(place <= up_to for place in places)
        if seen > CHANGES_MAX:
            raise InvalidError(
                f"from and to have more than {CHANGES_MAX} changes of the session between them, which is the limit: "
                "choose them closer together"
            )
        entries = [Decoded(entry.index, events_of(entry)) async for entry in entries_at(log, places)]
        held = [entry for entry in entries if entry.events]
        for entry, counts in zip(held, await reads.effective(held), strict=True):
            for event, counted in zip(entry.events, counts, strict=True):
                if counted:
                    yield entry.log_index, event
        after = places[-1]


async def _added(reads: PastReads, row: SessionRow, after: int) -> AsyncIterator[MessageRow]:
    while True:
        page = await reads.messages(row.session_key, after=after, limit=PAGE_MESSAGES)
        for message in page:
            yield message
        if len(page) < PAGE_MESSAGES:
            return
        after = page[-1].ordinal
