"""Embedding again: every message that has no vectors of the wanted model gets some."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from engram.clock import Clock
from engram.inference.embedder import LocalEmbedder, Matrix, RemoteEmbedder
from engram.projections.rows import PendingEmbedding
from engram.workers.batches import Batches, Identity, Job, entries, events, identity
from engram.workers.embedding import Records

PAGE_MESSAGES = 1000
"""Messages in memory at a time; a page ends with an entry, so it can be a few more."""

IN_FLIGHT_MAX = 4


class Reads(Protocol):
    """The part of the primary store that is read. A page never ends inside an entry."""

    async def pending_embeddings(self, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages behind the log index `after` that wait for vectors, oldest first."""

    async def abandoned_embeddings(self, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages behind the log index `after` whose embedding was given up, oldest first."""

    async def messages_not_embedded_by(self, model: str, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages behind the log index `after` with vectors of another model, oldest first."""


class ReadPage(Protocol):
    """Reads a page of messages."""

    async def __call__(self, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages behind the log index `after`, oldest first; none at the end."""


class Reembedded(NamedTuple):
    """How many messages got vectors, and how many the embedder refused."""

    embedded: int
    refused: int


class InThread:
    """A local embedder in the place of a remote one: it works in a thread, and takes texts of any length whole."""

    chunk_bytes_max = None

    def __init__(self, embedder: LocalEmbedder) -> None:
        self.model = embedder.model
        self.dimension = embedder.dimension
        self._embedder = embedder

    async def embed(self, texts: Sequence[str]) -> Matrix:
        return await asyncio.to_thread(self._embedder.embed, texts)


class _Silent:
    def embedded(self, model: str, seconds: float) -> None:
        """Note nothing: the command shows its own progress."""


async def reembed(
    reads: Reads,
    recorder: Records,
    embedder: RemoteEmbedder,
    progress: Callable[[int], None],
    *,
    clock: Clock,
) -> Reembedded:
    """Give vectors of `embedder` to every message without them; `progress` hears how many more were dealt with.

    Messages that the embedder refuses keep what they had. Stopped or failed, it goes on where it was when run again.

    Raises:
        EmbedderError: The embedder does not work.
        UnavailableError, TimedOutError: The log does not take the vectors.
    """
    run = _Run(recorder, Batches(embedder, clock, _Silent()), progress)
    await run.embed_all(reads.pending_embeddings)
    await run.embed_all(reads.abandoned_embeddings)
    await run.embed_all(partial(reads.messages_not_embedded_by, embedder.model))
    return Reembedded(run.embedded, len(run.refused))


class _Run:
    def __init__(self, recorder: Records, batches: Batches, progress: Callable[[int], None]) -> None:
        self._recorder = recorder
        self._batches = batches
        self._progress = progress
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self.embedded = 0
        self.refused: set[Identity] = set()

    async def embed_all(self, read: ReadPage) -> None:
        after = 0
        while page := await read(after=after, limit=PAGE_MESSAGES):
            await self._embed([message for message in page if identity(message) not in self.refused])
            after = page[-1].log_index

    async def _embed(self, messages: Sequence[PendingEmbedding]) -> None:
        batches = await self._batches.plan(messages)
        try:
            async with asyncio.TaskGroup() as tasks:
                for batch in batches:
                    tasks.create_task(self._batch(batch))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _batch(self, jobs: list[Job]) -> None:
        async with self._slots:
            settled = await self._batches.settle(jobs)
        for entry in entries(settled.embedded):
            await self._recorder.record(events(entry, self._recorder.stamp_ms()))
        self.embedded += len(settled.embedded)
        self.refused.update(identity(refused.message) for refused in settled.refused)
        self._progress(len(settled.embedded) + len(settled.refused))
        if settled.outage is not None:
            raise settled.outage
