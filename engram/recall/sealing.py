"""Sealing: writing recall indexes down, so that after a restart a search opens them instead of building them.

Searches never write; this does, in the background. What it writes is derived and may be lost.
"""

import asyncio
import logging
from typing import Protocol

from engram.clock import Clock
from engram.projections.rows import RecallBlob, SessionRow
from engram.recall.freshness import Indexes

ROWS_MIN = 256
"""Messages beyond a blob that are worth a new one: building them again takes up to a quarter of a second."""

SHARE = 16
"""A long session's blob is written when one part in so many came since, so that writing stays cheap per message."""

SESSIONS_MAX = 1000
"""Sessions that are looked at in one round."""

INTERVAL_S = 5.0
"""Between two rounds."""

RESTS = 16.0
"""After sealing a session this waits so many times as long as it took: an import keeps the core, and what it leaves to
do is done afterwards. At 4 it was a tenth of what three nodes on one machine need for batches."""

_log = logging.getLogger(__name__)


class Blobs(Protocol):
    """The part of the primary store that the sealer uses."""

    async def unsealed(self, min_rows: int, limit: int) -> list[SessionRow]:
        """Return sessions with at least `min_rows` messages beyond their blob."""

    async def recall_blob(self, session_key: int) -> RecallBlob | None:
        """Return a session's sealed index."""

    async def save_recall_blob(self, session_key: int, blob: RecallBlob) -> bool:
        """Keep a session's sealed index, unless the session is gone or has had more deletions since: then False."""


class Sealer:
    """Writes down the indexes of sessions that grew."""

    def __init__(
        self, blobs: Blobs, indexes: Indexes, clock: Clock, *, interval_s: float = INTERVAL_S, rests: float = RESTS
    ) -> None:
        self._blobs = blobs
        self._indexes = indexes
        self._clock = clock
        self._interval_s = interval_s
        self._rests = rests
        self._sealed_ordinals: dict[tuple[int, int], int] = {}
        """Of long sessions that are not due yet, by key and deletions: so that their blobs are not read every round."""
        self._dropped = indexes.dropped

    async def run(self) -> None:
        """Seal for ever, in rounds."""
        while True:
            await self.seal_due()
            await asyncio.sleep(self._interval_s)

    async def seal_due(self) -> int:
        """Seal every session that is due now; return how many."""
        sealed = 0
        if self._dropped != self._indexes.dropped:  # the blobs are gone as well
            self._sealed_ordinals.clear()
            self._dropped = self._indexes.dropped
        for session in await self._blobs.unsealed(ROWS_MIN, SESSIONS_MAX):
            if await self._is_due(session):
                start_s = self._clock.monotonic_s()
                await self._seal(session)
                await asyncio.sleep((self._clock.monotonic_s() - start_s) * self._rests)
                sealed += 1
        return sealed

    async def _is_due(self, session: SessionRow) -> bool:
        if session.next_ordinal <= ROWS_MIN * SHARE:
            return True
        life = session.session_key, session.deletions
        sealed = self._sealed_ordinals.get(life)
        if sealed is None:
            blob = await self._blobs.recall_blob(session.session_key)
            sealed = self._sealed_ordinals[life] = 0 if blob is None else blob.next_ordinal
        return session.next_ordinal - sealed >= session.next_ordinal // SHARE

    async def _seal(self, session: SessionRow) -> None:
        cached = await self._indexes.current(session)
        # Cursors before bytes: an index that moves on in between is sealed as older than it is, which does no harm.
        next_ordinal, vectors_index, deletions = cached.cursors
        data = await self._indexes.run(cached.index.to_bytes)
        blob = RecallBlob(next_ordinal, vectors_index, deletions, data)
        if await self._blobs.save_recall_blob(session.session_key, blob):
            self._sealed_ordinals.pop((session.session_key, session.deletions), None)
            _log.debug("recall index sealed", extra={"session_key": session.session_key, "size_bytes": len(data)})
