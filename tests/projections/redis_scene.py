"""A primary store, a real Redis server, the feed between them, and the readers, for the tests of Redis."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from engram.clock import SystemClock
from engram.events import TENANT_DEFAULT, Event, encode
from engram.projections.redis_comparison import differences
from engram.projections.redis_feed import Options, RedisFeed
from engram.projections.redis_keys import KeySpace, SessionName
from engram.projections.redis_memory import ShortTermMemory
from engram.projections.redis_store import RedisStore
from engram.projections.sqlite_reads import Conversation
from engram.projections.sqlite_store import PrimaryStore
from tests.cluster.waiting import wait_until
from tests.projections.histories import Entry, open_store
from tests.redis_server import HAS_REDIS

LOG_STORE = "the-log"
WINDOW = 6

QUICK = Options(period_s=0.001, fill_share=0.9, check_s=0.02, retry_s=0.01, retry_max_s=0.05)

WITHIN_S = 15.0
"""Long enough for a busy machine."""

needs_redis = pytest.mark.skipif(not HAS_REDIS, reason="NOT CHECKED: there is no redis-server here")

_epochs = itertools.count(1)


class Failures:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.operations: list[str] = []

    def short_term_store_failed(self, operation: str) -> None:
        self.operations.append(operation)


class Scene:
    """One node's short-term memory. Its feed runs while `fed` is entered."""

    def __init__(
        self,
        primary: PrimaryStore,
        url: str,
        *,
        node_id: int = 1,
        window: int = WINDOW,
        log_store: str = LOG_STORE,
        options: Options = QUICK,
        deadline_s: float = 5.0,
    ) -> None:
        self.primary = primary
        self.failures = Failures()
        self.log_store = log_store
        self.redis = RedisStore(url, KeySpace(node_id), window=window)
        self.feed = RedisFeed(
            self.redis,
            primary,
            log_store=log_store,
            clock=SystemClock(),
            observer=self.failures,
            new_id=lambda: f"epoch-{next(_epochs)}",
            options=options,
        )
        self.memory = ShortTermMemory(self.redis, self.feed, primary, deadline_s=deadline_s)
        primary.watch(self.feed.changed)

    async def write(self, *events: Event) -> int:
        """Fold one entry of `events`; return its log index."""
        index = self.primary.applied_index + 1
        await self.primary.apply([Entry(index, encode(events))])
        return index

    @asynccontextmanager
    async def fed(self) -> AsyncIterator[Self]:
        """Run the feed; it is current when this is entered, and ended when it is left."""
        async with self.running():
            await self.settle()
            yield self

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the feed, whatever comes of it."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.feed.run())
            try:
                yield self
            finally:
                task.cancel()

    async def settle(self) -> None:
        """Wait until everything is in Redis and readers are answered by it."""
        await self.until(lambda: self.feed.status().ready and not self.feed.status().waiting_sessions, "it is current")

    async def until(self, holds: Callable[[], bool], claim: str) -> None:
        """Wait for something to become so."""

        async def asked() -> bool:
            return holds()

        await wait_until(asked, claim, within_s=WITHIN_S, every_s=0.002)

    async def read(self, session_id: str = "s", *, limit: int = WINDOW, tenant: str = TENANT_DEFAULT) -> Conversation:
        """Return what readers are told, after making sure that it is what the primary store says."""
        told = await self.memory.conversation(session_id, tenant, limit)
        assert told == await self.primary.conversation(session_id, tenant, limit)
        assert told is not None
        return told

    def is_trusted(self, session_id: str = "s") -> bool:
        """Whether Redis would be asked about a session now."""
        return self.feed.trusted(SessionName(TENANT_DEFAULT, session_id)) is not None

    async def differences(self) -> list[str]:
        """Return what is not in Redis as the primary store has it, on a running node."""
        found = differences(self.redis, self.primary, log_store=self.log_store, waiting=self.feed.waiting)
        return [str(difference) async for difference in found]

    async def differences_at_rest(self) -> list[str]:
        """Return the same on a stopped node, where nothing is about to be written."""
        return [str(each) async for each in differences(self.redis, self.primary, log_store=self.log_store)]


@asynccontextmanager
async def primary_in(folder: Path) -> AsyncIterator[PrimaryStore]:
    """Open a primary store in a folder of its own."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    store = await open_store(folder)
    try:
        yield store
    finally:
        await store.close()
