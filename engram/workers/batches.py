"""Embedding messages in batches: what belongs to a batch, and which of its texts is to blame when it fails."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

from engram.clock import Clock
from engram.commands import ENTRY_BYTES_MAX, Vectors, embed_message
from engram.events import Chunk, Event
from engram.inference.chunking import Span, group, split
from engram.inference.embedder import EmbedderError, Matrix, RemoteEmbedder
from engram.projections.rows import PendingEmbedding

BATCH_CHUNKS_MAX = 128
BATCH_BYTES_MAX = 256 * 1024
"""One request to a remote embedder, with the smallest of the usual limits in mind."""

VECTORS_BYTES_MAX = ENTRY_BYTES_MAX // 2
"""Vectors of one entry; a message with more of them is split into longer chunks."""

INLINE_BYTES_MAX = 64 * 1024
"""Splitting this much takes about a millisecond; more is split in a thread."""

PROBE = "Is anybody there?"
"""Embedded to see whether the embedder works at all: if so, the text it failed on is to blame."""

PROOF_S = 5.0
"""How long a success proves that the embedder works, while the text to blame is being searched for."""


class Identity(NamedTuple):
    """Which message of which life of a session it is."""

    tenant: str
    session_id: str
    message_id: str
    log_index: int


def identity(message: PendingEmbedding) -> Identity:
    """Return the message's identity, which is cheap to compare and to keep."""
    return Identity(message.tenant, message.session_id, message.message_id, message.log_index)


class Job(NamedTuple):
    """A message with the chunks of its text that get a vector each."""

    message: PendingEmbedding
    spans: Sequence[Span]

    @property
    def texts(self) -> list[str]:
        """The chunks."""
        return [self.message.text[start:end] for start, end in self.spans]


class Embedded(NamedTuple):
    """A message with its vectors."""

    message: PendingEmbedding
    vectors: Vectors


class Refused(NamedTuple):
    """A message that the embedder fails on while it works for other texts."""

    message: PendingEmbedding
    error: EmbedderError


class Settled(NamedTuple):
    """What became of a batch; what is in neither list was not decided because of `outage`."""

    embedded: list[Embedded]
    refused: list[Refused]
    outage: EmbedderError | None


class Observer(Protocol):
    """What is measured of embedding."""

    def embedded(self, model: str, seconds: float) -> None:
        """Note a call that gave vectors."""


class Batches:
    """Embeds batches of messages, and tells a text that cannot be embedded from an embedder that is away."""

    def __init__(self, embedder: RemoteEmbedder, clock: Clock, observer: Observer) -> None:
        self._embedder = embedder
        self._clock = clock
        self._observer = observer
        self._proven_s = -PROOF_S

    async def plan(self, messages: Sequence[PendingEmbedding]) -> list[list[Job]]:
        """Return the messages in batches, in order; every message is whole in one of them."""
        if sum(len(message.text) for message in messages) <= INLINE_BYTES_MAX:
            return self._plan(messages)
        return await asyncio.to_thread(self._plan, messages)

    async def settle(self, jobs: Sequence[Job]) -> Settled:
        """Return the vectors of a batch. If it fails, it is halved until the texts to blame are alone."""
        try:
            vectors = await self._embed([text for job in jobs for text in job.texts])
        except EmbedderError as error:
            return await self._isolate(jobs, error)
        return Settled(self._share(jobs, vectors), [], None)

    async def _isolate(self, jobs: Sequence[Job], error: EmbedderError) -> Settled:
        outage = await self._outage(error, alone=len(jobs) == 1)
        if outage is not None:
            return Settled([], [], outage)
        if len(jobs) == 1:
            return Settled([], [Refused(jobs[0].message, error)], None)
        middle = len(jobs) // 2
        first = await self.settle(jobs[:middle])
        if first.outage is not None:
            return first
        second = await self.settle(jobs[middle:])
        return Settled(first.embedded + second.embedded, first.refused + second.refused, second.outage)

    async def _outage(self, error: EmbedderError, *, alone: bool) -> EmbedderError | None:
        """Return why the embedder does not work at all; None when it does, so that the texts are to blame.

        Before the last word on a text that is alone the embedder is always asked.
        """
        if error.retry_after_s is not None:
            return error
        if not alone and self._clock.monotonic_s() - self._proven_s < PROOF_S:
            return None
        try:
            await self._embed([PROBE])
        except EmbedderError as outage:
            return outage
        return None

    async def _embed(self, texts: Sequence[str]) -> Matrix:
        started_s = self._clock.monotonic_s()
        vectors = await self._embedder.embed(texts)
        self._proven_s = self._clock.monotonic_s()
        self._observer.embedded(self._embedder.model, self._proven_s - started_s)
        return vectors

    def _plan(self, messages: Sequence[PendingEmbedding]) -> list[list[Job]]:
        jobs = [Job(message, self._spans(message.text)) for message in messages]
        # A chunk counts as its share of the bytes at least, so that one size bounds the chunks too.
        share = BATCH_BYTES_MAX // BATCH_CHUNKS_MAX
        sizes = [sum(max(share, len(text.encode())) for text in job.texts) for job in jobs]
        return list(group(jobs, sizes, items_max=BATCH_CHUNKS_MAX, size_max=BATCH_BYTES_MAX))

    def _spans(self, text: str) -> list[Span]:
        chunk_bytes_max = self._embedder.chunk_bytes_max
        if chunk_bytes_max is None:
            return [Span(0, len(text))]
        chunks_max = max(1, VECTORS_BYTES_MAX // (2 * self._embedder.dimension))
        # Chunks are half full at least, so this many bytes each cannot make too many of them.
        least_bytes = -(-2 * len(text.encode()) // chunks_max) + 8
        spans = split(text, max(chunk_bytes_max, least_bytes))
        return [span for span in spans if text[span.start : span.end].strip()]

    def _share(self, jobs: Sequence[Job], vectors: Matrix) -> list[Embedded]:
        """Return each message with the rows that are its own."""
        halves = vectors.astype("<f2")
        done: list[Embedded] = []
        row = 0
        for job in jobs:
            chunks = [
                Chunk(start=start, end=end, vector=halves[row + place].tobytes())
                for place, (start, end) in enumerate(job.spans)
            ]
            row += len(chunks)
            done.append(Embedded(job.message, Vectors(self._embedder.model, self._embedder.dimension, chunks)))
        assert row == len(vectors), "one row a chunk"
        return done


def entries(embedded: Sequence[Embedded]) -> list[list[Embedded]]:
    """Return the messages in groups that fit into one log entry each: of one session, and not too many vectors."""
    grouped: list[list[Embedded]] = []
    for _, members in groupby(sorted(embedded, key=_session), key=_session):
        ones = list(members)
        sizes = [sum(len(chunk.vector) for chunk in one.vectors.chunks) for one in ones]
        grouped.extend(group(ones, sizes, items_max=BATCH_CHUNKS_MAX, size_max=VECTORS_BYTES_MAX))
    return grouped


def events(entry: Sequence[Embedded], at_ms: int) -> list[Event]:
    """Return the events that give the messages of an entry their vectors, one for each."""
    return [event for one in entry for event in _events(one, at_ms)]


def _session(embedded: Embedded) -> tuple[str, str]:
    return embedded.message.tenant, embedded.message.session_id


def _events(embedded: Embedded, at_ms: int) -> list[Event]:
    message, vectors = embedded
    return embed_message(
        tenant=message.tenant,
        session_id=message.session_id,
        message_id=message.message_id,
        source_index=message.log_index,
        vectors=vectors,
        at_ms=at_ms,
    )
