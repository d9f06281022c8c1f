"""`engram rebuild`: drop read models, and build them again from the log."""

import asyncio
from pathlib import Path

from engram.cli.progress import Progress
from engram.cli.stopped import commit_index, fold, open_log, sqlite_files
from engram.config import Config
from engram.errors import ConfigError, EngramError, StorageError
from engram.foundation import open_redis_of, stored_space
from engram.log.sqlite import SqliteLog
from engram.projections import lance_feed, redis_rebuilding
from engram.projections.lance_store import LanceError, LanceStore
from engram.projections.redis_store import RedisChangedError, RedisFailedError
from engram.projections.sqlite_store import PrimaryStore


async def run(config: Config, target: str, progress: Progress) -> int:
    """Rebuild `target`: projections, lancedb, redis or all. Stopped halfway, a node or another run goes on from there.

    Raises:
        ConfigError: There is no log, or no Redis is set.
        CorruptionError: The log is not as it was written.
        StorageError: A node runs, or the disk, LanceDB or Redis failed.
    """
    if target == "redis" and config.redis_url is None:
        raise ConfigError("REDIS_URL is not set: there is no Redis to rebuild")
    async with open_log(config, read_only=False) as log:
        if target in {"projections", "all"}:
            await asyncio.to_thread(_delete, config.projections_path)
        store = await PrimaryStore.open(config.projections_path)
        try:
            await _fold(log, store, progress)
            if target in {"lancedb", "all"}:
                await rebuild_lancedb(config, store, progress)
            if target in {"redis", "all"}:
                await rebuild_redis(config, log, store, progress)
        finally:
            await store.close()
    return 0


async def rebuild_lancedb(config: Config, store: PrimaryStore, progress: Progress) -> None:
    """Write the long-term store anew from the primary store.

    Raises:
        StorageError: LanceDB failed.
    """
    space = await stored_space(config, store)
    counts = await store.counts()
    lance = LanceStore(config.lance_uri, **space._asdict())
    try:
        with progress.step("writing vectors to LanceDB", counts.messages - counts.pending_embeddings) as advance:
            rows = await lance_feed.rebuild(lance, store, advance)
    except LanceError as error:
        raise _failure(config, error) from error
    finally:
        await lance.stop()
    progress.say(f"LanceDB at {config.lance_uri} holds {rows} vectors of {space.model}")


async def rebuild_redis(config: Config, log: SqliteLog, store: PrimaryStore, progress: Progress) -> None:
    """Write short-term and core memory anew from the primary store, where a Redis is set.

    Raises:
        StorageError: Redis failed.
    """
    redis = open_redis_of(config)
    if redis is None:
        return
    try:
        with progress.step("writing sessions to Redis", (await store.counts()).sessions) as advance:
            messages = await redis_rebuilding.rebuild(redis, store, advance, log_store=log.state.store_id)
    except (RedisFailedError, RedisChangedError) as error:
        raise StorageError(f"Redis: {error}") from error
    finally:
        await redis.close()
    progress.say(f"Redis holds the latest {messages} messages")


async def _fold(log: SqliteLog, store: PrimaryStore, progress: Progress) -> None:
    up_to = commit_index(log)
    with progress.step("folding the log", up_to - store.applied_index) as advance:
        await fold(log, store, up_to, advance)
    counts = await store.counts()
    progress.say(
        f"the read models are at entry {store.applied_index}: "
        f"{counts.sessions} sessions, {counts.messages} messages, {counts.facts} facts"
    )


def _delete(path: Path) -> None:
    for file in sqlite_files(path):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{file} cannot be deleted: {error.strerror}") from error


def _failure(config: Config, error: LanceError) -> EngramError:
    return StorageError(f"LanceDB at {config.lance_uri}: {error}")
