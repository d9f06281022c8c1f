import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from engram.clock import SystemClock
from engram.events import Event
from engram.projections.eraser import Eraser, LongTerm
from engram.projections.lance_feed import LanceFeed, Options, Silent
from engram.projections.lance_rows import Scope
from engram.projections.sqlite_reads import EmbeddedRow
from engram.projections.sqlite_store import PrimaryStore
from tests.cluster.waiting import wait_until
from tests.contracts.vectors_contract import Neighbour, Vectors, VectorsContract
from tests.projections.embedded import LOG_END, MODEL, store_at
from tests.projections.histories import MemoryLog, open_store

EVERY = 1_000_000


class Written:
    """A log, the primary store that folds it, and whoever erases."""

    def __init__(self, primary: PrimaryStore, long_term: LongTerm | None = None) -> None:
        self.primary = primary
        self._log = MemoryLog()
        self._eraser = Eraser(self._log, primary, long_term)

    async def write(self, *events: Event) -> None:
        await self.primary.apply([self._log.append(*events)])
        while await self._eraser.clean_log():
            pass
        while await self._eraser.clean_long_term():
            pass


class InSqlite(Written):
    """The vectors of the primary store, each compared with the query."""

    async def nearest(self, query: npt.NDArray[np.float32], scope: Scope, k: int) -> Sequence[Neighbour]:
        rows = await self.primary.embedded_after(0, EVERY)
        found = [_neighbour(row, query) for row in rows if row.model == MODEL and _is_in(row, scope)]
        return sorted(found, key=lambda each: -each.similarity)[:k]


def _neighbour(row: EmbeddedRow, query: npt.NDArray[np.float32]) -> Neighbour:
    vector = np.frombuffer(row.vector, "<f2").astype(np.float32)
    return Neighbour(row.session_id, row.message_id, row.chunk, row.log_index, float(vector @ query))


def _is_in(row: EmbeddedRow, scope: Scope) -> bool:
    return (
        row.tenant == scope.tenant
        and (scope.session_ids is None or row.session_id in scope.session_ids)
        and scope.agent_id in {None, row.agent_id}
        and scope.user_id in {None, row.user_id}
    )


class InLanceDB(Written):
    """LanceDB alone, fed in the background."""

    def __init__(self, primary: PrimaryStore, feed: LanceFeed) -> None:
        super().__init__(primary, feed)
        self._feed = feed

    async def write(self, *events: Event) -> None:
        """Write, and wait for LanceDB, so that it sees each entry alone."""

        async def is_fed() -> bool:
            status = self._feed.status()
            return status.ready and not await self.primary.embedded_after(status.cursor, 1)

        await super().write(*events)
        await wait_until(is_fed, "LanceDB has what the primary store has", within_s=20, every_s=0.001)

    async def nearest(self, query: npt.NDArray[np.float32], scope: Scope, k: int) -> Sequence[Neighbour]:
        found = await self._feed.nearest(query, scope, k)
        assert found is not None
        return [Neighbour(*hit) for hit in found.hits]


@asynccontextmanager
async def in_lancedb(folder: Path) -> AsyncIterator[InLanceDB]:
    (folder / "primary").mkdir()
    primary = await open_store(folder / "primary")
    options = Options(period_s=0.001, retry_s=0.001)
    feed = LanceFeed(
        store_at(folder / "lance"),
        primary,
        clock=SystemClock(),
        observer=Silent(),
        log_last_index=LOG_END,
        options=options,
    )
    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(feed.run())
        try:
            yield InLanceDB(primary, feed)
        finally:
            feeding.cancel()
    await primary.close()


class TestSqlite(VectorsContract):
    @pytest.fixture
    async def vectors(self, tmp_path: Path) -> AsyncIterator[Vectors]:
        primary = await open_store(tmp_path)
        yield InSqlite(primary)
        await primary.close()


class TestLanceDB(VectorsContract):
    @pytest.fixture
    async def vectors(self, tmp_path: Path) -> AsyncIterator[Vectors]:
        async with in_lancedb(tmp_path) as vectors:
            yield vectors
