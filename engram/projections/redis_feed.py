"""The feed of Redis: one task that keeps this node's key space up to date, and knows whether readers can trust it.

For other modules:

    feed = RedisFeed(store, source, log_store=..., clock=..., observer=..., new_id=...)
    feed.changed(names, removed, log_index)     called for every batch that was folded, before anybody hears of it
    await feed.run()                            until cancelled
    feed.refill()                               drop and write everything again, on the running node
    feed.status()                               for /ready and metrics
    await feed.wait_past(log_index)             what the entry removed is gone from Redis, or Redis is away

    foundation.open_redis_of(config)            the RedisStore of the settings, or None
    redis_rebuilding.rebuild(redis, source, progress, log_store=...)
                                                drop the key space of a stopped node, and write it again
    redis_comparison.differences(redis, source, log_store=..., waiting=feed.waiting, progress=...)
                                                compare it with the primary store; on a stopped node without `waiting`

Nothing about Redis is trusted that was not seen since an epoch began. The feed begins one when it starts, and
whenever the state it finds is not the one it wrote last; then everything is compared, in steps, while readers are sent
to the primary store. A server that was only away has the state that was written last: the feed goes on from there.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Container
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgspec

from engram.clock import Clock
from engram.errors import StorageError
from engram.projections.redis_changes import Changes
from engram.projections.redis_filling import Filling, Source, Written, clear, read
from engram.projections.redis_keys import SessionName
from engram.projections.redis_rows import State
from engram.projections.redis_scrubbing import Scrubbing
from engram.projections.redis_source import Known
from engram.projections.redis_store import RedisChangedError, RedisFailedError, RedisStore

KNOWN_MAX = 20_000
"""Sessions of which it is remembered what Redis holds, some 5 MB: only new messages are sent for them."""

STOP_S = 1.0
"""How long the end of the node waits for the last write. What is not written then is found by the next start."""

_log = logging.getLogger(__name__)


class Options(NamedTuple):
    """How often the feed does what."""

    period_s: float = 0.02
    """Changes are written this long apart at least: each write costs half a millisecond of the event loop."""
    sessions_max: int = 100
    """Sessions of one write."""
    fill_share: float = 0.5
    """At most this part of the time goes into a fill, so that requests come through."""
    check_s: float = 1.0
    """An idle feed looks at the state this often: a server that was flushed is noticed and filled."""
    retry_s: float = 0.1
    retry_max_s: float = 5.0


class Observer(Protocol):
    """Hears what went wrong."""

    def short_term_store_failed(self, operation: str) -> None:
        """Redis failed in `operation`: open, read, write, fill or scrub."""


class RedisStatus(NamedTuple):
    """How Redis is doing."""

    ready: bool
    """Readers are answered by it."""
    applied: int
    """It holds what entries of the log up to this one did."""
    waiting_sessions: int
    """Sessions that have changed and are not written yet."""
    compared_sessions: int | None
    """While everything is compared: how many sessions have been; else None."""
    unscrubbed: bool
    """The server's files may still hold what was forgotten."""
    last_error: str | None
    """What went wrong last, until something goes right again."""


class RedisFeed:
    """Carries sessions from `source` into `store`. One task runs it; readers ask it."""

    def __init__(
        self,
        store: RedisStore,
        source: Source,
        *,
        log_store: str,
        clock: Clock,
        observer: Observer,
        new_id: Callable[[], str],
        options: Options | None = None,
    ) -> None:
        self._store = store
        self._source = source
        self._log_store = log_store
        self._clock = clock
        self._observer = observer
        self._new_id = new_id
        self._options = options or Options()
        self._changes = Changes()
        self._removed: set[SessionName] = set()
        """Changed sessions that lost something."""
        self._known: dict[SessionName, Known] = {}
        self._written: State | None = None
        """The state that was written last, as far as is known."""
        self._attempted: State | None = None
        """The state of a write whose outcome is unknown."""
        self._filling: Filling | None = None
        self._drops = False
        """What is there is dropped before everything is compared."""
        self._scrubbing = Scrubbing(store, clock)
        self._serves = False
        self._operation = "open"
        self._last_error: str | None = None
        self._retry_s = self._options.retry_s
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        """Set, and replaced, whenever changes were written or Redis was given up."""

    def changed(self, names: Collection[SessionName], removed: Collection[SessionName], log_index: int) -> None:
        """Note that the entries up to `log_index` changed the sessions `names`, and took something out of `removed`."""
        if not names:
            return
        self._changes.add(names, log_index)
        self._removed.update(removed)
        if self._changes.has_overflowed:
            self._removed.clear()
        self._wake.set()

    def repair(self, name: SessionName) -> None:
        """Write a session anew, of which a reader found less than there should be."""
        self._known.pop(name, None)
        self._changes.add([name], self._source.applied_index)
        self._wake.set()

    def refill(self) -> None:
        """Drop everything, and write it again; `status` tells how far that is."""
        self._drops = True
        self._doubt()

    def status(self) -> RedisStatus:
        """Return how it stands now."""
        state = self._written
        return RedisStatus(
            ready=self._serves,
            applied=0 if state is None or not state.complete else self._reaches(),
            waiting_sessions=len(self._changes),
            compared_sessions=None if self._filling is None else self._filling.compared,
            unscrubbed=state is None or state.unscrubbed,
            last_error=self._last_error,
        )

    def waiting(self) -> Changes:
        """Return the sessions that have changed and are not written yet."""
        return self._changes

    def trusted(self, name: SessionName) -> State | None:
        """Return the state from which on Redis has `name` as every reader must see it now; None: ask another store."""
        return self._written if self._serves and name not in self._changes else None

    def is_trusted(self, seen: State | None, since: State) -> bool:
        """Return whether an answer with the state `seen`, asked for when the last known was `since`, can be used."""
        return seen is not None and seen.epoch == since.epoch and seen.number >= since.number and seen.complete

    def suspect(self, operation: str, error: str) -> None:
        """A reader was not answered well: ask Redis no more until the feed has looked at it."""
        self._observer.short_term_store_failed(operation)
        self._last_error = f"{operation}: {error}"
        self._serves = False
        self._wake.set()

    async def wait_past(self, log_index: int, timeout_s: float) -> None:
        """Return when Redis has what the entries up to `log_index` did, or is away, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._last_error is None and self._written is not None and self._reaches() < log_index:
                    await self._moved.wait()
        except TimeoutError:
            _log.warning("Redis still holds what was forgotten", extra={"log_index": log_index})

    async def run(self) -> None:
        """Feed until cancelled; what waits then is written if that is possible at once."""
        try:
            while True:
                try:
                    await self._resume()
                    while True:
                        await self._round()
                except RedisChangedError as error:
                    await self._distrust(error)
                except RedisFailedError as error:
                    await self._fail(error)
        finally:
            await self._end()

    async def _resume(self) -> None:
        """Look at what the server has, and go on from there if it is what was written last."""
        self._operation = "open"
        found = await self._store.state()
        self._known.clear()
        if found is not None and found in (self._written, self._attempted) and not self._changes.has_overflowed:
            self._written = found
        else:
            await self._begin(found)
        self._attempted = None
        self._last_error = None
        self._serve()

    async def _begin(self, found: State | None) -> None:
        """Begin an epoch: everything is compared."""
        is_clean = found is not None and found.store == self._log_store and not found.unscrubbed
        state = State(
            store=self._log_store, epoch=self._new_id(), number=0, applied=0, complete=False, unscrubbed=not is_clean
        )
        self._changes.forget()
        self._removed.clear()
        if self._drops:
            await clear(self._store)
            self._drops = False
        await self._store.begin(state)
        self._written = state
        self._filling = Filling(self._source, self._store, store=self._log_store, write=self._write_filling)

    def _doubt(self) -> None:
        """Trust nothing any more."""
        self._serves = False
        self._written = self._attempted = None
        self._wake.set()

    def _serve(self) -> None:
        self._serves = self._written is not None and self._written.complete
        self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _round(self) -> None:
        self._wake.clear()
        if self._changes.has_overflowed:
            raise RedisChangedError("more sessions changed than are kept in mind")
        if self._written is None or not self._serves:
            await self._check()
        started_s = self._clock.monotonic_s()
        await self._write_changes()
        if self._filling is not None:
            await self._fill(self._filling)
        await self._scrub()
        self._last_error = None
        if self._serves:
            self._retry_s = self._options.retry_s
        await self._pause(self._clock.monotonic_s() - started_s)

    async def _check(self) -> None:
        """Make sure that the server has the state that was written last."""
        self._operation = "open"
        if await self._store.state() != self._expected():
            raise RedisChangedError("another state is there than the one that was written last")
        self._serve()

    async def _write_changes(self) -> None:
        self._operation = "write"
        names = self._changes.take(self._options.sessions_max)
        while names:
            written = await read(self._source, names, self._known, window=self._store.window, store=self._log_store)
            done = written.names
            await self._write(written, removes=not self._removed.isdisjoint(done))
            self._removed.difference_update(name for name in done if name not in self._changes)
            names = [name for name in names if name not in set(done)]

    async def _write_filling(self, written: Written, removes: bool) -> None:  # noqa: FBT001  a callable has no names
        await self._write(written, removes=removes)

    async def _write(self, written: Written, *, removes: bool) -> None:
        """Write sessions, with the state that follows."""
        before = self._expected()
        after = msgspec.structs.replace(
            before,
            number=before.number + 1,
            applied=self._reaches(without=frozenset(written.names)),
            unscrubbed=before.unscrubbed or removes or bool(written.removals),
        )
        await self._replace(before, after, written)
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
        for name in written.names:
            self._known.pop(name, None)
        self._known.update(written.known)
        self._changes.done(written.names)
        if removes or written.removals:
            self._scrubbing.want()
        self._tell()

    async def _replace(self, before: State, after: State, written: Written | None = None) -> None:
        self._attempted = after
        await self._store.write(before, after, *(() if written is None else (written.puts, written.removals)))
        self._written, self._attempted = after, None

    def _expected(self) -> State:
        if self._written is None:
            raise RedisChangedError("it is to be filled anew")
        return self._written

    def _reaches(self, without: Container[SessionName] = ()) -> int:
        """Return the last entry of which everything is in Redis, sessions that were not compared yet aside."""
        first = self._changes.first_index(without)
        return self._source.applied_index if first is None else first - 1

    async def _fill(self, filling: Filling) -> None:
        self._operation = "fill"
        await filling.step()
        if not filling.is_done:
            return
        self._filling = None
        before = self._expected()
        await self._replace(before, msgspec.structs.replace(before, number=before.number + 1, complete=True))
        if before.unscrubbed:
            self._scrubbing.want()
        self._serve()
        _log.info("Redis is filled", extra={"sessions": filling.compared, "messages": filling.messages})

    async def _scrub(self) -> None:
        """Let the server's files forget what was taken out."""
        self._operation = "scrub"
        if self._filling is not None:
            return
        try:
            is_clean = await self._scrubbing.step()
        except RedisFailedError as error:  # a server that others run may not allow it; all else goes on
            self._observer.short_term_store_failed(self._operation)
            _log.warning("Redis does not write its files anew", extra={"error": str(error)})
            self._scrubbing.postpone(self._options.retry_max_s)
            return
        if is_clean:
            before = self._expected()
            await self._replace(before, msgspec.structs.replace(before, number=before.number + 1, unscrubbed=False))

    async def _fail(self, error: RedisFailedError) -> None:
        self._give_up(f"{self._operation}: {error}")
        _log.warning(
            "Redis failed; the primary store answers for it",
            extra={"operation": self._operation, "error": str(error), "retry_s": self._retry_s},
        )
        await self._wait_to_retry()

    async def _distrust(self, error: RedisChangedError) -> None:
        _log.warning("comparing everything in Redis", extra={"reason": str(error)})
        self._doubt()
        self._tell()
        if self._filling is not None:  # again, and before everything was compared: somebody else writes there
            self._give_up(f"{error}; does another engram use this NODE_ID on this server?")
            await self._wait_to_retry()

    def _give_up(self, reason: str) -> None:
        self._serves = False
        self._last_error = reason
        self._observer.short_term_store_failed(self._operation)
        self._tell()

    async def _wait_to_retry(self) -> None:
        await asyncio.sleep(self._retry_s)
        self._retry_s = min(2 * self._retry_s, self._options.retry_max_s)

    async def _end(self) -> None:
        """Write what waits, if that is possible at once, and close."""
        with suppress(RedisFailedError, RedisChangedError, StorageError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                if self._serves and self._changes:
                    await self._resume()  # a write may have been cut off: then it is known now what came of it
                    await self._write_changes()
        await self._store.close()

    async def _pause(self, worked_s: float) -> None:
        """Let others work: a while after a write, and until something changes when there is nothing to do."""
        options = self._options
        if self._filling is not None:
            await asyncio.sleep(worked_s * (1 - options.fill_share) / options.fill_share)
            return
        await asyncio.sleep(options.period_s)
        if self._changes or self._wake.is_set():
            return
        try:
            async with asyncio.timeout(self._scrubbing.idle_s(options.check_s)):
                await self._wake.wait()
        except TimeoutError:
            await self._check()
