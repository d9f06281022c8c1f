"""Copies of the log of a node that runs: one reads a few rows at a time, so that writes go on meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from engram.errors import NotReadyError, OverloadedError
from engram.moving.backup import Erased, Pending, backup, wait_clean
from engram.moving.backup_format import Head
from engram.moving.export import Ledger, export
from engram.moving.export_format import ExportHead
from engram.moving.rows import Log

COPIES_MAX = 2
"""At a time: each reads the whole log, and holds a few MiB of it."""

CLEAN_S = 10.0
"""How long a copy waits for what was deleted before to be erased."""


class Store(Pending, Ledger, Protocol):
    """The part of the primary store that knows what is still to be erased, and what counted."""


class Copier:
    """Hands out copies of one node's log.

    Args:
        log: What is copied.
        store, erased: What is still to be erased from it, and when it is; and what of it counted.
        head: What a backup says of where it comes from, now.
    """

    def __init__(self, log: Log, store: Store, erased: Erased, head: Callable[[], Head]) -> None:
        self._log = log
        self._store = store
        self._erased = erased
        self._head = head
        self._copies = 0

    def backup(self) -> AsyncGenerator[bytes]:
        """Return the bytes of a backup, up to an index that is not before the one applied now.

        The first raises OverloadedError when too many copies are under way, and NotReadyError when what was deleted
        before is not erased in time.
        """
        return self._one_of_few(lambda: backup(self._log, self._head()))

    def export(self, *, after: int, session_id: str | None) -> AsyncGenerator[bytes]:
        """Return the bytes of an export of the entries above `after`, of one session or all; raises like `backup`."""

        def begin() -> AsyncGenerator[bytes]:
            origin = self._head()
            head = ExportHead(
                engram=origin.engram,
                created_at_ms=origin.created_at_ms,
                store_id=origin.store_id,
                cluster_id=origin.cluster_id,
                after=after,
                session_id=session_id,
            )
            return export(self._log, self._store, head)

        return self._one_of_few(begin)

    async def _one_of_few(self, begin: Callable[[], AsyncGenerator[bytes]]) -> AsyncGenerator[bytes]:
        if self._copies >= COPIES_MAX:
            raise OverloadedError(f"{COPIES_MAX} copies of the log are under way, which is the limit: try again later")
        self._copies += 1
        try:
            await self._wait_clean()
            async with aclosing(begin()) as parts:
                async for part in parts:
                    yield part
        finally:
            self._copies -= 1

    async def _wait_clean(self) -> None:
        try:
            async with asyncio.timeout(CLEAN_S):
                await wait_clean(self._store, self._erased, self._log.applied_index)
        except TimeoutError:
            raise NotReadyError(
                f"what was deleted is not erased from the log within {CLEAN_S:g} s: try again"
            ) from None
