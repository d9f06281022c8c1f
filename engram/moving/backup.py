"""A backup: the bytes of the backup file for a log, while it lives on or while its node is stopped."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from engram.moving.backup_format import BackupWriter, Head
from engram.moving.rows import Log, rows_at_one_index
from engram.projections.erasures import Erasure


class Pending(Protocol):
    """The part of the primary store that knows what is still to be erased."""

    async def erasures(self, *, after: int = 0, limit: int, log_is_clean: bool) -> list[Erasure]:
        """Return what is still to be erased of the log, or behind it, because of deletions behind the index `after`."""


class Erased(Protocol):
    """The part of the eraser that is waited on."""

    async def wait_erased(self, index: int) -> None:
        """Return when what the deletion at `index` forgets is gone from the files of the log and the projections."""


async def wait_clean(pending: Pending, erased: Erased, up_to: int) -> None:
    """Return when the log holds nothing any more of what was deleted up to the index `up_to`, which was applied."""
    while oldest := await pending.erasures(limit=1, log_is_clean=False):
        if oldest[0].log_index > up_to:
            return
        await erased.wait_erased(oldest[0].log_index)


async def backup(log: Log, head: Head) -> AsyncGenerator[bytes]:
    """Yield the bytes of a backup of `log`, up to the index that it has by then, a part of a MiB or less at a time.

    Appends go on meanwhile. What was erased from the log before is not in it.
    """
    writer = BackupWriter()
    yield writer.begin(head)
    async with aclosing(rows_at_one_index(log)) as batches:
        async for rows in batches:
            for part in writer.add(rows):
                yield part
    yield writer.end()
