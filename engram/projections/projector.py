"""The projector: committed entries in, verdicts out. One task, one transaction a batch."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Protocol

from engram.errors import CorruptionError, NoLeaderError, NotReadyError, TimedOutError
from engram.projections.entries import LogEntry
from engram.projections.verdicts import Verdict


class Status(Protocol):
    """The part of the log's status that the projector looks at."""

    @property
    def last_index(self) -> int:
        """Index of the last entry that is durable here, committed or not."""


class Log(Protocol):
    """The part of the replicated log that the projector reads."""

    def entries(self, after: int) -> AsyncIterator[Sequence[LogEntry]]:
        """Yield committed entries behind the index `after`, in order, and wait for more at the end."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return up to `limit` committed entries behind the index `after`."""

    def status(self) -> Status:
        """Return where the log stands."""


class Store(Protocol):
    """What entries are folded into."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that was folded; 0 when there is none."""

    @property
    def applied_term(self) -> int:
        """Term of that entry."""

    async def apply(self, entries: Sequence[LogEntry]) -> list[list[Verdict]]:
        """Fold entries; return the verdicts on each one's events."""


Waiter = asyncio.Future[Sequence[Verdict]]


class Projector:
    """Folds the log into a store, and answers those who wait for an entry."""

    def __init__(self, log: Log, store: Store) -> None:
        self._log = log
        self._store = store
        self._expected: dict[int, list[tuple[int, Waiter]]] = {}
        """Log index -> (term, future) of those who proposed an entry for it."""
        self._awaited: list[tuple[int, int, asyncio.Future[None]]] = []
        """A heap of (log index, tie-breaker, future) of those who wait for an entry, whoever proposed it."""
        self._tie_breaker = count()
        self._is_stopped = False

    async def run(self) -> None:
        """Fold for ever. Whoever waits for a verdict when this ends is told that the outcome is unknown.

        Raises:
            CorruptionError: An entry cannot be decoded, or the store has folded another log than this one.
            StorageError: The disk failed.
        """
        try:
            await self._check_same_log()
            async for entries in self._log.entries(self._store.applied_index):
                self._answer(entries, await self._store.apply(entries))
        finally:
            self._stop()

    def expect(self, log_index: int, term: int) -> Waiter:
        """Return a future of the verdicts, one for each event of the entry that was proposed at that position.

        It fails with NoLeaderError when an entry of another term takes the place: nothing was written. It fails with
        TimedOutError when the projector stops first: the outcome is unknown.
        """
        waiter: Waiter = asyncio.get_running_loop().create_future()
        if self._is_stopped or log_index <= self._store.applied_index:
            waiter.set_exception(_unknown(log_index))
        else:
            self._expected.setdefault(log_index, []).append((term, waiter))
        return waiter

    def abandon(self, term: int) -> None:
        """Tell those who wait for entries proposed in `term` or before that nobody knows what becomes of them."""
        for log_index, waiters in list(self._expected.items()):
            for proposed, waiter in waiters:
                if proposed <= term and not waiter.done():
                    waiter.set_exception(
                        TimedOutError(
                            f"this node led when it took entry {log_index}, and leads no more; the entry may or may not "
                            "be written: retry with the same ids"
                        )
                    )

    async def wait_applied(self, index: int, timeout_s: float) -> None:
        """Return when reads see the entry at `index`.

        Raises:
            NotReadyError: They did not within `timeout_s`.
        """
        if index <= self._store.applied_index:
            return
        reached = asyncio.get_running_loop().create_future()
        awaited = (index, next(self._tie_breaker), reached)
        heapq.heappush(self._awaited, awaited)
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError:
            raise NotReadyError(
                f"entry {index} was not applied here within {timeout_s:g} s; entry {self._store.applied_index} was"
            ) from None
        finally:
            if reached.cancelled() and awaited in self._awaited:  # it may never be reached
                self._awaited.remove(awaited)
                heapq.heapify(self._awaited)

    async def _check_same_log(self) -> None:
        """Refuse a log that is not the one which the store was folded from.

        Entries behind the commit index that is known so far are no fault: after a start it is learnt anew.
        """
        applied_index, last_index = self._store.applied_index, self._log.status().last_index
        if applied_index > last_index:
            raise CorruptionError(
                f"the projections have applied entry {applied_index}, but the log ends at {last_index}: an older state "
                "of the log was restored; delete the projections' file to rebuild it, or restore the newer log"
            )
        if applied_index == 0:
            return
        there = await self._log.read(applied_index - 1, 1)
        if there and there[0].index == applied_index and there[0].term != self._store.applied_term:
            raise CorruptionError(
                f"the projections have applied entry {applied_index} of term {self._store.applied_term}, but the log "
                f"has one of term {there[0].term} there: it is another log; delete the projections' file to rebuild it"
            )

    def _answer(self, entries: Sequence[LogEntry], verdicts: Sequence[Sequence[Verdict]]) -> None:
        if self._expected:
            for entry, words in zip(entries, verdicts, strict=True):
                for term, waiter in self._expected.pop(entry.index, ()):
                    _settle(waiter, entry, term, words)
        while self._awaited and self._awaited[0][0] <= self._store.applied_index:
            _, _, reached = heapq.heappop(self._awaited)
            if not reached.done():
                reached.set_result(None)

    def _stop(self) -> None:
        self._is_stopped = True
        for log_index, waiters in self._expected.items():
            for _, waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(_unknown(log_index))
        self._expected.clear()


def _settle(waiter: Waiter, entry: LogEntry, term: int, verdicts: Sequence[Verdict]) -> None:
    if waiter.done():
        return
    if entry.term == term:
        waiter.set_result(verdicts)
    else:
        waiter.set_exception(
            NoLeaderError(f"another leader's entry stands at {entry.index}; nothing was written, so retry")
        )


def _unknown(log_index: int) -> TimedOutError:
    return TimedOutError(
        f"this node stopped before it applied entry {log_index}; it may or may not be written: retry with the same ids"
    )
