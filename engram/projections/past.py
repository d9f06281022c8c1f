"""The past: what reads saw when an earlier log index was applied, as far as it has not been forgotten since.

Nothing is folded for it. The rows of the read models stand in log order, so the past is a cut through what is there now
(`sqlite_past`); only the vectors that a message had before it got others are looked up in the log. What was deleted
since is gone from the past too, from the moment that it is gone from the present.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from engram.database import Connection
from engram.events import TENANT_DEFAULT, Event, MessageEmbedded, Visibility, WorkAbandoned, decode
from engram.projections import sqlite_past
from engram.projections.entries import LogEntry
from engram.projections.rows import EmbeddingStatus, FactRow, MessageRow, SessionRow, VectorRow
from engram.projections.sqlite_past import Doubt
from engram.projections.sqlite_reads import Conversation

NORMAL: Final = 0
"""The kind of a log entry that holds events."""

GAP_ENTRIES_MAX: Final = 8
"""Entries that are read along between two that are wanted: cheaper than another hop to the log's thread."""

READ_ENTRIES_MAX: Final = 256
"""Entries that are read at a time."""

TIMELINE_MAX: Final = 1_024
"""Places of a session's timeline that are taken at a time."""

Answer = TypeVar("Answer")


class Log(Protocol):
    """The part of the replicated log that is looked at."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return the first `limit` committed entries behind the index `after`, or fewer, but one if there is one."""


class Reads(Protocol):
    """The part of the primary store that the past is read from."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question."""

    async def timeline(self, session_key: int, *, after: int, limit: int) -> list[int]:
        """Return the log indexes of the entries that had an effect on a session, from behind `after`."""


class _Told(msgspec.Struct):
    """What an event says of its session as a whole. The rest, vectors above all, is skipped."""

    at_ms: int
    visibility: Visibility | None = None
    """Only one kind of event has it."""


_told = msgspec.msgpack.Decoder(list[_Told])


class Embedding(NamedTuple):
    """How the embedding of a message stood, and the vectors that it had in place of those it has now."""

    status: EmbeddingStatus
    model: str | None
    vectors: Sequence[VectorRow]


class Cut(NamedTuple):
    """What a session's recall index must be told to answer as it did."""

    next_ordinal: int
    """Messages from here on were not there."""
    hidden: Sequence[int]
    """Ordinals of messages whose vectors came later."""
    vectors: Sequence[VectorRow]
    """Those that such messages had before, in order of ordinals."""
    models: frozenset[str]
    """Who made `vectors`."""


class PastReads:
    """What the primary store's reads saw at one log index. Costs nothing to make."""

    def __init__(self, reads: Reads, log: Log, log_index: int) -> None:
        assert log_index <= reads.applied_index, "what is not applied yet is no past"
        self._reads = reads
        self._log = log
        self._index = log_index

    @property
    def applied_index(self) -> int:
        """The log index that is looked back to."""
        return self._index

    async def session(self, session_id: str, tenant: str = TENANT_DEFAULT) -> SessionRow | None:
        """Return a session, if it was there. Its counts and its last change are those of now: see `whole_session`."""
        return await self._ask(sqlite_past.session, tenant=tenant, session_id=session_id)

    async def whole_session(self, row: SessionRow) -> SessionRow:
        """Return a session that was found here as it was in every respect; reads the entries of its timeline."""
        counted = await self._ask(sqlite_past.counted, row=row)
        found = await self._embeddings(row)
        states = [embedding.status for embedding in found.values()]
        return (await self._changed(counted))._replace(
            pending_embeddings=counted.pending_embeddings + states.count("pending"),
            abandoned_embeddings=states.count("abandoned"),
        )

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        """Return every session of an agent or user that was there."""
        return await self._ask(sqlite_past.scope, tenant=tenant, agent_id=agent_id, user_id=user_id)

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        """Return a session with its last `limit` messages and its facts; None when it was not there."""
        return await self._ask(sqlite_past.conversation, tenant=tenant, session_id=session_id, limit=limit)

    async def core(self, session_id: str, tenant: str = TENANT_DEFAULT) -> list[FactRow] | None:
        """Return the facts that were pinned, in order of pinning; None when the session was not there."""
        known = await self.conversation(session_id, tenant, 0)
        return None if known is None else known.facts

    async def messages(
        self, session_key: int, *, after: int | None = None, limit: int, descending: bool = False
    ) -> list[MessageRow]:
        """Return messages by ordinal, from behind the ordinal `after`."""
        rows = await self._ask(
            sqlite_past.messages, session_key=session_key, after=after, limit=limit, descending=descending
        )
        return await self._as_embedded_then(session_key, rows)

    async def message(self, session_key: int, message_id: str) -> MessageRow | None:
        """Return a message; None when it was not there, or was deleted since."""
        row = await self._ask(sqlite_past.message, session_key=session_key, message_id=message_id)
        return None if row is None else (await self._as_embedded_then(session_key, [row]))[0]

    async def facts(self, session_key: int) -> list[FactRow]:
        """Return the facts that were pinned, in order of pinning."""
        return await self._ask(sqlite_past.facts, session_key=session_key)

    async def cut(self, row: SessionRow) -> Cut:
        """Return what the recall index of a session that was found here must be told."""
        found = await self._embeddings(row)
        return Cut(
            next_ordinal=row.next_ordinal,
            hidden=sorted(found),
            vectors=[vector for ordinal in sorted(found) for vector in found[ordinal].vectors],
            models=frozenset(each.model for each in found.values() if each.model is not None),
        )

    async def _ask(self, question: Callable[..., Answer], **wanted: object) -> Answer:
        return await self._reads.ask(partial(question, log_index=self._index, **wanted))

    async def _as_embedded_then(self, session_key: int, rows: list[MessageRow]) -> list[MessageRow]:
        if not rows:
            return rows
        ordinals = [row.ordinal for row in rows]
        doubts = await self._ask(
            sqlite_past.doubts, session_key=session_key, first=min(ordinals), behind=max(ordinals) + 1
        )
        found = await self._resolved(doubts)
        return [row._replace(embedding=found[row.ordinal].status) if row.ordinal in found else row for row in rows]

    async def _embeddings(self, row: SessionRow) -> dict[int, Embedding]:
        """Return what is not as it is now, by ordinal."""
        if row.vectors_index <= self._index and not row.abandoned_embeddings:
            return {}
        doubts = await self._ask(sqlite_past.doubts, session_key=row.session_key, first=0, behind=row.next_ordinal)
        return await self._resolved(doubts)

    async def _resolved(self, doubts: Sequence[Doubt]) -> dict[int, Embedding]:
        if not doubts:
            return {}
        wanted = sorted({index for doubt in doubts for index in doubt.told_index})
        told: dict[int, Sequence[Event]] = {}
        async for entry in entries_at(self._log, wanted):
            told[entry.index] = events_of(entry)
        return {doubt.ordinal: _embedding(doubt, told) for doubt in doubts}

    async def _changed(self, row: SessionRow) -> SessionRow:
        """Return a session with the time of its last change, and open or closed as it was.

        All events of an entry have one time: a command stamps them together, and an import takes no others.
        """
        updated_at_ms = row.created_at_ms
        visibility: Visibility = "private"
        after, is_over = row.session_key - 1, False
        while not is_over:
            places = await self._reads.timeline(row.session_key, after=after, limit=TIMELINE_MAX)
            wanted = [place for place in places if place <= self._index]
            async for entry in entries_at(self._log, wanted):
                for told in _told_by(entry):
                    updated_at_ms = max(updated_at_ms, told.at_ms)
                    visibility = told.visibility or visibility
            is_over = len(places) < TIMELINE_MAX or len(wanted) < len(places)
            after = places[-1] if places else after
        return row._replace(updated_at_ms=updated_at_ms, visibility=visibility)


def _embedding(doubt: Doubt, told: Mapping[int, Sequence[Event]]) -> Embedding:
    """Return how the embedding of a message stood after the entries that told something of it."""
    standing = Embedding("pending", None, ())
    for index in doubt.told_index:
        for event in told.get(index, ()):
            match event:
                case MessageEmbedded() if (
                    event.message_id == doubt.message_id and (event.source_index or index) == doubt.source_index
                ):
                    rows = [
                        VectorRow(doubt.ordinal, chunk.start, chunk.end, chunk.vector, event.model)
                        for chunk in event.chunks
                    ]
                    standing = Embedding("done", event.model, rows)
                case WorkAbandoned(work="embedding") if event.message_id == doubt.message_id:
                    if standing.status == "pending":
                        standing = Embedding("abandoned", None, ())
                case _:
                    pass
    return standing


def events_of(entry: LogEntry) -> Sequence[Event]:
    """Return what an entry holds; nothing when it was erased, or is not ours."""
    return decode(entry.data) if entry.kind == NORMAL and entry.data else ()


def _told_by(entry: LogEntry) -> Sequence[_Told]:
    return _told.decode(entry.data) if entry.kind == NORMAL and entry.data else ()


async def entries_at(log: Log, wanted: Sequence[int]) -> AsyncIterator[LogEntry]:
    """Yield the entries at the indexes `wanted`, which grow; those that the log has not kept are left out."""
    start = 0
    while start < len(wanted):
        end = _run_end(wanted, start)
        after, last = wanted[start] - 1, wanted[end - 1]
        inside = set(wanted[start:end])
        while after < last:
            entries = await log.read(after, last - after)
            for entry in entries:
                if entry.index in inside:
                    yield entry
            after = entries[-1].index if entries else last
        start = end


def _run_end(wanted: Sequence[int], start: int) -> int:
    """Return where the run of places that are read together ends."""
    end = start + 1
    while (
        end < len(wanted)
        and wanted[end] - wanted[end - 1] <= GAP_ENTRIES_MAX + 1
        and wanted[end] - wanted[start] < READ_ENTRIES_MAX
    ):
        end += 1
    return end
