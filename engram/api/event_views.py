"""Events of the log as they go over the wire."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, cast, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from engram.api.schemas import Count, Id, Index
from engram.api.times import format_time
from engram.events import Chunk, Event, MessageAppended, MessageEmbedded, Role, Scalar, Visibility, Work

EventType = Literal[
    "SessionCreated",
    "MessageAppended",
    "MessageEmbedded",
    "MessageDeleted",
    "FactPinned",
    "FactUnpinned",
    "SessionDeleted",
    "VisibilityChanged",
    "WorkAbandoned",
]


class ChunkView(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The part of a text that a vector stands for: the characters from `start` to before `end`."""

    start: Count
    end: Count
    vector: (
        Annotated[bytes, Meta(description="with include=vectors: float16, little-endian, in Base64")] | UnsetType
    ) = UNSET


class EventView(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Something that happened. Which fields there are is a matter of its type."""

    index: Annotated[Index, Meta(description="log index of its entry")]
    position: Annotated[int, Meta(ge=0, description="its place among the events of the entry")]
    type: EventType
    at: str
    session_id: Id
    refused: Annotated[bool, Meta(description="with include=refused: it changed nothing")] = False
    agent_id: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    message_id: str | UnsetType = UNSET
    fact_id: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    name: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    tokens: Count | UnsetType = UNSET
    occurred_at: Annotated[str, Meta(description="the client's own time for a message")] | UnsetType = UNSET
    metadata: Mapping[str, Scalar] | UnsetType = UNSET
    source_index: Annotated[int, Meta(ge=0, description="the message's entry; 0: this one")] | UnsetType = UNSET
    model: str | UnsetType = UNSET
    dimension: Count | UnsetType = UNSET
    chunks: Sequence[ChunkView] | UnsetType = UNSET
    visibility: Visibility | UnsetType = UNSET
    work: Work | UnsetType = UNSET
    error: str | UnsetType = UNSET
    attempts: Count | UnsetType = UNSET


class EventHistory(Struct, kw_only=True):
    """A page of a session's events, in log order."""

    events: list[EventView]
    next_cursor: str | None


class EventPage(Struct, kw_only=True):
    """A page of the log as it was at `index`. Where `next_cursor` is null, the next events are behind `index`."""

    events: list[EventView]
    next_cursor: str | None
    index: Index


class Place(NamedTuple):
    """Where an event stands: the entry, the place in it, and how many events the entry has."""

    log_index: int
    position: int
    total: int


class Happened(NamedTuple):
    """An event at its place, and whether it counts."""

    place: Place
    event: Event
    is_effective: bool


_SAME: Sequence[str] = tuple(
    name
    for name in EventView.__struct_fields__
    if name not in {"index", "position", "type", "at", "refused", "occurred_at", "chunks"}
)
"""Fields that are shown as the event has them."""

_encoder = msgspec.json.Encoder()


def view_event(happened: Happened, *, with_vectors: bool) -> EventView:
    """Return an event as clients see it; what it leaves open is left out."""
    place, event, is_effective = happened
    fields = {
        name: value for name in _FIELDS[type(event)] if (value := getattr(event, name)) is not None and value != {}
    }
    if isinstance(event, MessageAppended) and event.occurred_at_ms is not None:
        fields["occurred_at"] = format_time(event.occurred_at_ms)
    if isinstance(event, MessageEmbedded):
        fields["chunks"] = [_view_chunk(chunk, with_vector=with_vectors) for chunk in event.chunks]
    return EventView(
        index=place.log_index,
        position=place.position,
        type=cast("EventType", type(event).__name__),
        at=format_time(event.at_ms),
        refused=not is_effective,
        **fields,
    )


def write_event(happened: Happened, *, with_vectors: bool) -> bytes:
    """Return an event as a message of a stream of server-sent events."""
    view = view_event(happened, with_vectors=with_vectors)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        write_event_id(happened.place).encode(),
        view.type.encode(),
        _encoder.encode(view),
    )


def write_event_id(place: Place) -> str:
    """Return the id that a client which has seen everything up to this event goes on with.

    `42`: all of entry 42. `42.2/5`: the first 2 of its 5 events. The 5 tells whether the entry is still as it was.
    """
    seen = place.position + 1
    return str(place.log_index) if seen == place.total else f"{place.log_index}.{seen}/{place.total}"


def _view_chunk(chunk: Chunk, *, with_vector: bool) -> ChunkView:
    return ChunkView(start=chunk.start, end=chunk.end, vector=chunk.vector if with_vector else UNSET)


_FIELDS: Mapping[type[Struct], Sequence[str]] = {
    kind: [name for name in _SAME if name in kind.__struct_fields__] for kind in get_args(Event)
}
