"""Redis as a part of a node: its store, the feed that fills it, and the readers that it answers."""

from collections.abc import Callable
from typing import Final, Protocol

from engram.clock import Clock
from engram.projections.redis_feed import Observer, RedisFeed, RedisStatus
from engram.projections.redis_keys import KeySpace
from engram.projections.redis_memory import ShortTermMemory
from engram.projections.redis_store import RedisStore
from engram.projections.sqlite_store import PrimaryStore

WINDOW_MAX: Final = 500
"""Messages of a session kept in Redis. Who asks for more is answered by the primary store."""

FORGET_S: Final = 1.0
"""How long a deletion waits for Redis to forget, beyond the milliseconds that it takes."""


class Erased(Protocol):
    """Who knows when a deletion has reached the log and the projections."""

    async def wait_erased(self, index: int) -> None:
        """Return when what the deletion at `index` forgets is gone from their files."""


def open_redis(url: str, *, node_id: int | None, window: int) -> RedisStore:
    """Return the key space of a node; nothing is asked of the server yet. A standalone node is node 1.

    Raises:
        ConfigError: The address has an option that the driver does not know.
    """
    return RedisStore(url, KeySpace(node_id or 1), window=min(window, WINDOW_MAX))


class RedisProjection:
    """Short-term memory in Redis, fed from the primary store."""

    def __init__(
        self,
        redis: RedisStore,
        primary: PrimaryStore,
        *,
        log_store: str,
        clock: Clock,
        observer: Observer,
        new_id: Callable[[], str],
    ) -> None:
        self.redis = redis
        self.feed = RedisFeed(redis, primary, log_store=log_store, clock=clock, observer=observer, new_id=new_id)
        self.memory = ShortTermMemory(redis, self.feed, primary)
        self._primary = primary
        primary.watch(self.feed.changed)

    def lag_entries(self) -> int:
        """Return by how many entries of the log Redis is behind the primary store."""
        return max(0, self._primary.applied_index - self.feed.status().applied)

    def detail(self) -> str:
        """Return one line about how it is doing."""
        return _detail(self.feed.status())


class ForgettingToo:
    """Waits for Redis besides the log and the projections, unless it is away: then it forgets when it is back."""

    def __init__(self, erased: Erased, feed: RedisFeed) -> None:
        self._erased = erased
        self._feed = feed

    async def wait_erased(self, index: int) -> None:
        """Return when what the deletion at `index` forgets is gone from the files, and out of Redis or Redis away."""
        await self._erased.wait_erased(index)
        await self._feed.wait_past(index, FORGET_S)


def _detail(status: RedisStatus) -> str:
    waiting = f"{status.waiting_sessions} sessions to write" if status.waiting_sessions else "current"
    if status.last_error is not None:
        return f"{status.last_error}; {status.waiting_sessions} sessions to write"
    if status.compared_sessions is not None:
        return f"comparing: {status.compared_sessions} sessions so far"
    if not status.ready:
        return "not open yet"
    return f"{waiting}; its files are to be written anew without what was deleted" if status.unscrubbed else waiting
