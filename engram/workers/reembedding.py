"""Embedding again: every message that has no vectors of the wanted model gets some."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from engram.clock import Clock
from engram.inference.embedder import EmbedderError, LocalEmbedder, Matrix, RemoteEmbedder
from engram.projections.lance_rows import Space
from engram.projections.rows import PendingEmbedding
from engram.projections.sqlite_census import Counted, Others
from engram.workers.batches import Batches, Identity, Job, Observer, entries, events, identity
from engram.workers.embedding import Records

PAGE_MESSAGES = 1000
"""Messages in memory at a time; a page ends with an entry, so it can be a few more."""


class Pace(NamedTuple):
    """How much of a node is taken for it."""

    in_flight_max: int
    rests: float
    """After each batch it waits so many times as long as the batch took."""


ALONE: Final = Pace(in_flight_max=4, rests=0.0)
"""Of a stopped node: nobody waits for anything else."""

ASIDE: Final = Pace(in_flight_max=1, rests=1.0)
"""Of a running node: half of the time of a core and of the log at most is taken from its requests."""


class Reads(Protocol):
    """The part of the primary store that is read. A page of what waits never ends inside an entry."""

    async def pending_embeddings(self, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages behind the log index `after` that wait for vectors, oldest first."""

    async def abandoned_embeddings(self, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages behind the log index `after` whose embedding was given up, oldest first."""

    async def embedded_otherwise(self, space: Space, *, after: int, limit: int) -> Others:
        """Return which of the next `limit` messages behind the slot `after` have vectors, but not of `space`."""


class Census(Protocol):
    """The part of the primary store that counts."""

    async def census(self, *, after: int, limit: int) -> Counted:
        """Count whose vectors the next `limit` messages behind the slot `after` have."""


async def census(reads: Census, limit: int) -> Mapping[Space, int]:
    """Return whose vectors how many messages have, counted so many at a time."""
    counts: Counter[Space] = Counter()
    after: int | None = 0
    while after is not None:
        counted = await reads.census(after=after, limit=limit)
        counts.update(counted.messages)
        after = counted.end
    return counts


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


class Silent:
    """An observer for a command, which shows its own progress."""

    def embedded(self, model: str, seconds: float) -> None:
        """Note nothing."""


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
    run = Reembedding(reads, recorder, embedder, progress, clock=clock)
    await run.embed_waiting()
    await run.embed_others()
    return Reembedded(run.embedded, len(run.refused))


class Reembedding:
    """Takes messages in batches, and records their vectors. What was recorded stays, wherever it stops."""

    def __init__(
        self,
        reads: Reads,
        recorder: Records,
        embedder: RemoteEmbedder,
        progress: Callable[[int], None],
        *,
        clock: Clock,
        observer: Observer | None = None,
        pace: Pace = ALONE,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reads = reads
        self._recorder = recorder
        self._space = Space(embedder.model, embedder.dimension)
        self._batches = Batches(embedder, clock, observer or Silent())
        self._progress = progress
        self._clock = clock
        self._pace = pace
        self._sleep = sleep
        self._slots = asyncio.Semaphore(pace.in_flight_max)
        self.embedded = 0
        self.refused: set[Identity] = set()

    async def embed_waiting(self) -> None:
        """Embed the messages that wait, and those that were given up."""
        await self._embed_all(self._reads.pending_embeddings)
        await self.embed_abandoned()

    async def embed_abandoned(self) -> None:
        """Embed the messages that were given up, those that another embedder refused for one."""
        await self._embed_all(self._reads.abandoned_embeddings)

    async def embed_others(self) -> None:
        """Embed the messages that have vectors of another model or width."""
        after: int | None = 0
        while after is not None:
            page = await self._reads.embedded_otherwise(self._space, after=after, limit=PAGE_MESSAGES)
            await self._embed(page.messages)
            after = page.end

    async def embed_some(self) -> None:
        """Embed one batch of the messages that have vectors of another model or width, if there are any.

        Raises:
            EmbedderError: The embedder does not work, or refuses all of them.
        """
        after: int | None = 0
        while after is not None:
            page = await self._reads.embedded_otherwise(self._space, after=after, limit=PAGE_MESSAGES)
            if page.messages:
                (first, *_) = await self._batches.plan(page.messages)
                await self._batch(first)
                if not self.embedded:
                    raise EmbedderError("the embedder refuses every text of the first batch", permanent=True)
                return
            after = page.end

    async def _embed_all(self, read: ReadPage) -> None:
        after = 0
        while page := await read(after=after, limit=PAGE_MESSAGES):
            await self._embed(page)
            after = page[-1].log_index

    async def _embed(self, messages: Sequence[PendingEmbedding]) -> None:
        batches = await self._batches.plan([message for message in messages if identity(message) not in self.refused])
        try:
            async with asyncio.TaskGroup() as tasks:
                for batch in batches:
                    tasks.create_task(self._paced(batch))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _paced(self, jobs: list[Job]) -> None:
        async with self._slots:
            started_s = self._clock.monotonic_s()
            await self._batch(jobs)
            if self._pace.rests:
                await self._sleep((self._clock.monotonic_s() - started_s) * self._pace.rests)

    async def _batch(self, jobs: list[Job]) -> None:
        settled = await self._batches.settle(jobs)
        for entry in entries(settled.embedded):
            await self._recorder.record(events(entry, self._recorder.stamp_ms()))
        self.embedded += len(settled.embedded)
        self.refused.update(identity(refused.message) for refused in settled.refused)
        self._progress(len(settled.embedded) + len(settled.refused))
        if settled.outage is not None:
            raise settled.outage
