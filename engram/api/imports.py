"""POST /import: an export taken in line by line, while it is being sent."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Final, Literal

from aiohttp import hdrs, web
from msgspec import Meta, Struct

from engram.api.arrivals import Word
from engram.api.bodies import meet_expectation
from engram.api.calls import Call
from engram.api.erasure import wait_erased
from engram.api.errors import ImportStoppedError, MalformedError, MediaTypeError, SlowBodyError
from engram.api.intake import CHARACTERS, LINES, REFUSALS_MAX, Intake, Line, Tally
from engram.api.parameters import Choice, Integer, Parameter
from engram.api.replies import Reply, say
from engram.api.route import Route
from engram.api.schemas import INDEX_MAX, Id, Index
from engram.errors import CorruptionError, InvalidError, NotReadyError
from engram.moving.export_format import ExportReader

EXPORT_TYPE: Final = "application/x-ndjson"

SILENCE_S: Final = 60.0
"""A client that sends nothing for so long is gone."""


class ImportRefusal(Struct, kw_only=True):
    """A line that was left out."""

    line: Annotated[int, Meta(ge=1)]
    session_id: Id
    code: Literal["session_conflict", "message_conflict", "message_deleted", "fact_conflict"]
    detail: str


class Imported(Struct, kw_only=True):
    """What became of the lines of an export. Events are counted, but for those of refused lines."""

    last_line: Annotated[int, Meta(description="all lines up to this one were taken in or refused")]
    entries: Annotated[int, Meta(ge=0, description="lines with events")]
    recorded: Annotated[int, Meta(ge=0, description="events that are new here")]
    there: Annotated[int, Meta(ge=0, description="events that counted here already")]
    forgotten: Annotated[int, Meta(ge=0, description="events of messages that were deleted here")]
    left_out: Annotated[
        int, Meta(ge=0, description="vectors of another model, a worker's failures, deletions of what is not here")
    ]
    unwanted: Annotated[int, Meta(ge=0, description="deletions, with `deletions=skip`")]
    refused: Annotated[int, Meta(ge=0, description="lines left out, with `on_conflict=skip`")]
    refusals: Annotated[list[ImportRefusal], Meta(description=f"the first {REFUSALS_MAX} of them")]
    index: Annotated[Index | None, Meta(description="the last log entry that was made; null: none was")]


def import_route(*, problems: Sequence[str]) -> Route:
    """Return the route; `problems` are those that every write has."""
    return Route(
        method="POST",
        path="/import",
        handler=import_events,
        name="import_events",
        tag="service",
        request_type=EXPORT_TYPE,
        answer=Imported,
        parameters=[
            Parameter(
                "on_conflict",
                Choice(("stop", "skip")),
                "What to do with a line when something else is here under the same id: stop there, or leave it out.",
                default="stop",
            ),
            Parameter(
                "deletions",
                Choice(("apply", "skip")),
                "Whether what was deleted there, and is here, is deleted here.",
                default="apply",
            ),
            Parameter(
                "first_line",
                Integer(2, INDEX_MAX),
                "The number that the line behind the head has in errors: for one part of a longer export.",
                default=2,
            ),
        ],
        problems=[
            "expectation_failed", "fact_conflict", "invalid_id", "malformed_request", "message_conflict",
            "message_deleted", "request_timeout", "session_conflict", "too_large", "unsupported_media_type", *problems,
        ],
    )  # fmt: skip


async def import_events(call: Call) -> Reply:
    """Take in an export of this engram or another. What is here already changes nothing."""
    services = call.services
    _check_media_type(call.request)
    if services.intake is None:
        raise NotReadyError("this node takes no imports")
    with services.intake.admit():
        arriving = _Arriving(call, services.intake)
        tally = await arriving.take_all()
        if tally.deleted_index:
            await wait_erased(services, tally.deleted_index)
    words = tally.words
    imported = Imported(
        last_line=arriving.last_line,
        entries=tally.entries,
        recorded=words[Word.NEW],
        there=words[Word.THERE],
        forgotten=words[Word.FORGOTTEN],
        left_out=words[Word.FOREIGN],
        unwanted=words[Word.UNWANTED],
        refused=tally.refused,
        refusals=[
            ImportRefusal(line=each.line, session_id=each.session_id, code=each.code, detail=each.detail)  # type: ignore[arg-type]
            for each in tally.refusals
        ],
        index=tally.log_index or None,
    )
    return say(imported, log_index=tally.log_index or None)


class _Arriving:
    """The lines of one request, on their way."""

    def __init__(self, call: Call, intake: Intake) -> None:
        self._call = call
        self._intake = intake
        self._reader = ExportReader(first_line=call.whole("first_line"))
        self._tally = Tally()
        self._waiting: list[Line] = []
        self._characters = 0

    @property
    def last_line(self) -> int:
        """The last line that was read."""
        return self._reader.line - 1

    async def take_all(self) -> Tally:
        """Take in every line."""
        async with aclosing(_parts(self._call.request)) as parts:
            async for part in parts:
                await self._feed(part)
                if self._call.services.streams.is_ending:
                    await self._flush()
                    raise ImportStoppedError(NotReadyError("this node is about to stop"), self._reader.line)
        try:
            self._reader.finish()
        except CorruptionError as error:
            await self._flush()
            raise InvalidError(f"{error}; what stands before it is imported") from None
        await self._flush()
        return self._tally

    async def _feed(self, part: bytes) -> None:
        try:
            for entry in self._reader.feed(part):
                self._waiting.append(Line(self._reader.line - 1, entry.events))
                self._characters += sum(_size(event) for event in entry.events)
                if len(self._waiting) >= LINES or self._characters >= CHARACTERS:
                    await self._flush()
        except CorruptionError as error:
            await self._flush()
            raise InvalidError(f"{error}; what stands before it is imported") from None

    async def _flush(self) -> None:
        if self._waiting:
            lines, self._waiting, self._characters = self._waiting, [], 0
            await self._intake.take(
                lines,
                self._tally,
                tenant=self._call.tenant,
                deletions=self._call.text("deletions") == "apply",
                skips_conflicts=self._call.text("on_conflict") == "skip",
            )


def _size(event: object) -> int:
    chunks = getattr(event, "chunks", ())
    return len(getattr(event, "text", "")) + sum(len(chunk.vector) for chunk in chunks)


async def _parts(request: web.BaseRequest) -> AsyncGenerator[bytes]:
    """Yield the body as it comes.

    Raises:
        MalformedError: It is not as long as it was said to be.
        SlowBodyError: The client sends nothing more.
    """
    if hdrs.EXPECT in request.headers:
        await meet_expectation(request)
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                part = await request.content.readany()
        except TimeoutError:
            raise SlowBodyError(f"nothing came for {SILENCE_S:g} s; what came before is imported") from None
        except (web.RequestPayloadError, web.PayloadAccessError):
            raise MalformedError("the body is not as long as its headers say", code="malformed_request") from None
        if not part:
            return
        yield part


def _check_media_type(request: web.BaseRequest) -> None:
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.lower() != "identity":
        raise MediaTypeError(f"Content-Encoding is {encoding[:64]!r}; bodies are taken as they are")
    said = request.headers.get(hdrs.CONTENT_TYPE)
    if said is None or said.partition(";")[0].strip().lower() != EXPORT_TYPE:
        raise MediaTypeError(
            f"Content-Type is {'missing' if said is None else repr(said[:64])}; it takes {EXPORT_TYPE}"
        )
