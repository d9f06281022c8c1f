"""The composition root: which parts a node has, and the order in which they start and stop.

Nothing is decided here but wiring. A node is one asyncio loop; a part that fails stops the node, because every part is
needed and each continues where it was after a restart.

Start: the log (which checks its file), the projections (which go on at their applied index), the Raft replica (a
cluster of one elects itself at once), HTTP, background tasks. Stop, in reverse: a leader hands over, HTTP finishes what
is in flight, the replica writes what it has, the projector folds it, the files are closed.

Projections are kept on every node. Workers, which write what a model makes of a message, run on the leader alone: their
work is a query over the projections, so a new leader's go on where the old one's were.
"""

import asyncio
import logging
import random
import signal
import sys
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from engram import __version__
from engram.allocator import bound_memory, spare_collections
from engram.api.app import build
from engram.api.ingest import Ingest
from engram.api.intake import Intake
from engram.api.readiness import long_term, short_term
from engram.api.server import HttpServer
from engram.api.services import Dependency, Services
from engram.clock import Clock, SystemClock
from engram.config import MODEL_DIMENSIONS, Config
from engram.errors import ConfigError, FatalError, NotReadyError, first_of
from engram.foundation import (
    Foundation,
    check_embedding_space,
    first_embedder,
    is_of_settings,
    open_foundation,
    server_of,
    space_of_settings,
)
from engram.inference.embedder import RemoteEmbedder
from engram.inference.tokens import TokenCounter
from engram.metrics import Metrics, NodeState, watch_loop_lag
from engram.moving.backup_format import Head
from engram.moving.copying import Copier
from engram.projections.digests import NOT_YET, DigestTaker
from engram.projections.eraser import Eraser
from engram.projections.lance_feed import LanceFeed
from engram.projections.lance_rows import Space
from engram.projections.lance_store import LanceStore
from engram.projections.redis_projection import ForgettingToo
from engram.projections.upkeep import Upkeep
from engram.recall.lookback import Lookback
from engram.recall.query_vectors import Embedder, is_remote
from engram.recall.reader import ContextReader
from engram.recall.sealing import Sealer
from engram.recall.search import Searcher
from engram.workers.embedder_source import EmbedderSource, read_note
from engram.workers.embedding import EmbeddingWorker
from engram.workers.embedding_use import EmbeddingUse
from engram.workers.moving import Embedders
from engram.workers.reembed_requests import ReembedRequests
from engram.workers.retention import Retention

STOP_S = 3.0
"""How long requests in flight may take once the node is to stop: within the 5 s after which supervisors lose patience,
with a second to spare for the long-term store's last call, and one for the files."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that computes may keep the interpreter from one that has just come back from the disk. Python's own
5 ms is as long as ten flushes: with it a busy loop lets the log and the projections wait (a third fewer messages a
second from 8 to 64 clients, measured)."""

EMBED_IDLE_S = 0.25
"""How often an idle embedding worker looks for new messages: a look costs one indexed query."""

EMBED_LOCAL_IDLE_S = 2.0
"""The same where messages are embedded as they are written: only those wait that came before it was known by whom."""

FALL_S = 1.0
"""How long writes wait, after this node led no more, for the next leader to commit them. That takes it a few
milliseconds, if it can: cut off from the others, this node would never hear of it."""

LAG_READY_ENTRIES = 1000
"""A projection that is further behind than this is not ready: what it answers is of another time."""

_log = logging.getLogger(__name__)


async def serve(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `on_ready` is told the address once it answers.

    Raises:
        FatalError: The node could not start, or had to stop.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await run_node(config, stopping, on_ready)
    except ExceptionGroup as errors:
        raise _first_fatal(errors) from errors


async def run_node(config: Config, stopping: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    """Run a node until `stopping` is set."""
    bound_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    clock = SystemClock()
    metrics = Metrics(version=__version__)
    for warning in config.warnings:
        _log.warning("%s", warning)
    async with open_foundation(config, clock=clock, observer=metrics) as foundation:
        settings = space_of_settings(config)
        note = await asyncio.to_thread(read_note, config.data_dir, settings)
        source = EmbedderSource(config.data_dir, server_of(config), settings, note, clock)
        embedder, tokens = await asyncio.gather(
            first_embedder(config, foundation.store, source.first, note),
            asyncio.to_thread(TokenCounter),
        )
        await _Node(config, foundation, source, embedder, tokens, metrics, clock).run(stopping, on_ready)
    _log.info("stopped")


class _Node:
    """The parts that stand on the foundation."""

    def __init__(
        self,
        config: Config,
        foundation: Foundation,
        source: EmbedderSource,
        embedder: Embedder,
        tokens: TokenCounter,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._config = config
        self._foundation = foundation
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._floor_index = foundation.replica.commit_index
        store = foundation.store
        self._feed = LanceFeed(
            LanceStore(config.lance_uri, model=embedder.model, dimension=embedder.dimension, takes_other=True),
            store,
            clock=clock,
            observer=metrics,
            log_last_index=foundation.replica.status().last_index,
        )
        self._searcher = Searcher(
            store, embedder, self._feed, cache_bytes_max=config.recall_cache_bytes_max, observer=metrics, clock=clock
        )
        self._eraser = Eraser(foundation.replica, store, self._feed)
        self._redis = foundation.make_redis(config, clock=clock, observer=metrics)
        self._upkeep = Upkeep(
            foundation.replica,
            store,
            config.projections_path.parent,
            lance=lambda: LanceStore(config.lance_uri, **self._embedders.space._asdict()),
            feed=self._feed, redis=self._redis, log_store=foundation.log.state.store_id,
            rewriting=self._eraser.rewriting, on_replaced=self._searcher.drop, clock=clock,
        )  # fmt: skip
        self._digests = DigestTaker(config.projections_path, store, clock)
        ingest = Ingest(embedder=None, tokens=tokens, clock=clock, metrics=metrics)
        is_current = foundation.cluster is None and store.applied_index >= self._floor_index
        self._use = EmbeddingUse(embedder, self._searcher, self._feed, ingest, is_settled=is_current)
        self._embedders = Embedders(
            store, foundation.recorder, source, self._use, embedder,
            leads=self._leads, observer=metrics, clock=clock, rng=random.SystemRandom(),
        )  # fmt: skip
        self._services = self._make_services(tokens, ingest)
        self._use.tell(self._services.intake, self._services.lookback)

    def _make_services(self, tokens: TokenCounter, ingest: Ingest) -> Services:
        config, foundation, metrics, embedder = self._config, self._foundation, self._metrics, self._embedders.target
        store = foundation.store
        short_term = store if self._redis is None else self._redis.memory
        return Services(
            recorder=foundation.recorder,
            log=foundation.replica,
            reads=store,
            applied=foundation.projector,
            core=short_term,
            erased=self._eraser if self._redis is None else ForgettingToo(self._eraser, self._redis.feed),
            searches=self._searcher,
            lookback=Lookback(
                store,
                foundation.replica,
                self._searcher,
                tokens,
                model=embedder.model,
                short_term_count=config.short_term_count,
            ),
            contexts=ContextReader(short_term, self._searcher, tokens, short_term_count=config.short_term_count),
            ingest=ingest,
            intake=Intake(
                foundation.recorder, store, ingest, self._clock, metrics, Space(embedder.model, embedder.dimension)
            ),
            clock=self._clock,
            metrics=metrics,
            new_id=lambda: str(uuid.uuid4()),
            readiness=self._readiness,
            version=__version__,
            cluster=foundation.cluster,
            copier=Copier(foundation.replica, store, self._eraser, self._copy_head),
            upkeep=self._upkeep,
            digests=lambda: self._digests.latest,
            reembeds=ReembedRequests(self._embedders, self._source, server_of(config), MODEL_DIMENSIONS),
            floor_index=self._floor_index,
        )

    async def run(self, stopping: asyncio.Event, on_ready: Callable[[str], None]) -> None:
        """Serve until `stopping` is set."""
        self._metrics.watch(self._state)
        server = HttpServer(
            build(self._services), host=self._config.bind_host, port=self._config.bind_port, stop_s=STOP_S
        )
        try:
            await server.start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._config.bind_host}:{self._config.bind_port}: {error.strerror}; "
                "set ENGRAM_BIND_ADDR to a free address"
            ) from error
        spare_collections()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(background) for background in self._background()]
            _log.info("serving", extra={"address": server.url})
            on_ready(server.url)
            await stopping.wait()
            _log.info("stopping")
            if self._foundation.cluster is not None:
                await self._foundation.cluster.hand_over()
            await server.stop()
            for task in tasks:
                task.cancel()
        self._searcher.close()
        for embedder in (self._embedders.target, *self._embedders.others):
            await self._source.close(embedder)

    def _copy_head(self) -> Head:
        state = self._foundation.log.state
        return Head(
            engram=__version__,
            created_at_ms=self._clock.now_ms(),
            store_id=state.store_id,
            cluster_id=state.cluster_id,
            node_id=state.node_id,
        )

    def _background(self) -> list[Coroutine[Any, Any, None]]:
        store, clock = self._foundation.store, self._clock
        work: list[Coroutine[Any, Any, None]] = [
            self._source.prepare(self._embedders.target),
            self._embedders.run(),
            self._eraser.run(),
            self._feed.run(),
            self._upkeep.run(),
            self._digests.run(),
            Sealer(store, self._searcher.indexes, clock).run(),
            watch_loop_lag(self._metrics, clock),
        ]
        if self._config.history_days is not None:
            work.append(self._retention(self._config.history_days).run())
        if self._redis is not None:
            work.append(self._redis.feed.run())
        if self._foundation.cluster is not None:
            work.append(self._foundation.cluster.run())
        return [*work, self._work_while_leading(), self._answer_after_a_fall()]

    def _retention(self, history_days: int) -> Retention:
        return Retention(
            self._foundation.replica,
            self._foundation.store,
            self._clock,
            history_days=history_days,
            rewriting=self._eraser.rewriting,
            observer=self._metrics,
        )

    async def _embed_waiting(self, embedder: RemoteEmbedder) -> None:
        """Embed what waits for vectors, for ever."""
        worker = EmbeddingWorker(
            self._foundation.store,
            self._foundation.recorder,
            embedder,
            self._clock,
            random.SystemRandom(),
            max_concurrency=self._config.embedding_max_concurrency,
            claim_max=self._config.embedding_claim_max,
            observer=self._metrics,
            idle_s=EMBED_IDLE_S if is_remote(self._embedders.target) else EMBED_LOCAL_IDLE_S,
        )
        await worker.run()

    async def _work_while_leading(self) -> None:
        while True:
            await self._wait_leading(leading=True)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._lead())
                await self._wait_leading(leading=False)
                task.cancel()
            self._use.settle(is_settled=False)

    async def _lead(self) -> None:
        """Do the leader's work, once it is known which embedder the leaders before used."""
        last_index = self._foundation.replica.status().last_index
        while self._foundation.store.applied_index < last_index:
            with suppress(NotReadyError):
                await self._foundation.projector.wait_applied(last_index, timeout_s=1.0)
        if self._foundation.cluster is None and not await is_of_settings(self._config, self._foundation.store):
            await check_embedding_space(self._foundation.store, self._embedders.target)
        if await self._embedders.adopt():  # else it must not embed by another: all would follow it there
            self._use.settle(is_settled=True)
            await self._embedders.work(self._embed_waiting)

    def _leads(self) -> bool:
        return self._foundation.cluster is None or (self._foundation.replica.is_leader and self._use.is_settled)

    async def _answer_after_a_fall(self) -> None:
        """Tell who waits for what this node proposed as a leader that nobody knows, once another may have led on."""
        replica = self._foundation.replica
        while True:
            await self._wait_leading(leading=True)
            term = replica.status().term
            await self._wait_leading(leading=False)
            await asyncio.sleep(FALL_S)
            self._foundation.projector.abandon(term)

    async def _wait_leading(self, *, leading: bool) -> None:
        replica = self._foundation.replica
        while replica.is_leader is not leading:
            await replica.wait_moved()

    async def _state(self) -> NodeState:
        status = self._foundation.replica.status()
        applied_index = self._foundation.store.applied_index
        counts = await self._foundation.store.counts()
        digests = self._digests.latest or NOT_YET
        move = self._embedders.status()
        return NodeState(
            term=status.term,
            commit_index=status.commit_index,
            applied_index=applied_index,
            base_index=status.base_index,
            is_leader=self._foundation.replica.is_leader,
            embedding_queue_size=counts.pending_embeddings,
            reembedding_remaining=move.total - move.done,
            projection_lag_entries={
                "primary": max(0, status.commit_index - applied_index),
                "lancedb": self._feed.status().lag_rows,
                **({} if self._redis is None else {"redis": self._redis.lag_entries()}),
            },
            digest_index=digests.log_index,
            digests=digests.low_bits(),
        )

    async def _readiness(self) -> Sequence[Dependency]:
        status = self._foundation.replica.status()
        applied_index = self._foundation.store.applied_index
        lag = max(0, status.commit_index - applied_index)
        is_current = applied_index >= self._floor_index and lag <= LAG_READY_ENTRIES
        return [
            Dependency("log", ready=True, detail=f"entry {status.last_index}, base {status.base_index}"),
            Dependency("leader", ready=status.leader_id != 0, detail=self._leader(status.leader_id, status.term)),
            Dependency("projections", ready=is_current, detail=f"{lag} entries behind"),
            Dependency("embedder", ready=True, detail="{}, {} dimensions".format(*self._embedders.space)),
            long_term(self._feed.status()),
            short_term(self._redis),
        ]

    def _leader(self, leader_id: int, term: int) -> str:
        if leader_id:
            return f"node {leader_id}, term {term}"
        if self._foundation.replica.roster.ids:
            return f"none, term {term}: an election, or no majority"
        return "this node belongs to no cluster: POST /cluster/init on one of them, or add it to one"


def _first_fatal(errors: BaseExceptionGroup[BaseException]) -> FatalError:
    """Return the first reason to stop among `errors`, however deep; without one, a bug stopped the node."""
    fatal, others = errors.split(FatalError)
    error = first_of(fatal or others or errors)
    if isinstance(error, FatalError):
        return error
    _log.critical("an unforeseen error stops the node", exc_info=error)
    return FatalError(f"an unforeseen error, {type(error).__name__}: the log has its traceback")
