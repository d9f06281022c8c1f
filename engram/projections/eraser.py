"""The eraser: forgetting reaches the log, the projections' file, and the long-term store.

What is to be erased is a table of the primary store, written in the same transaction that made readers forget it. Each
step may be done twice, so after a crash the eraser goes on where the table stands:

1. Entries of the log that carry it are rewritten.
2. The texts of facts, by which those entries were known, are dropped. The projections' file and what lies beside it
   are scrubbed. Now the deletion is answered.
3. The long-term store forgets it. It may be slow or away; it holds up nothing but itself.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from engram.projections.entries import LogEntry
from engram.projections.erasures import Erasure, Kind, rewrite
from engram.projections.sqlite_reads import Trace

_logger = logging.getLogger(__name__)

BATCH: int = 256
"""Erasures taken at a time: they share one rewriting of the log, which costs a flush."""

ENTRIES_MAX: int = 4_096
"""Entries rewritten at a time: each may have 4 MiB, though few have."""


class Log(Protocol):
    """The part of the replicated log that the eraser uses."""

    def entries(self, after: int) -> AsyncIterator[Sequence[LogEntry]]:
        """Yield committed entries behind the index `after`, and wait for more at the end."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return up to `limit` committed entries behind the index `after`."""

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Replace payloads of committed entries, by log index, so that the old bytes are gone from disk."""


class LongTerm(Protocol):
    """The part of the long-term store that the eraser uses."""

    async def forget(self, session_id: str, tenant: str, message_id: str | None, up_to_index: int) -> None:
        """Forget a message, or a session, as far as its vectors were given up to that log index.

        Returns when it is gone from disk, however long that takes. May be told the same again.
        """


class Store(Protocol):
    """The part of the primary store that the eraser uses."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that was folded; 0 when there is none."""

    @property
    def erasure_wanted(self) -> asyncio.Event:
        """Set when there is something new to erase."""

    async def erasures(self, *, limit: int, log_is_clean: bool) -> list[Erasure]:
        """Return what is still to be erased of the log, or behind it."""

    async def is_log_clean(self, log_index: int) -> bool:
        """Return whether the log is clean of what the deletion at `log_index` forgets."""

    async def traces(self, erasure: Erasure, limit: int) -> list[Trace]:
        """Return entries that carry what is to be erased; all that are left when they are fewer than `limit`."""

    async def drop_traces(self, erasure: Erasure, log_indexes: Sequence[int]) -> None:
        """Forget which entries carried what is erased from them now."""

    async def drop_texts(self, erasures: Sequence[Erasure]) -> None:
        """Forget the texts of facts that the log is clean of."""

    async def end_erasures(self, erasures: Sequence[Erasure], *, log_only: bool) -> None:
        """Note that the log is clean of `erasures`, and with `log_only` false that everything else is, too."""

    async def scrub(self) -> bool:
        """Let no deleted byte stay in the file or beside it; False when a reader is in the way."""


class _Nowhere:
    """A long-term store that is not there."""

    async def forget(self, session_id: str, tenant: str, message_id: str | None, up_to_index: int) -> None:
        pass


class Eraser:
    """Carries out erasures, in the order of their deletions."""

    def __init__(self, log: Log, store: Store, long_term: LongTerm | None) -> None:
        self._log = log
        self._store = store
        self._long_term = long_term or _Nowhere()
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        """Log index of a deletion -> those who wait until the log and the projections are clean of it."""
        self._log_cleaned = asyncio.Event()
        """Set when there may be something new for the long-term store."""
        self.rewriting = asyncio.Lock()
        """Held by whoever reads entries of the log to rewrite them: what is erased must not come back with a copy."""

    async def run(self) -> None:
        """Erase for ever, first what an earlier run left.

        Raises:
            CorruptionError: An entry that must be rewritten cannot be read.
            StorageError: The disk failed.
        """
        await self._wait_for_log()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._clean_log_for_ever())
            tasks.create_task(self._clean_long_term_for_ever())

    async def wait_erased(self, index: int) -> None:
        """Return when what the deletion at `index` forgets is gone from the files of the log and the projections.

        Returns at once when that deletion had nothing to forget. The entry must have been applied here.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(index, []).append(done)
        try:
            if not await self._store.is_log_clean(index):
                await done
        finally:
            self._leave(index, done)

    async def clean_log(self) -> int:
        """Clean the log and the projections' file of what is to be erased, one batch of it; return how much it was."""
        async with self.rewriting:
            erasures = await self._store.erasures(limit=BATCH, log_is_clean=False)
            if erasures:
                await self._clean_log(erasures)
                self._log_cleaned.set()
        return len(erasures)

    async def _wait_for_log(self) -> None:
        """Wait until the log knows again that everything folded here is committed; it may be rewritten only then."""
        applied_index = self._store.applied_index
        if applied_index:
            await anext(self._log.entries(applied_index - 1), None)

    async def _clean_log(self, erasures: Sequence[Erasure]) -> None:
        payloads: dict[int, bytes] = {}
        for erasure in erasures:
            while len(traces := await self._store.traces(erasure, ENTRIES_MAX)) == ENTRIES_MAX:
                payloads |= await self._rewritten(erasure, traces, payloads)
                await self._log.rewrite(payloads)
                payloads = {}
                await self._store.drop_traces(erasure, [trace.log_index for trace in traces])
            payloads |= await self._rewritten(erasure, traces, payloads)
            if len(payloads) >= ENTRIES_MAX:
                await self._log.rewrite(payloads)
                payloads = {}
        if payloads:
            await self._log.rewrite(payloads)
        await self._store.drop_texts(erasures)
        while not await self._store.scrub():
            _logger.warning("a long read keeps deleted pages on disk; trying again")
        await self._store.end_erasures(erasures, log_only=True)
        self._tell(erasures)

    async def _rewritten(
        self, erasure: Erasure, traces: Sequence[Trace], changed: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        effective = {trace.log_index for trace in traces if trace.is_effective}
        return rewrite(await self._payloads(erasure, traces, changed), erasure, effective)

    async def _payloads(
        self, erasure: Erasure, traces: Sequence[Trace], changed: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """Return the payloads of the traced entries as they are now; `changed` ones are not written yet."""
        if erasure.kind in {Kind.SESSION, Kind.ENTRY}:
            return {trace.log_index: _ANY for trace in traces}
        payloads: dict[int, bytes] = {}
        for log_index, _ in traces:
            if log_index in changed:
                payloads[log_index] = changed[log_index]
                continue
            for entry in await self._log.read(log_index - 1, 1):
                if entry.index == log_index:  # else erased with all that was in it
                    payloads[log_index] = entry.data
        return payloads

    async def _clean_log_for_ever(self) -> None:
        while True:
            self._store.erasure_wanted.clear()
            self._log_cleaned.set()
            if not await self.clean_log():
                await self._store.erasure_wanted.wait()

    async def clean_long_term(self) -> int:
        """Let the long-term store forget one batch of what the log is clean of; return how much it was."""
        erasures = await self._store.erasures(limit=BATCH, log_is_clean=True)
        async with asyncio.TaskGroup() as tasks:  # together, so that one sweep of the disk can serve them all
            for erasure in erasures:
                message_id = erasure.subject if erasure.kind is Kind.MESSAGE else None
                tasks.create_task(
                    self._long_term.forget(erasure.session_id, erasure.tenant, message_id, erasure.log_index)
                )
        if erasures:
            await self._store.end_erasures(erasures, log_only=False)
        return len(erasures)

    async def _clean_long_term_for_ever(self) -> None:
        while True:
            self._log_cleaned.clear()
            if not await self.clean_long_term():
                await self._log_cleaned.wait()

    def _tell(self, erasures: Sequence[Erasure]) -> None:
        for erasure in erasures:
            for done in self._waiting.get(erasure.log_index, ()):
                if not done.done():
                    done.set_result(None)

    def _leave(self, index: int, done: asyncio.Future[None]) -> None:
        left = self._waiting[index]
        left.remove(done)
        if not left:
            del self._waiting[index]


_ANY = b"\x00"
"""Stands for a payload that is not looked at because the whole entry goes."""
