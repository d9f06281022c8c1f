"""The log of a node that does not run, as something to copy: clean of all that was deleted, and complete."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from engram.cli.progress import Progress
from engram.cli.stopped import commit_index, fold, open_log
from engram.config import Config
from engram.log.consensus.types import ConfState, Entry
from engram.log.sqlite import SqliteLog
from engram.projections.entries import in_batches
from engram.projections.eraser import Eraser
from engram.projections.sqlite_store import PrimaryStore


class StoppedLog:
    """A log up to an index, read as that of a running node is."""

    def __init__(self, log: SqliteLog, up_to: int) -> None:
        self._log = log
        self.applied_index = up_to

    @property
    def rewrites(self) -> int:
        """How often rows were rewritten."""
        return self._log.rewrites

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Return up to `limit` entries above `after`."""
        return await self._log.read(after, self.applied_index, limit) if after < self.applied_index else ()

    def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """Yield the entries above `after`, and end."""
        return in_batches(self.read, after)

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Replace payloads, by log index."""
        await self._log.rewrite(payloads)


async def settled_index(log: SqliteLog) -> int:
    """Return the highest index that may have been acknowledged by this node alone, or that it knows to be committed.

    The commit index is written one batch late. Where nobody else votes, what is durable is committed.
    """
    state = log.state
    is_alone = state.base_members == ConfState(voters=(state.node_id,))
    if is_alone and not await log.membership_changes(state.last_index):
        return state.last_index
    return commit_index(log)


@asynccontextmanager
async def open_clean_log(
    config: Config, progress: Progress
) -> AsyncIterator[tuple[SqliteLog, StoppedLog, PrimaryStore]]:
    """Open the log, which is checked, and finish what is still to be erased from it; the read models have folded it.

    Raises:
        ConfigError: There is none.
        CorruptionError: It is not as it was written.
        StorageError: A node runs, or the disk failed.
    """
    async with open_log(config, read_only=False) as log:
        stopped = StoppedLog(log, await settled_index(log))
        await asyncio.to_thread(config.projections_path.parent.mkdir, parents=True, exist_ok=True)
        store = await PrimaryStore.open(config.projections_path)
        try:
            if (waiting := stopped.applied_index - store.applied_index) > 0:
                with progress.step("folding the log", waiting) as advance:
                    await fold(log, store, stopped.applied_index, advance)
            eraser = Eraser(stopped, store, None)
            while await eraser.clean_log():
                pass
            yield log, stopped, store
        finally:
            await store.close()
