"""Bringing a session's recall index up to date: from memory, else from its blob, then with what came since.

All work on indexes runs in one thread of its own: it is the only one that touches them, so they need no locks, and
the loop never waits for numpy. A long rebuild runs there in slices, so that other searches get their turn in between.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from engram.projections.rows import MessageRow, RecallBlob, RecallDelta, SessionRow
from engram.recall.blob import BlobError
from engram.recall.cache import CachedIndex, Cursors, IndexCache
from engram.recall.index import SessionIndex

PAGE_ROWS = 512
"""Messages that are read at once when a session is far behind."""

SLICE_ROWS = 64
SLICE_CHARS = 65_536
"""Messages, and characters of theirs, that are folded before another search gets its turn: about 10 ms."""

SLICE_VECTORS = 4096
"""The same for vectors."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Reads(Protocol):
    """The part of the primary store that indexes are made from."""

    async def recall_blob(self, session_key: int) -> RecallBlob | None:
        """Return a session's sealed index; None when there is none, or when it is out of date."""

    async def recall_delta(self, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
        """Return messages from `next_ordinal` on, and vectors given at log indexes above `vectors_index`."""

    async def messages(self, session_key: int, *, after: int | None, limit: int, descending: bool) -> list[MessageRow]:
        """Return messages by ordinal, from behind the ordinal `after`."""


class Indexes:
    """The recall indexes of all sessions."""

    def __init__(self, reads: Reads, *, cache_bytes_max: int) -> None:
        self._reads = reads
        self._cache = IndexCache(cache_bytes_max)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engram-recall")
        self._loading: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self.dropped = 0
        """How often all that is known was dropped: what was read before is of read models that are gone."""

    @property
    def size_bytes(self) -> int:
        """Memory that cached indexes hold."""
        return self._cache.size_bytes

    def drop(self) -> None:
        """Forget every index: the read models were built again."""
        self._cache.clear()
        self.dropped += 1

    def close(self) -> None:
        """End the thread after the work it is at; what waits is cancelled. Does not block the loop."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in the thread that owns the indexes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def current(self, session: SessionRow) -> CachedIndex:
        """Return the index of a session, holding everything that the row says has happened to it.

        Only `run` may touch the index itself.
        """
        cached = self._cached(session)
        if cached is not None:
            return cached
        lock = self._loading.setdefault(session.session_key, asyncio.Lock())
        async with lock:
            cached = self._cached(session)
            return cached if cached is not None else await self._load(session)

    def _cached(self, session: SessionRow) -> CachedIndex | None:
        cached = self._cache.get(session.session_key)
        return cached if cached is not None and cached.cursors.cover(session) else None

    async def _load(self, session: SessionRow) -> CachedIndex:
        dropped = self.dropped
        cached = self._cache.get(session.session_key)
        if cached is None or cached.cursors.deletions < session.deletions:
            cached = await self._open(session)
        await self._catch_up(cached, session)
        size_bytes = await self.run(_size_bytes, cached.index)
        if dropped == self.dropped:
            self._cache.put(session.session_key, cached, size_bytes)
        return cached

    async def _open(self, session: SessionRow) -> CachedIndex:
        """Return what the session's blob holds, or an empty index when there is none that can be used."""
        blob = await self._reads.recall_blob(session.session_key)
        if blob is not None and blob.deletions >= session.deletions:
            try:
                index = await self.run(SessionIndex.from_bytes, blob.data)
            except BlobError as error:
                _log.warning("recall index is built afresh: %s", error, extra={"session_key": session.session_key})
            else:
                return CachedIndex(index, Cursors(blob.next_ordinal, blob.vectors_index, blob.deletions))
        return CachedIndex(SessionIndex.empty(), Cursors(0, 0, session.deletions))

    async def _catch_up(self, cached: CachedIndex, session: SessionRow) -> None:
        """Fold what came since. Cursors move last: a fold that was broken off is done again, and changes nothing."""
        key, cursors = session.session_key, cached.cursors
        next_ordinal = cursors.next_ordinal
        while session.next_ordinal - next_ordinal > PAGE_ROWS:
            after = next_ordinal - 1 if next_ordinal else None
            page = await self._reads.messages(key, after=after, limit=PAGE_ROWS, descending=False)
            if not page:
                break
            await self._fold(cached.index, RecallDelta(page, []))
            next_ordinal = page[-1].ordinal + 1
        delta = await self._reads.recall_delta(key, next_ordinal=next_ordinal, vectors_index=cursors.vectors_index)
        await self._fold(cached.index, delta)
        if delta.messages:
            next_ordinal = delta.messages[-1].ordinal + 1
        cached.cursors = Cursors(
            max(next_ordinal, session.next_ordinal),
            max(cursors.vectors_index, session.vectors_index),
            max(cursors.deletions, session.deletions),
        )

    async def _fold(self, index: SessionIndex, delta: RecallDelta) -> None:
        for part in slices(delta):
            await self.run(index.fold, part)


def slices(delta: RecallDelta) -> Iterator[RecallDelta]:
    """Cut a delta into parts that take about 10 ms each: messages first, and small deltas whole."""
    messages: list[MessageRow] = []
    chars = 0
    for message in delta.messages:
        messages.append(message)
        chars += len(message.text)
        if len(messages) == SLICE_ROWS or chars >= SLICE_CHARS:
            yield RecallDelta(messages, [])
            messages, chars = [], 0
    first = delta.vectors[:SLICE_VECTORS]
    if messages or first:
        yield RecallDelta(messages, first)
    for start in range(SLICE_VECTORS, len(delta.vectors), SLICE_VECTORS):
        yield RecallDelta([], delta.vectors[start : start + SLICE_VECTORS])


def _size_bytes(index: SessionIndex) -> int:
    return index.size_bytes
