"""Taking in the events of an export, while the node serves: everything goes through the recorder, as any write does.

A few lines at a time are sorted against what is here, and those that are new recorded, in their order, before the next
are read. So memory is bounded, a client that sends faster than the log takes is slowed down by its own connection, and
whatever breaks off in between is found by the next attempt.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from engram.api.arrivals import Sorted, Word, needs_earlier, sort
from engram.api.errors import ImportStoppedError
from engram.api.ingest import Ingest, Prepared
from engram.clock import Clock
from engram.commands import Vectors, check_event
from engram.database import Connection
from engram.errors import (
    ConflictError,
    EngramError,
    FatalError,
    InvalidError,
    NotLeaderError,
    OverloadedError,
    RequestError,
)
from engram.events import Event, FactPinned, MessageAppended, MessageDeleted, MessageEmbedded, SessionDeleted
from engram.metrics import Metrics
from engram.projections.lance_rows import Space
from engram.projections.ledger import Decoded, Needs, fold, needs
from engram.projections.lives import View
from engram.projections.sqlite_load import load
from engram.projections.sqlite_reads import snapshot
from engram.projections.verdicts import Outcome, Verdict
from engram.recorder import Receipt, Recorder

LINES: Final = 128
"""Sorted in one question, and recorded with one flush or two."""

CHARACTERS: Final = 1024 * 1024
"""Of texts and vectors, in lines that are held at a time; one line may have more."""

BUSY_S: Final = 30.0
"""How long an import waits for a log that takes no more."""

BUSY_FIRST_S: Final = 0.05

IMPORTS_MAX: Final = 2
"""At a time: each holds some MiB, and takes the room of other writes."""

REFUSALS_MAX: Final = 100
"""Told one by one; all of them are counted."""

_KINDS: Final[Mapping[str, str]] = {"MessageAppended": "message", "FactPinned": "fact", "SessionCreated": "session"}

Answer = TypeVar("Answer")


class Reads(Protocol):
    """The part of the primary store that says what is here."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question."""


class Line(NamedTuple):
    """An entry of an export, and the number of its line."""

    number: int
    events: Sequence[Event]


class Refusal(NamedTuple):
    """A line that was left out because something else is here under the same id."""

    line: int
    session_id: str
    code: str
    detail: str


class Tally:
    """What became of the lines so far."""

    def __init__(self) -> None:
        self.entries = 0
        self.words: Counter[Word] = Counter()
        """Of events, but for those of refused lines."""
        self.refused = 0
        self.refusals: list[Refusal] = []
        self.log_index = 0
        """Of the last entry that was recorded; 0: nothing was."""
        self.deleted_index = 0
        """Of the last entry that forgets something."""

    def refuse(self, refusal: Refusal) -> None:
        """Count a line that was left out."""
        self.refused += 1
        if len(self.refusals) < REFUSALS_MAX:
            self.refusals.append(refusal)


class _Planned(NamedTuple):
    line: Line
    sorted: Sorted
    refusal: Refusal | None


class Intake:
    """Takes lines in.

    Args:
        recorder: Records them.
        reads: Says what is here.
        ingest: Counts tokens, and makes vectors where the model runs in this process.
        clock: Says what is later than now.
        metrics: Counts messages.
        space: The vectors that are taken as they come; others are made anew.
    """

    def __init__(
        self, recorder: Recorder, reads: Reads, ingest: Ingest, clock: Clock, metrics: Metrics, space: Space
    ) -> None:
        self._recorder = recorder
        self._reads = reads
        self._ingest = ingest
        self._clock = clock
        self._metrics = metrics
        self._space = space
        self._imports = 0

    def use(self, space: Space) -> None:
        """Take vectors of `space` as they come from now on."""
        self._space = space

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one more import while this is entered.

        Raises:
            OverloadedError: There are as many as there may be.
        """
        if self._imports >= IMPORTS_MAX:
            raise OverloadedError(f"{IMPORTS_MAX} imports are under way, which is the limit: try again later")
        self._imports += 1
        try:
            yield
        finally:
            self._imports -= 1

    async def take(
        self, lines: Sequence[Line], tally: Tally, *, tenant: str, deletions: bool, skips_conflicts: bool
    ) -> None:
        """Record what is new in `lines`, all of them in `tally` afterwards.

        Raises:
            InvalidError, ConflictError: A line cannot be taken; those before it are recorded.
            ImportStoppedError: The log takes no more now, or the outcome is unknown; it names the line.
            NotLeaderError: Another node leads by now.
        """
        waiting, waited_s, wait_s = list(lines), 0.0, BUSY_FIRST_S
        while waiting:
            planned, stopped = await self._plan(waiting, tenant, deletions=deletions, skips_conflicts=skips_conflicts)
            done, error = await self._record(planned, tally, skips_conflicts=skips_conflicts)
            waiting = waiting[done:]
            if isinstance(error, OverloadedError) and waited_s < BUSY_S:
                await asyncio.sleep(wait_s)
                waited_s, wait_s = waited_s + wait_s, min(1.0, 2 * wait_s)
            elif error is not None:
                raise _at_line(error, waiting[0].number)
            elif stopped is not None:
                raise stopped

    async def _plan(
        self, lines: Sequence[Line], tenant: str, *, deletions: bool, skips_conflicts: bool
    ) -> tuple[list[_Planned], EngramError | None]:
        """Return what is to be done with the first of `lines`, and what is wrong with the next."""
        needed = needs(Decoded(0, line.events) for line in lines)
        view = await self._reads.ask(partial(_view, needed=needed))
        index = self._reads.applied_index
        planned: list[_Planned] = []
        for line in lines:
            life = view.find(line.events[0])
            if needs_earlier(life, line.events):
                break
            try:
                self._check(line, tenant)
            except RequestError as error:
                return planned, _at_line(error, line.number)
            arrived = sort(life, line.events, self._space, deletions=deletions)
            index += 1
            verdicts = fold(view, [Decoded(index, arrived.events)])[0]
            refusal = _refusal(line, arrived.events, verdicts)
            if refusal is not None and not skips_conflicts:
                return planned, ConflictError(refusal.detail, code=refusal.code)
            planned.append(_Planned(line, arrived, refusal))
        return planned, None

    def _check(self, line: Line, tenant: str) -> None:
        for event in line.events:
            if event.tenant != tenant:
                raise InvalidError(f"the tenant is {event.tenant!r}; what is imported here is of {tenant!r}")
            check_event(event, now_ms=self._clock.now_ms())

    async def _record(
        self, planned: Sequence[_Planned], tally: Tally, *, skips_conflicts: bool
    ) -> tuple[int, EngramError | None]:
        """Return how many of `planned` are done, and why no more are."""
        news = [plan for plan in planned if plan.sorted.events and plan.refusal is None]
        entries = await self._complete(news)
        recorded = await self._recorder.record_in_order(entries)
        receipts = dict(zip((plan.line.number for plan in news), recorded.receipts, strict=False))
        written = dict(zip((plan.line.number for plan in news), entries, strict=True))
        for done, plan in enumerate(planned):
            number = plan.line.number
            refusal = plan.refusal
            if number in written:
                if number not in receipts:
                    return done, recorded.error
                self._count(written[number], receipts[number], tally)
                refusal = _refusal(plan.line, written[number], receipts[number].verdicts)
            if refusal is not None and not skips_conflicts:  # of what was written since it was looked for
                return done, ConflictError(refusal.detail, code=refusal.code)
            tally.entries += 1
            if refusal is None:
                tally.words.update(plan.sorted.words)
            else:
                tally.refuse(refusal)
        return len(planned), None

    def _count(self, events: Sequence[Event], receipt: Receipt, tally: Tally) -> None:
        tally.log_index = receipt.log_index
        for event, verdict in zip(events, receipt.verdicts, strict=True):
            if isinstance(event, MessageAppended) and verdict.outcome is Outcome.ACCEPTED:
                self._metrics.messages_added(event.role, 1)
            if isinstance(event, MessageDeleted | SessionDeleted):
                tally.deleted_index = receipt.log_index

    async def _complete(self, news: Sequence[_Planned]) -> list[list[Event]]:
        """Return the events of each entry with tokens as they are counted here, and with the vectors that are lacking."""
        lacking = [event for plan in news for event in _without_vectors(plan.sorted.events)]
        prepared = await self._ingest.prepare([event.text for event in lacking]) if lacking else Prepared((), ())
        vectors = {id(event): made for event, made in zip(lacking, prepared.vectors, strict=True)}
        completed: list[list[Event]] = []
        for plan in news:
            events: list[Event] = []
            for event in plan.sorted.events:
                if not isinstance(event, MessageAppended | FactPinned):
                    events.append(event)
                    continue
                events.append(msgspec.structs.replace(event, tokens=await self._ingest.count_tokens(event.text)))
                made = vectors.get(id(event))
                if made is not None and isinstance(event, MessageAppended):
                    events.append(_embedded(event, made))
            completed.append(events)
        return completed


def _without_vectors(events: Sequence[Event]) -> list[MessageAppended]:
    embedded = {event.message_id for event in events if isinstance(event, MessageEmbedded)}
    return [event for event in events if isinstance(event, MessageAppended) and event.message_id not in embedded]


def _view(connection: Connection, needed: Mapping[tuple[str, str], Needs]) -> View:
    with snapshot(connection):
        return load(connection, needed)


def _embedded(message: MessageAppended, vectors: Vectors) -> MessageEmbedded:
    return MessageEmbedded(
        session_id=message.session_id,
        at_ms=message.at_ms,
        tenant=message.tenant,
        message_id=message.message_id,
        source_index=0,
        model=vectors.model,
        dimension=vectors.dimension,
        chunks=vectors.chunks,
    )


def _refusal(line: Line, events: Sequence[Event], verdicts: Sequence[Verdict]) -> Refusal | None:
    for event, verdict in zip(events, verdicts, strict=True):
        kind = _KINDS.get(type(event).__name__)
        if kind is None or verdict.outcome not in {Outcome.CONFLICT, Outcome.DELETED}:
            continue
        identifier = {
            "message": getattr(event, "message_id", ""),
            "fact": getattr(event, "fact_id", ""),
            "session": event.session_id,
        }[kind]
        what = f"line {line.number}: {kind} {identifier!r} of session {event.session_id!r}"
        if verdict.outcome is Outcome.DELETED:
            return Refusal(line.number, event.session_id, "message_deleted", f"{what} was deleted here")
        detail = f"{what} is here with other content"
        if kind == "session":
            detail = f"line {line.number}: session {identifier!r} is here with another agent, user or metadata"
        return Refusal(line.number, event.session_id, f"{kind}_conflict", detail)
    return None


def _at_line(error: EngramError, line: int) -> EngramError:
    if isinstance(error, NotLeaderError | FatalError | ConflictError):
        return error
    if isinstance(error, RequestError):
        return InvalidError(f"line {line}: {error}", code=error.code)
    return ImportStoppedError(error, line)
