"""The feed of the long-term store: one task that carries rows from the primary store into LanceDB, and forgets.

It stands beside the path of every request. When LanceDB fails, the feed says so in its status, waits, opens the
store again and goes on from the cursor it finds there; nobody else notices.

It asks for new rows once a second, so a busy second makes one large batch and an idle one makes none.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engram.clock import Clock
from engram.projections.lance_rows import EmbeddedRow, Erasure, Scope, Space
from engram.projections.lance_store import LanceError, LanceHit, LanceStore

ERASURES_MAX = 256
"""Erasures taken together: one sweep of the disk serves all of them. It also bounds those that wait here."""

NEAREST_S = 2.0
"""How long a search waits for the store, which may be merging files: 10 us for each of its rows."""

_log = logging.getLogger(__name__)


class Nearest(NamedTuple):
    """What the long-term store finds near a vector."""

    hits: Sequence[LanceHit]
    """Best first."""
    cursor: int
    """Whatever got its vectors at or below this log index was looked at."""


class Options(NamedTuple):
    """How often the feed does what; the reasons are what was measured."""

    period_s: float = 1.0
    """New rows wait this long at most, and are written together."""
    batch_rows_max: int = 2048
    """Rows of one write: 8 us a row at this size, 30 us at 256. Reading more at once would hold up other readers."""
    optimize_adds: int = 50
    """Each write leaves a file, and a search opens them all: 3 ms with 5 of them, 60 ms with several hundred."""
    optimize_period_s: float = 30.0
    optimize_share: float = 0.05
    """At most this part of the time goes into merging files, which costs more the larger the table is."""
    retry_s: float = 1.0
    retry_max_s: float = 60.0


class Source(Protocol):
    """The part of the primary store that the feed reads."""

    async def embedded_after(self, cursor: int, limit: int) -> Sequence[EmbeddedRow]:
        """Return rows whose vectors the log gave behind the index `cursor`, in the order of that index.

        About `limit` of them, more if an entry would be cut in two otherwise.
        """


class Observer(Protocol):
    """Hears what the feed did."""

    def stored(self, rows: int, seconds: float) -> None:
        """`rows` rows were written to the long-term store."""

    def optimized(self, seconds: float) -> None:
        """Its files were merged."""

    def failed(self, operation: str) -> None:
        """LanceDB failed in `operation`: open, clear, write, forget, optimize or search."""

    def retried(self) -> None:
        """It is opened again after a failure."""


class Silent:
    """An observer that notes nothing."""

    def stored(self, rows: int, seconds: float) -> None: ...
    def optimized(self, seconds: float) -> None: ...
    def failed(self, operation: str) -> None: ...
    def retried(self) -> None: ...


class LanceStatus(NamedTuple):
    """How the long-term store is doing."""

    cursor: int
    """It holds every row whose vectors the log gave at or below this index."""
    lag_rows: int
    """Rows known to wait; when there are more than one batch, there may be more than this."""
    waiting_erasures: int
    last_error: str | None
    """What went wrong last, until something goes right again."""
    ready: bool
    """It is open, and nothing has failed since."""


class LanceFeed:
    """Carries rows from `source` into `store`, and forgets what `forget` is told to.

    `log_last_index` is the last index of the log at start-up: a table that is ahead of it is another log's.
    """

    def __init__(
        self,
        store: LanceStore,
        source: Source,
        *,
        clock: Clock,
        observer: Observer,
        log_last_index: int,
        options: Options | None = None,
    ) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self._observer = observer
        self._log_last_index = log_last_index
        self._options = options or Options()
        self._wake = asyncio.Event()
        self._erasures: deque[tuple[Erasure, asyncio.Future[None]]] = deque()
        self._room = asyncio.Semaphore(ERASURES_MAX)
        self._operation = "open"
        self._lag_rows = 0
        self._last_error: str | None = None
        self._search_error: LanceError | None = None
        self._ready = False
        self._is_stopping = False
        self._drops = False
        self._wanted: Space | None = None
        self._is_refilling = False
        self._adds = 0
        self._optimized_s = clock.monotonic_s()
        self._optimize_took_s = 0.0
        self._retry_s = self._options.retry_s

    @property
    def space(self) -> Space:
        """Whose vectors are in the store."""
        return self._store.space

    def status(self) -> LanceStatus:
        """Return how it stands now."""
        return LanceStatus(self._store.cursor, self._lag_rows, len(self._erasures), self._last_error, self._ready)

    async def forget(self, session_id: str, tenant: str, message_id: str | None, up_to_index: int) -> None:
        """Return once nothing is left, in any file, of what the log said at or before `up_to_index`.

        `message_id` None means the whole session. Waits as long as LanceDB fails.
        """
        async with self._room:
            done = asyncio.get_running_loop().create_future()
            self._erasures.append((Erasure(tenant, session_id, message_id, up_to_index), done))
            self._wake.set()
            await done

    async def nearest(self, vector: npt.NDArray[np.float32], scope: Scope, k: int) -> Nearest | None:
        """Return the `k` chunks of `scope` nearest to `vector`; None when the store cannot say within NEAREST_S."""
        if not self._ready or self._is_stopping or len(vector) != self._store.space.dimension:
            return None
        cursor = self._store.cursor
        try:
            async with asyncio.timeout(NEAREST_S):
                return Nearest(await self._store.search(vector, scope, k), cursor)
        except TimeoutError:
            return None
        except LanceError as error:
            # The store has to be opened again before it is used for anything; the feed's task does that.
            self._ready = False
            self._search_error = error
            self._wake.set()
            return None

    def become(self, space: Space) -> None:
        """Hold vectors of `space`: where they are others, drop everything, and write it again."""
        self._wanted = space
        self._wake.set()

    def refill(self) -> None:
        """Drop everything, and write it again."""
        self._drops = self._is_refilling = True
        self._wake.set()

    @property
    def is_refilling(self) -> bool:
        """Whether something of what `refill` dropped is not there again."""
        return self._is_refilling

    async def run(self) -> None:
        """Feed until cancelled; the store is closed then.

        Raises:
            ConfigError: The store holds vectors of another model or dimension.
        """
        try:
            while True:
                try:
                    await self._open()
                    while True:
                        await self._round()
                except LanceError as error:
                    await self._fail(error)
        finally:
            self._is_stopping = True
            await self._store.stop()

    async def _open(self) -> None:
        self._operation = "open"
        self._search_error = None
        await self._store.open(log_last_index=self._log_last_index)
        self._adds += 1  # files of an earlier run may wait for a merge
        self._ready = True

    async def _round(self) -> None:
        self._wake.clear()
        self._raise_search_error()
        await self._drop()
        await self._forget()
        is_full = await self._write()
        await self._optimize()
        self._last_error = None
        self._retry_s = self._options.retry_s
        if not is_full:
            await self._pause(self._options.period_s)

    def _raise_search_error(self) -> None:
        if self._search_error is not None:
            self._operation = "search"
            raise self._search_error

    async def _drop(self) -> None:
        wanted = self._wanted or self._store.space
        if wanted != self._store.space:
            self._drops = self._is_refilling = True
        if self._drops:
            self._operation = "clear"
            await self._store.become(wanted)
            self._drops = False

    async def _forget(self) -> None:
        self._operation = "forget"
        waiting = list(self._erasures)[:ERASURES_MAX]
        if not waiting:
            return
        await self._store.forget([erasure for erasure, _ in waiting])
        for _ in waiting:
            _, done = self._erasures.popleft()
            if not done.done():  # its caller may have given up
                done.set_result(None)

    async def _write(self) -> bool:
        """Write one batch; return whether there are more rows at once."""
        self._operation = "write"
        limit = self._options.batch_rows_max
        rows = await self._source.embedded_after(self._store.cursor, limit)
        self._lag_rows = len(rows)
        if not rows:
            self._is_refilling = self._drops
            return False
        started_s = self._clock.monotonic_s()
        await self._store.add(rows)
        self._observer.stored(len(rows), self._clock.monotonic_s() - started_s)
        self._lag_rows = 0
        self._adds += 1
        return len(rows) >= limit

    async def _optimize(self) -> None:
        self._operation = "optimize"
        if not self._is_optimize_due():
            return
        started_s = self._clock.monotonic_s()
        await self._store.optimize()
        self._optimized_s = self._clock.monotonic_s()
        self._optimize_took_s = self._optimized_s - started_s
        self._adds = 0
        self._observer.optimized(self._optimize_took_s)

    def _is_optimize_due(self) -> bool:
        options = self._options
        idle_s = self._clock.monotonic_s() - self._optimized_s
        if not self._adds or idle_s * options.optimize_share < self._optimize_took_s:
            return False
        return self._adds >= options.optimize_adds or idle_s >= options.optimize_period_s

    async def _fail(self, error: LanceError) -> None:
        self._ready = False
        self._last_error = f"{self._operation}: {error}"
        self._observer.failed(self._operation)
        _log.warning(
            "long-term store failed, trying again",
            extra={"operation": self._operation, "error": str(error), "retry_s": self._retry_s},
        )
        self._wake.clear()
        await self._pause(self._retry_s)
        self._observer.retried()
        self._retry_s = min(2 * self._retry_s, self._options.retry_max_s)

    async def _pause(self, seconds: float) -> None:
        """Wait; an erasure cuts it short."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


async def rebuild(store: LanceStore, source: Source, progress: Callable[[int], None], *, batch_rows: int = 4096) -> int:
    """Drop the table and write it again from `source`; return the number of rows. The node must be stopped.

    `progress` hears how many more rows were written. Stopped halfway, the next run of the feed goes on from where it was.

    Raises:
        LanceError: LanceDB failed.
    """
    await store.clear()
    total = 0
    while rows := await source.embedded_after(store.cursor, batch_rows):
        await store.add(rows)
        total += len(rows)
        progress(len(rows))
    await store.optimize()
    return total
