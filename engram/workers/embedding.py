"""Giving messages their vectors after they were written: for embedders that are too far away to wait for.

What waits is a read model, so the worker owns no queue: after a crash, or on a new leader, the next pass finds the
same messages. All it remembers is which of them it failed on lately; forgetting that costs a few requests.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from engram.clock import Clock
from engram.commands import abandon_work
from engram.errors import TimedOutError, UnavailableError
from engram.events import Event
from engram.inference.embedder import EmbedderError, RemoteEmbedder
from engram.projections.rows import PendingEmbedding
from engram.projections.verdicts import Outcome, Verdict
from engram.recorder import Receipt
from engram.workers.batches import Batches, Embedded, Identity, Job, Refused, entries, events, identity
from engram.workers.batches import Observer as BatchObserver

IDLE_S = 1.0
"""Between looks at what waits, when nobody says that something new does. A look costs one query."""

ATTEMPTS_MAX = 5
"""Passes in which a message may fail while others do not; each has the embedder's own retries in it."""

ATTEMPT_BACKOFF_S = 5.0
"""Before the second attempt at a message; twice as much before each further one."""

OUTAGE_BACKOFF_S = 1.0
OUTAGE_BACKOFF_MAX_S = 60.0
"""After a pass that found the embedder or the log away; doubled from one such pass to the next."""

_logger = logging.getLogger(__name__)


class Reads(Protocol):
    """The part of the primary store that the worker reads."""

    async def pending_embeddings(self, *, after: int, limit: int) -> Sequence[PendingEmbedding]:
        """Return messages that wait for their vectors, oldest first; a few more than `limit`, to end with an entry."""


class Records(Protocol):
    """The part of the recorder that workers write through."""

    def stamp_ms(self) -> int:
        """Return the time for new events."""

    async def record(self, events: Sequence[Event]) -> Receipt:
        """Record events of one session as one entry."""


class Observer(BatchObserver, Protocol):
    """What is measured of the worker."""

    def abandoned(self, work: str) -> None:
        """Count a message that was given up."""


class _Failure(NamedTuple):
    attempts: int
    retry_at_s: float


class EmbeddingWorker:
    """Embeds what waits, while this node leads. Run one of it."""

    def __init__(
        self,
        reads: Reads,
        recorder: Records,
        embedder: RemoteEmbedder,
        clock: Clock,
        rng: random.Random,
        *,
        max_concurrency: int,
        claim_max: int,
        observer: Observer,
        leads: Callable[[], bool] = lambda: True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        idle_s: float = IDLE_S,
    ) -> None:
        """`claim_max` messages are taken on in one pass, `max_concurrency` requests are in flight."""
        self._reads = reads
        self._recorder = recorder
        self._clock = clock
        self._rng = rng
        self._max_concurrency = max_concurrency
        self._claim_max = claim_max
        self._observer = observer
        self._leads = leads
        self._sleep = sleep
        self._idle_s = idle_s
        self._batches = Batches(embedder, clock, observer)
        self._woken = asyncio.Event()
        self._failures: dict[Identity, _Failure] = {}
        self._outage: UnavailableError | TimedOutError | None = None
        self._outages = 0

    def wake(self) -> None:
        """Say that a message may wait."""
        self._woken.set()

    async def run(self) -> None:
        """Embed for ever. New messages do not shorten the wait after an outage."""
        while True:
            self._woken.clear()
            worked = await self.embed_pending()
            if self._outage is not None:
                await self._sleep(self._outage_wait_s(self._outage))
            elif not worked:
                await self._idle()

    async def embed_pending(self) -> bool:
        """Make one pass over what waits and is due; return whether there was anything to do."""
        self._outage = None
        if not self._leads():
            return False
        claimed = await self._reads.pending_embeddings(after=0, limit=self._claim_max)
        self._failures = {key: self._failures[key] for key in map(identity, claimed) if key in self._failures}
        now_s = self._clock.monotonic_s()
        due = [message for message in claimed[: self._claim_max] if self._due_s(message) <= now_s]
        waiting = deque(await self._batches.plan(due))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._max_concurrency, len(waiting))):
                tasks.create_task(self._work(waiting))
        self._count_outages()
        return bool(due)

    async def _work(self, waiting: deque[list[Job]]) -> None:
        while waiting and self._outage is None:
            settled = await self._batches.settle(waiting.popleft())
            if settled.outage is not None:
                self._pause(settled.outage)
            async with asyncio.TaskGroup() as tasks:
                for entry in entries(settled.embedded):
                    tasks.create_task(self._give(entry))
            for refused in settled.refused:
                await self._refuse(refused)

    async def _give(self, entry: Sequence[Embedded]) -> None:
        """Record the vectors of an entry; one that the ledger did not take, of a message still there, counts as failed."""
        verdicts = await self._record(events(entry, self._recorder.stamp_ms()))
        for embedded, verdict in zip(entry, verdicts, strict=False):
            if verdict.outcome is not Outcome.ACCEPTED:
                await self._refuse(
                    Refused(embedded.message, EmbedderError("its vectors do not count", permanent=False))
                )

    async def _refuse(self, refused: Refused) -> None:
        """Note that a message failed by its own fault; give it up when that cannot change, or has not for long."""
        message, error = refused
        attempts = self._failures.get(identity(message), _Failure(0, 0.0)).attempts + 1
        if not error.permanent and attempts < ATTEMPTS_MAX:
            wait_s = ATTEMPT_BACKOFF_S * 2.0 ** (attempts - 1) * (0.5 + self._rng.random())
            self._failures[identity(message)] = _Failure(attempts, self._clock.monotonic_s() + wait_s)
            return
        abandoned = abandon_work(
            tenant=message.tenant,
            session_id=message.session_id,
            message_id=message.message_id,
            work="embedding",
            error=str(error),
            attempts=attempts,
            at_ms=self._recorder.stamp_ms(),
        )
        if await self._record(abandoned):
            self._observer.abandoned("embedding")

    async def _record(self, entry: Sequence[Event]) -> Sequence[Verdict]:
        """Record an entry, and return its verdicts; none when the log is away: the messages simply go on waiting."""
        try:
            return (await self._recorder.record(entry)).verdicts
        except (UnavailableError, TimedOutError) as error:
            self._pause(error)
            return ()

    def _count_outages(self) -> None:
        self._outages = 0 if self._outage is None else self._outages + 1

    def _pause(self, error: UnavailableError | TimedOutError) -> None:
        if self._outage is None:
            _logger.warning("embedding pauses: %s", error, extra={"outages": self._outages + 1})
        self._outage = error

    def _due_s(self, message: PendingEmbedding) -> float:
        failure = self._failures.get(identity(message))
        return float("-inf") if failure is None else failure.retry_at_s

    def _outage_wait_s(self, outage: UnavailableError | TimedOutError) -> float:
        doubled_s = min(OUTAGE_BACKOFF_MAX_S, OUTAGE_BACKOFF_S * 2.0 ** min(self._outages - 1, 10))
        wait_s = doubled_s * (0.5 + self._rng.random())
        asked_s = outage.retry_after_s if isinstance(outage, EmbedderError) else None
        return wait_s if asked_s is None else max(wait_s, asked_s)

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await self._woken.wait()
        except TimeoutError:
            return
