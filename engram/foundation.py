"""What every use of the data folder stands on: the log, what was folded from it, the way to write, the embedder.

A node that runs standalone is a cluster of one that nobody can join. A node of a cluster has, besides, a way to the
others; until it belongs to one it waits.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engram.clock import Clock
from engram.config import Config
from engram.errors import ConfigError, NotReadyError
from engram.inference import choice
from engram.inference.choice import AnyEmbedder, Choice, Server
from engram.inference.embedder import LocalEmbedder, RemoteEmbedder
from engram.log.cluster import Cluster
from engram.log.consensus.types import ConfState
from engram.log.exchange import Exchange
from engram.log.options import Observer, Options
from engram.log.replica import Replica
from engram.log.sqlite import SqliteLog
from engram.projections.lance_rows import Space
from engram.projections.projector import Projector
from engram.projections.redis_feed import Observer as RedisObserver
from engram.projections.redis_projection import RedisProjection, open_redis
from engram.projections.redis_store import RedisStore
from engram.projections.scratch import sweep
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.query_vectors import Embedder
from engram.recall.reader import LOOK_BACK_MESSAGES
from engram.recorder import Recorder
from engram.workers.embedder_source import Note

STANDALONE_ID = 1
"""A standalone node's: its log is a cluster of one."""

TICKS_A_HEARTBEAT = 2
"""Finer than the heartbeat, so that election timeouts spread and few votes are split."""

HUNG_S_MIN = 1.0
"""A disk may take this long, whatever the election timeout: busy machines stall for half a second."""

READ_S = 5.0
"""How long a linearizable read waits for the leader's word."""

_log = logging.getLogger(__name__)


class _Unmeasured:
    """An observer for commands, which show their own progress."""

    def synced(self, seconds: float, entries: int) -> None: ...
    def committed(self, seconds: float) -> None: ...
    def led_by(self, leader_id: int) -> None: ...
    def snapshot_built(self) -> None: ...
    def snapshot_installed(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Foundation:
    """The log, the read models, and the way to write."""

    log: SqliteLog
    replica: Replica
    store: PrimaryStore
    projector: Projector
    recorder: Recorder
    cluster: Cluster | None
    """None: standalone."""

    def make_redis(self, config: Config, *, clock: Clock, observer: RedisObserver) -> RedisProjection | None:
        """Return what keeps short-term memory in Redis; None where the settings name no server.

        Raises:
            ConfigError: The server's address has an option that the driver does not know.
        """
        redis = open_redis_of(config)
        if redis is None:
            return None
        return RedisProjection(
            redis,
            self.store,
            log_store=self.log.state.store_id,
            clock=clock,
            observer=observer,
            new_id=lambda: str(uuid.uuid4()),
        )

    async def wait_caught_up(self) -> None:
        """Return when the projections have folded all that is committed now."""
        while (lag := self.replica.commit_index - self.store.applied_index) > 0:
            try:
                await self.projector.wait_applied(self.replica.commit_index, timeout_s=1.0)
            except NotReadyError:
                _log.info("folding the log", extra={"lag_entries": lag})


@asynccontextmanager
async def open_foundation(
    config: Config, *, clock: Clock, observer: Observer | None = None
) -> AsyncIterator[Foundation]:
    """Open the data folder, and lead if it is that of a standalone node; on leaving, everything is written and closed.

    The projections may still be folding when this is entered: see `Foundation.wait_caught_up`.

    Raises:
        ConfigError, CorruptionError, StorageError: In an exception group, when a part fails while it runs.
    """
    for folder in (config.data_dir, config.log_path.parent, config.projections_path.parent):
        await asyncio.to_thread(_make_folder, folder)
    await asyncio.to_thread(sweep, config.projections_path.parent)  # a command that was killed left copies of texts
    async with AsyncExitStack() as opened:
        log = await open_log(config)
        opened.push_async_callback(log.close)
        store = await PrimaryStore.open(config.projections_path)
        opened.push_async_callback(store.close)
        replica = Replica(
            log,
            clock=clock,
            rng=random.SystemRandom(),
            observer=observer or _Unmeasured(),
            options=_options(config),
        )
        exchange = None if config.node_id is None else _exchange(config, log, replica)
        projector = Projector(replica, store)
        recorder = Recorder(
            replica, projector, clock, last_at_ms=lambda: store.last_at_ms, timeout_s=config.write_timeout_s
        )
        async with asyncio.TaskGroup() as running:
            if exchange is not None:
                running.create_task(exchange.transport.run(), name="transport")
                await exchange.transport.wait_ready()
            running.create_task(replica.run(), name="replica")
            if exchange is None:
                await replica.wait_ready()
            running.create_task(projector.run(), name="projector")
            yield Foundation(
                log=log,
                replica=replica,
                store=store,
                projector=projector,
                recorder=recorder,
                cluster=None if exchange is None else _cluster(config, log, replica, exchange),
            )
            await replica.stop()  # the projector gets the rest of the log and ends by itself
            if exchange is not None:
                await exchange.transport.stop()


def open_redis_of(config: Config) -> RedisStore | None:
    """Return the key space that the settings name; None where they name no server. Nothing is asked of it yet.

    Raises:
        ConfigError: The server's address has an option that the driver does not know.
    """
    if config.redis_url is None:
        return None
    window = config.short_term_count + LOOK_BACK_MESSAGES
    return open_redis(config.redis_url, node_id=config.node_id, window=window)


async def open_log(config: Config, *, read_only: bool = False) -> SqliteLog:
    """Open the log of the node that the settings describe; make it if it is not there.

    Raises:
        ConfigError: It is another node's.
        CorruptionError: It is not as it was written; never when `read_only`.
        StorageError: Another process has it open, or the disk failed.
    """
    is_standalone = config.node_id is None
    log = await SqliteLog.open(
        config.log_path,
        node_id=config.node_id or STANDALONE_ID,
        store_id=str(uuid.uuid4()),
        members=None if is_standalone else ConfState(),
        read_only=read_only,
    )
    if is_standalone and log.state.cluster_id and not read_only:
        await log.close()
        raise ConfigError(
            f"the log at {config.log_path} belongs to node {log.state.node_id} of cluster {log.state.cluster_id}: "
            "set NODE_ID and RAFT_ADDR"
        )
    return log


def _options(config: Config) -> Options:
    tick_s = config.heartbeat_ms / 1000 / TICKS_A_HEARTBEAT
    election_s = config.election_ms / 1000
    return Options(
        tick_s=tick_s,
        heartbeat_ticks=TICKS_A_HEARTBEAT,
        election_ticks=max(2 * TICKS_A_HEARTBEAT, round(election_s / tick_s)),
        snapshot_threshold=config.snapshot_log_threshold,
        hung_s=max(HUNG_S_MIN, election_s),
    )


def _exchange(config: Config, log: SqliteLog, replica: Replica) -> Exchange:
    return Exchange(
        replica,
        log,
        address=config.raft_address,
        http_address=config.http_address,
        listen=str(config.raft_bind),
        rng=random.SystemRandom(),
    )


def _cluster(config: Config, log: SqliteLog, replica: Replica, exchange: Exchange) -> Cluster:
    return Cluster(replica, log, exchange, peers=config.peers, http_peers=config.http_peers, read_s=READ_S)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be made: {error.strerror}; see ENGRAM_DATA_DIR") from error


def make_embedder(config: Config, clock: Clock) -> AnyEmbedder:
    """Return the embedder that the settings name.

    Raises:
        ConfigError: A package that it needs is not installed.
    """
    return choice.make(_choice_of(config), server_of(config), clock)


def server_of(config: Config) -> Server:
    """Return the OpenAI-compatible server that the settings name."""
    return Server(config.openai_base_url, config.openai_api_key)


def space_of_settings(config: Config) -> Space:
    """Return whose vectors the embedder makes that the settings name."""
    wanted = _choice_of(config)
    return Space(wanted.model, wanted.dimension)


def _choice_of(config: Config) -> Choice:
    return choice.named(config.embedder, config.embedding_model, config.embedding_dimension)


async def stored_space(config: Config, store: PrimaryStore) -> Space:
    """Return whose the newest vectors are; without any, whose the settings say that they will be."""
    newest = await store.embedding_space()
    return space_of_settings(config) if newest is None else newest


async def is_of_settings(config: Config, store: PrimaryStore) -> bool:
    """Return whether the newest vectors, if there are any, are of the embedder that the settings name."""
    return await stored_space(config, store) == space_of_settings(config)


async def first_embedder(
    config: Config, store: PrimaryStore, make: Callable[[Space], Awaitable[Embedder]], note: Note | None
) -> Embedder:
    """Return the embedder to start with: that of the newest vectors, where memory was moved to it while a node ran.

    `note` is where this node has seen it move to. Of a cluster's node the log is believed: others can have moved it.

    Raises:
        ConfigError: The store holds vectors of another embedder than the settings name, and nobody has moved it there;
            or there is no such embedder, as the node is set up.
    """
    settings = space_of_settings(config)
    newest = await store.embedding_space()
    noted = None if note is None else Space(note.model, note.dimension)
    space = newest or noted or settings
    if newest is not None and noted != space and config.node_id is None:
        _check(newest, settings)
    if space != settings:
        _log.warning(
            "memory was moved to another embedder than the settings name, and stays with it",
            extra={"model": space.model, "dimension": space.dimension, "settings": settings.model},
        )
    return await make(space)


async def check_embedding_space(store: PrimaryStore, embedder: LocalEmbedder | RemoteEmbedder) -> None:
    """Refuse vectors that cannot be compared with the ones that are stored.

    Raises:
        ConfigError: The store holds vectors of another model or width.
    """
    space = await store.embedding_space()
    if space is not None:
        _check(space, Space(embedder.model, embedder.dimension))


def _check(stored: Space, wanted: Space) -> None:
    if stored != wanted:
        raise ConfigError(
            f"the stored vectors are of model {stored.model} with {stored.dimension} dimensions, but the settings name "
            f"{wanted.model} with {wanted.dimension}: run `engram reembed` with these settings, or set the old ones "
            "and move the running node by `engram reembed --url`"
        )
