"""The routes of history: what happened in a session, and in the whole log."""

from collections.abc import Sequence

from engram.api import event_stream, events
from engram.api.calls import Call
from engram.api.event_views import EventHistory, EventPage
from engram.api.parameters import Choices, Identifier, Integer, Parameter
from engram.api.replies import Answer
from engram.api.route import Route
from engram.api.schemas import INDEX_MAX

INCLUDE = Parameter(
    "include",
    Choices((events.VECTORS, events.REFUSED)),
    "`vectors`: the vectors themselves. `refused`: also what changed nothing, so marked.",
)


async def list_events(call: Call) -> Answer:
    """Return a page of the whole log's events in log order; with `Accept: text/event-stream` all, and what follows."""
    wanted = events.wanted_of(call, call.text("session_id"))
    if event_stream.wants_stream(call):
        return event_stream.stream_events(call, wanted)
    return await events.page_of_events(call, wanted)


def event_routes(*, page: Sequence[Parameter], read: Sequence[Parameter], problems: Sequence[str]) -> Sequence[Route]:
    """Return the routes; `page` and `read` are the parameters that every list and every read has."""
    return (
        Route(
            method="GET",
            path="/sessions/{session_id}/history",
            handler=events.show_history,
            name="get_history",
            tag="sessions",
            answer=EventHistory,
            parameters=[INCLUDE, *page, *read],
            problems=["invalid_cursor", "session_not_found", *problems],
        ),
        Route(
            method="GET",
            path="/events",
            handler=list_events,
            name="list_events",
            tag="events",
            answer=EventPage,
            stream_type=event_stream.MEDIA_TYPE,
            request_headers=[event_stream.LAST_EVENT_ID],
            parameters=[
                Parameter("after", Integer(0, INDEX_MAX - 1), "Events behind this log index.", default=0),
                Parameter("session_id", Identifier(), "Only events of this session."),
                INCLUDE,
                *page,
                *read,
            ],
            problems=["invalid_cursor", "overloaded", *problems],
        ),
    )
