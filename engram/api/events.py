"""The log as a reader of history sees it: events at their places, without what was erased.

An entry that was erased gives nothing, and neither does one whose erasure is due: who reads waits until the log is clean
of all that is forgotten at the index that is read at. What the ledger refused is left out unless it is asked for.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from engram.api.calls import Call
from engram.api.cursors import read_cursor, write_cursor
from engram.api.event_views import EventHistory, EventPage, Happened, Place, view_event
from engram.api.replies import Reply, say
from engram.api.services import Services
from engram.api.sessions import find_session
from engram.errors import NotReadyError
from engram.events import decode
from engram.projections.entries import LogEntry
from engram.projections.ledger import Decoded
from engram.projections.slots import ENTRY_BITS, first_slot, log_index_of
from engram.projections.sqlite_store import NORMAL

BATCH_ENTRIES = 128
"""Entries read at a time: a hop into a thread for some 250 events, and one that the others on the loop do not notice."""

SCAN_ENTRIES_MAX = 8_192
"""A page looks through no more of the log, however few events it finds: a second or two, and then the next page."""

GAP_ENTRIES_MAX = 8
"""Entries of other sessions that are read along with those of a session, rather than with a read for each."""

ERASURES_MAX = 256
VECTORS = "vectors"
REFUSED = "refused"


class Wanted(NamedTuple):
    """Which events, and how much of them."""

    tenant: str
    session_id: str | None
    with_refused: bool
    with_vectors: bool


class Batch(NamedTuple):
    """What some entries hold, and the last one of them."""

    reached: int
    events: Sequence[Happened]


async def show_history(call: Call) -> Reply:
    """List the events of a session that counted, in log order."""
    await settle(call)
    session = await find_session(call, call.segments[0])
    wanted = wanted_of(call, session.session_id)
    of = ("history", call.tenant, session.session_key, wanted.with_refused, wanted.with_vectors)
    position = _position(call, of, first_slot(session.session_key))
    limit = call.whole("limit")
    found: list[Happened] = []
    async for batch in _history(call.services, session.session_key, log_index_of(position) - 1, wanted):
        found += _behind(batch.events, position)
        if len(found) > limit:
            break
    events, more = _page(found, limit, of)
    return say(
        EventHistory(events=[view_event(each, with_vectors=wanted.with_vectors) for each in events], next_cursor=more)
    )


async def page_of_events(call: Call, wanted: Wanted) -> Reply:
    """Return a page of the whole log's events, in log order."""
    await settle(call)
    after, limit, up_to = call.whole("after"), call.whole("limit"), call.read_index
    of = ("events", call.tenant, after, wanted.session_id, wanted.with_refused, wanted.with_vectors)
    position = _position(call, of, first_slot(after + 1))
    reached = log_index_of(position) - 1
    found: list[Happened] = []
    stop = min(up_to, reached + SCAN_ENTRIES_MAX)
    while reached < stop and len(found) <= limit:
        batch = await read_batch(call.services, wanted, reached, up_to)
        found += _behind(batch.events, position)
        reached = batch.reached
    events, more = _page(found, limit, of)
    if more is None and reached < up_to:
        more = write_cursor(first_slot(reached + 1), of)
    return say(
        EventPage(
            events=[view_event(each, with_vectors=wanted.with_vectors) for each in events],
            next_cursor=more,
            index=max(after, up_to),
        )
    )


async def settle(call: Call) -> None:
    """Fix the index that is read at, and wait until the log is clean of what is forgotten there.

    Raises:
        NotReadyError: It was not, in time.
    """
    call.read_index = call.services.reads.applied_index
    await wait_clean(call.services)


async def wait_clean(services: Services) -> None:
    """Return when the log is clean of all that is forgotten now.

    Raises:
        NotReadyError: It was not, in time.
    """
    erasures = await services.reads.erasures(limit=ERASURES_MAX, log_is_clean=False)
    try:
        async with asyncio.timeout(services.wait_s):
            for erasure in erasures:
                await services.erased.wait_erased(erasure.log_index)
    except TimeoutError:
        raise NotReadyError(
            f"what was deleted up to index {erasures[-1].log_index} is not gone from the log within "
            f"{services.wait_s:g} s; until it is, nothing of the log is shown"
        ) from None


def wanted_of(call: Call, session_id: str | None) -> Wanted:
    """Return what the query asks for."""
    include = (call.text("include") or "").split(",")
    return Wanted(call.tenant, session_id, REFUSED in include, VECTORS in include)


async def read_batch(services: Services, wanted: Wanted, after: int, up_to: int) -> Batch:
    """Return what is wanted of some entries behind the index `after`; of none behind `up_to`, which is applied."""
    entries = await services.log.read(after, min(BATCH_ENTRIES, up_to - after))
    held = [entry for entry in entries if entry.index <= up_to]
    return Batch(held[-1].index if held else up_to, await _happened(services, wanted, held))


async def _history(services: Services, session_key: int, after: int, wanted: Wanted) -> AsyncIterator[Batch]:
    look = services.reads.named if wanted.with_refused else services.reads.timeline
    while indexes := await look(session_key, after=after, limit=BATCH_ENTRIES):
        for run in _runs(indexes):
            reached, inside = run[0] - 1, frozenset(run)
            while reached < run[-1]:
                entries = await services.log.read(reached, run[-1] - reached)
                held = [entry for entry in entries if entry.index in inside]
                reached = entries[-1].index if entries else run[-1]
                yield Batch(reached, await _happened(services, wanted, held))
        after = indexes[-1]


def _runs(indexes: Sequence[int]) -> list[list[int]]:
    """Cut ascending indexes where the gaps are too wide to be read along."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index - runs[-1][-1] <= GAP_ENTRIES_MAX:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


async def _happened(services: Services, wanted: Wanted, entries: Sequence[LogEntry]) -> list[Happened]:
    named = None if wanted.session_id is None else wanted.session_id.encode()
    decoded = [
        Decoded(entry.index, decode(entry.data))
        for entry in entries
        if entry.kind == NORMAL and entry.data and (named is None or named in entry.data)
    ]
    decoded = [entry for entry in decoded if _is_wanted(entry, wanted)]
    if not decoded:
        return []
    return [
        Happened(Place(entry.log_index, position, len(entry.events)), event, counts)
        for entry, verdicts in zip(decoded, await services.reads.effective(decoded), strict=True)
        for position, (event, counts) in enumerate(zip(entry.events, verdicts, strict=True))
        if counts or wanted.with_refused
    ]


def _is_wanted(entry: Decoded, wanted: Wanted) -> bool:
    first = entry.events[0]
    return first.tenant == wanted.tenant and wanted.session_id in {None, first.session_id}


def _position(call: Call, of: Sequence[object], beginning: int) -> int:
    cursor = call.text("cursor")
    return beginning if cursor is None else read_cursor(cursor, of)


def _slot(place: Place) -> int:
    return (place.log_index << ENTRY_BITS) + place.position


def _behind(events: Sequence[Happened], position: int) -> list[Happened]:
    return [each for each in events if _slot(each.place) >= position]


def _page(found: Sequence[Happened], limit: int, of: Sequence[object]) -> tuple[Sequence[Happened], str | None]:
    """Return the events of a page, and the cursor of the next one, which begins with the first that is left."""
    more = write_cursor(_slot(found[limit].place), of) if len(found) > limit else None
    return found[:limit], more
