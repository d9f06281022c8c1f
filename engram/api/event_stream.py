"""The log as a stream of server-sent events: what happened, and then what happens, for as long as the client stays.

A stream holds one batch of the log at a time and reads the next when the client has taken it. So a slow client waits for
itself alone, and whoever comes back with the id of the last event that it saw misses nothing and gets nothing twice.
"""

import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

from engram.api.calls import Call
from engram.api.event_views import Happened, write_event
from engram.api.events import Wanted, read_batch, wait_clean
from engram.api.open_streams import ENDLESS
from engram.api.parameters import shown
from engram.api.replies import Stream
from engram.api.services import Services
from engram.errors import InvalidError, NotReadyError

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = "Last-Event-ID"

BATCHES_A_SIGN = 64
"""Batches in which nothing was wanted before the client is told how far the stream is all the same."""

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_BEGINNING = b"retry: 1000\n\n"
"""A browser that loses the connection comes back after a second."""

_event_id = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,7})/([0-9]{1,7}))?", re.ASCII)


class Seen(NamedTuple):
    """How far a client has read: all of the log `up_to`, and `events` of the `total` of the entry behind it."""

    up_to: int
    events: int = 0
    total: int = 0

    def includes(self, happened: Happened) -> bool:
        """Return whether the client has seen an event behind `up_to`.

        An entry that lost events since, because something in it was forgotten, is sent again as a whole.
        """
        place = happened.place
        return place.log_index == self.up_to + 1 and place.total == self.total and place.position < self.events


def wants_stream(call: Call) -> bool:
    """Return whether the client asks for a stream."""
    return MEDIA_TYPE in call.request.headers.get("Accept", "")


def stream_events(call: Call, wanted: Wanted) -> Stream:
    """Return the stream that the call asks for.

    Raises:
        InvalidError: `Last-Event-ID` is no id that a stream gave out, or there is a cursor.
    """
    if call.text("cursor") is not None:
        raise InvalidError(f"cursor is for pages; a stream goes on behind after or {LAST_EVENT_ID}")
    said = call.request.headers.get(LAST_EVENT_ID)
    seen = Seen(call.whole("after")) if said is None else read_event_id(said)
    return Stream(_stream(call, wanted, seen), MEDIA_TYPE, _HEADERS)


def read_event_id(text: str) -> Seen:
    """Return how far a client has read whose last event had that id.

    Raises:
        InvalidError: No event has such an id.
    """
    match = _event_id.fullmatch(text)
    if match is None:
        raise InvalidError(
            f"{LAST_EVENT_ID} is {shown(text)}; it takes the id of an event of a stream, such as '42' or '42.2/5'"
        )
    index, events, total = (int(part or 0) for part in match.groups())
    return Seen(index) if not total else Seen(index - 1, events, total)


async def _stream(call: Call, wanted: Wanted, seen: Seen) -> AsyncGenerator[bytes]:
    services = call.services
    with services.streams.admit():
        call.request[ENDLESS] = True
        yield _BEGINNING
        quiet, reached = 0, seen.up_to
        while not _is_over(call):
            if services.reads.applied_index <= reached:
                quiet += await _wait_for_more(services, reached)
                if quiet >= services.streams.looks_a_heartbeat:
                    quiet = 0
                    yield _sign(reached)
                continue
            part, reached = await _read(services, wanted, reached, seen)
            quiet = 0
            yield part


async def _read(services: Services, wanted: Wanted, reached: int, seen: Seen) -> tuple[bytes, int]:
    """Return the next events behind the index `reached`, and the index up to which there is nothing else."""
    up_to = services.reads.applied_index
    await wait_clean(services)
    for _ in range(BATCHES_A_SIGN):
        batch = await read_batch(services, wanted, reached, up_to)
        reached = batch.reached
        part = b"".join(
            write_event(each, with_vectors=wanted.with_vectors) for each in batch.events if not seen.includes(each)
        )
        if part:
            return part, reached
        if reached >= up_to:
            return b"", reached
    return _sign(reached), reached


def _sign(reached: int) -> bytes:
    """Return a sign of life. It is no event, but who comes back later need not be looked up what was not wanted."""
    return b"id: %d\n: nothing else up to here\n\n" % reached


async def _wait_for_more(services: Services, reached: int) -> int:
    """Wait for an entry behind the index `reached`, for a look at most; return 1 when there was none."""
    try:
        await services.applied.wait_applied(reached + 1, services.streams.look_s)
    except NotReadyError:
        return 1
    return 0


def _is_over(call: Call) -> bool:
    transport = call.request.transport
    is_gone = transport is None or transport.is_closing()
    return is_gone or call.services.streams.is_ending
