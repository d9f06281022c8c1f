"""Retention: old history is reduced to what the state needs, on every node by itself, at a gentle pace.

A pass first finds the horizon: the last entry of the history such that it and all before it are older than the history
is to be. Then it goes through the log up to there. It keeps no notes: what is reduced already is found to be so, and a
pass that was cut short is made again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from engram.clock import Clock
from engram.events import decode
from engram.projections.entries import LogEntry
from engram.projections.ledger import Decoded
from engram.projections.retention import Standing, reductions

DAY_MS = 86_400_000

PASS_S = 6 * 3600.0
"""Between looks at whether the horizon has moved. History is measured in days, so a quarter of one is soon enough."""

STEP_ENTRIES = 128
"""Entries read and rewritten at a time. Meanwhile an erasure waits: it must stay a matter of milliseconds."""

SHARE = 0.05
"""Part of the time in which this works: nobody waits for it, and everybody else is to notice nothing."""

_NORMAL = 0
"""The kind of an entry that holds events; others are the log's own."""

_logger = logging.getLogger(__name__)


class Status(Protocol):
    """The part of the log's status that is looked at."""

    @property
    def base_index(self) -> int:
        """Entries up to this one are history."""


class Log(Protocol):
    """The part of the replicated log that is used."""

    def status(self) -> Status:
        """Return where the log stands."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return up to `limit` committed entries behind the index `after`."""

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Replace payloads of committed entries, by log index, so that the old bytes are gone from disk."""


class Store(Protocol):
    """The part of the primary store that is used."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that was folded; 0 when there is none."""

    async def standing(self, entries: Sequence[Decoded]) -> Standing:
        """Return what has become of `entries`."""


class Observer(Protocol):
    """What is measured."""

    def history_reduced(self, entries: int, bytes_saved: int) -> None:
        """Count entries of which a part or all was left out."""


class Reduced(NamedTuple):
    """What a pass came to."""

    horizon_index: int
    entries: int = 0
    """Of which a part or all was left out, or would be."""
    bytes_saved: int = 0


class Retention:
    """Reduces the history. Run one of it."""

    def __init__(
        self,
        log: Log,
        store: Store,
        clock: Clock,
        *,
        history_days: int,
        rewriting: asyncio.Lock,
        observer: Observer,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        is_rehearsal: bool = False,
    ) -> None:
        """`rewriting` is held by whoever rewrites entries from what was in them; a rehearsal only counts."""
        self._log = log
        self._store = store
        self._clock = clock
        self._history_ms = history_days * DAY_MS
        self._rewriting = rewriting
        self._observer = observer
        self._sleep = sleep
        self._is_rehearsal = is_rehearsal
        self._horizon_index = 0
        """All entries up to this one are known to be old enough."""

    async def run(self) -> None:
        """Reduce for ever.

        Raises:
            CorruptionError: An entry cannot be read.
            StorageError: The disk failed.
        """
        done_index = 0
        while True:
            if await self.find_horizon() > done_index:
                reduced = await self.reduce()
                done_index = reduced.horizon_index
                if reduced.entries:
                    _logger.info("history was reduced", extra=reduced._asdict())
            await self._sleep(PASS_S)

    async def find_horizon(self) -> int:
        """Return the index up to which all entries are history, folded, and older than it is to be."""
        cutoff_ms = self._clock.now_ms() - self._history_ms
        limit_index = min(self._log.status().base_index, self._store.applied_index)
        while entries := await self._read(self._horizon_index, limit_index):
            started_s = self._clock.monotonic_s()
            for entry in entries:
                if any(event.at_ms >= cutoff_ms for event in entry.events):
                    return self._horizon_index
                self._horizon_index = entry.log_index
            await self._rest(started_s)
        return self._horizon_index

    async def reduce(self) -> Reduced:
        """Reduce the history up to the horizon that was found last."""
        total = Reduced(self._horizon_index)
        after = 0
        while after < total.horizon_index:
            started_s = self._clock.monotonic_s()
            async with self._rewriting:
                after, step = await self._step(after, total.horizon_index)
            self._observer.history_reduced(step.entries, step.bytes_saved)
            total = Reduced(step.horizon_index, total.entries + step.entries, total.bytes_saved + step.bytes_saved)
            await self._rest(started_s)
        return total

    async def _step(self, after: int, horizon_index: int) -> tuple[int, Reduced]:
        """Reduce the next entries; return the last one's index, and what it came to."""
        there = [entry for entry in await self._log.read(after, STEP_ENTRIES) if entry.index <= horizon_index]
        if not there:
            return horizon_index, Reduced(horizon_index)
        entries = [_decoded(entry) for entry in there]
        changed = reductions(entries, await self._store.standing(entries), horizon_index)
        if changed and not self._is_rehearsal:
            await self._log.rewrite(changed)
        saved = sum(len(entry.data) - len(changed[entry.index]) for entry in there if entry.index in changed)
        return there[-1].index, Reduced(horizon_index, len(changed), saved)

    async def _read(self, after: int, limit_index: int) -> list[Decoded]:
        if after >= limit_index:
            return []
        entries = await self._log.read(after, STEP_ENTRIES)
        return [_decoded(entry) for entry in entries if entry.index <= limit_index]

    async def _rest(self, started_s: float) -> None:
        """Leave the machine to others for as long as makes the share."""
        await self._sleep((self._clock.monotonic_s() - started_s) * (1 / SHARE - 1))


def _decoded(entry: LogEntry) -> Decoded:
    return Decoded(entry.index, decode(entry.data) if entry.kind == _NORMAL and entry.data else ())
