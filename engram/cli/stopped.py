"""The data folder of a node that does not run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from engram.config import Config
from engram.errors import ConfigError
from engram.foundation import open_log as open_log_of
from engram.log.sqlite import SqliteLog
from engram.projections.sqlite_store import PrimaryStore


@asynccontextmanager
async def open_log(config: Config, *, read_only: bool) -> AsyncIterator[SqliteLog]:
    """Open the log that is there. Unless `read_only`, it is checked first, and no node can start meanwhile.

    Raises:
        ConfigError: There is none.
        StorageError: A node has it open, or the disk failed.
        CorruptionError: It is not as it was written; never when `read_only`.
    """
    if not await asyncio.to_thread(config.log_path.exists):
        raise ConfigError(f"there is no log at {config.log_path}; ENGRAM_DATA_DIR and RAFT_DB_PATH say where it is")
    log = await open_log_of(config, read_only=read_only)
    try:
        yield log
    finally:
        await log.close()


async def fold(log: SqliteLog, store: PrimaryStore, up_to: int, advance: Callable[[int], None]) -> None:
    """Fold the entries that `store` has not folded, up to the index `up_to`."""
    done = store.applied_index
    async for batch in log.history(done):
        wanted = [entry for entry in batch if entry.index <= up_to]
        if not wanted:
            return
        await store.apply(wanted)
        advance(wanted[-1].index - done)
        done = wanted[-1].index


def commit_index(log: SqliteLog) -> int:
    """Return the highest index that is known to be committed: later entries are for a running node to decide on."""
    hard_state, _ = log.initial_state()
    return hard_state.commit


def sqlite_files(path: Path) -> list[Path]:
    """Return the names that a SQLite database at `path` may occupy."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
