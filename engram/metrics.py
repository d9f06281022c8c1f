"""The instruments, by name, and their exposition for Prometheus.

An attribute is called what its metric is called, without `engram_` and `memory_`. Edges count events on the
instruments; what is a state (the log's indexes, the queue of pending work) is read from one `NodeState` when somebody
scrapes, so pure modules never see this one. A `Metrics` has its own registry: every test makes a fresh one.

Labels hold words from fixed lists, never text or ids from a client.
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from engram.clock import Clock

disable_created_metrics()  # type: ignore[no-untyped-call]
"""A second series for each counter that says when it was made, under a name of its own: dashboards ask for none."""

REQUEST_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From a read out of memory to the deadline of a write."""

DISK_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
"""From a fast drive's flush to one that stalls."""

REMOTE_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""From the built-in embedder to a remote one about to time out."""

BATCH_ENTRIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

LAG_PERIOD_S = 0.25
"""How often the loop's lag is measured: often enough to see a stall of a second, too rare to cost anything."""


class NodeState(NamedTuple):
    """What a node is at the moment somebody asks."""

    term: int
    commit_index: int
    applied_index: int
    base_index: int
    """Index of the newest snapshot."""
    is_leader: bool
    embedding_queue_size: int
    """Messages without a vector, those in progress included."""
    projection_lag_entries: Mapping[str, int]
    """Committed entries that each projection has not folded yet, by its name."""
    reembedding_remaining: int = 0
    """Messages with vectors of another model than the one in use."""
    digest_index: int = 0
    """The log index that `digests` were taken at; 0 before."""
    digests: Mapping[str, int] = {}
    """The last 32 bits of the digest of each read model, by its name."""


class Exposition(NamedTuple):
    """An answer to a scrape."""

    body: bytes
    content_type: str


class Metrics:
    """All instruments of one node."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry()
        self._read_state: Callable[[], Awaitable[NodeState]] | None = None
        self._declare_memory()
        self._declare_long_term_store()
        self._declare_log()
        self._declare_digests()
        self._declare_read_models()
        self._declare_node(version)

    def _declare_memory(self) -> None:
        registry = self.registry
        self.messages_added_total = Counter(
            "engram_memory_messages_added_total", "Messages accepted, by role.", ["role"], registry=registry
        )
        self._added: dict[str, Counter] = {}
        """Looking a label up takes longer than counting."""
        self.context_requests_total = Counter(
            "engram_memory_context_requests_total", "Contexts asked for.", registry=registry
        )
        self.context_duration_seconds = Histogram(
            "engram_context_duration_seconds", "Assembling one context.", buckets=REQUEST_SECONDS, registry=registry
        )
        self.search_duration_seconds = Histogram(
            "engram_search_duration_seconds",
            "One search, by stage.",
            ["stage"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.vector_search_duration_seconds = Histogram(
            "engram_memory_vector_search_duration_seconds",
            "Finding candidates by vector, by store.",
            ["store"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.embedding_duration_seconds = Histogram(
            "engram_memory_embedding_duration_seconds",
            "One call of the embedder, by model.",
            ["model"],
            buckets=REMOTE_SECONDS,
            registry=registry,
        )
        self.embedding_queue_size = Gauge(
            "engram_memory_embedding_queue_size",
            "Messages without a vector, those in progress included.",
            registry=registry,
        )
        self.short_term_store_errors_total = Counter(
            "engram_memory_short_term_store_errors_total",
            "Failures of Redis, by what was tried. No request fails for it.",
            ["operation"],
            registry=registry,
        )
        self.work_abandoned_total = Counter(
            "engram_work_abandoned_total", "Work given up after its retries, by kind.", ["work"], registry=registry
        )

    def _declare_long_term_store(self) -> None:
        registry = self.registry
        self.long_term_store_errors_total = Counter(
            "engram_memory_long_term_store_errors_total",
            "Failures of LanceDB, by what was tried. No request fails for it.",
            ["operation"],
            registry=registry,
        )
        self.long_term_store_retries_total = Counter(
            "engram_memory_long_term_store_retries_total",
            "Times that LanceDB was opened again after a failure.",
            registry=registry,
        )
        self.long_term_store_rows_total = Counter(
            "engram_memory_long_term_store_rows_total", "Rows written to LanceDB.", registry=registry
        )
        self.long_term_store_duration_seconds = Histogram(
            "engram_memory_long_term_store_duration_seconds",
            "One call of LanceDB: a batch written, or its files merged.",
            ["operation"],
            buckets=REMOTE_SECONDS,
            registry=registry,
        )

    def _declare_log(self) -> None:
        registry = self.registry
        self.raft_term = Gauge("engram_raft_term", "Raft term.", registry=registry)
        self.raft_commit_index = Gauge("engram_raft_commit_index", "Highest committed log index.", registry=registry)
        self.raft_applied_index = Gauge("engram_raft_applied_index", "Log index that reads see.", registry=registry)
        self.raft_is_leader = Gauge("engram_raft_is_leader", "1 on the leader, else 0.", registry=registry)
        self.raft_leader_changes_total = Counter(
            "engram_raft_leader_changes_total", "Elections whose outcome this node has seen.", registry=registry
        )
        self.snapshot_build_total = Counter(
            "engram_snapshot_build_total", "Snapshots of this node's own: its base moved.", registry=registry
        )
        self.snapshot_install_total = Counter(
            "engram_snapshot_install_total",
            "Snapshots of another node that took the place of the log.",
            registry=registry,
        )
        self.history_reduced_entries_total = Counter(
            "engram_history_reduced_entries_total",
            "Old entries of which a part or all was left out.",
            registry=registry,
        )
        self.history_reduced_bytes_total = Counter(
            "engram_history_reduced_bytes_total", "Payload bytes of old entries that were left out.", registry=registry
        )
        self.snapshot_last_index = Gauge(
            "engram_snapshot_last_index", "Index of the newest snapshot.", registry=registry
        )
        self.log_fsync_duration_seconds = Histogram(
            "engram_log_fsync_duration_seconds",
            "Making one batch of entries durable.",
            buckets=DISK_SECONDS,
            registry=registry,
        )
        self.log_batch_entries = Histogram(
            "engram_log_batch_entries", "Entries that share one flush.", buckets=BATCH_ENTRIES, registry=registry
        )
        self.commit_duration_seconds = Histogram(
            "engram_commit_duration_seconds",
            "From the proposal of an entry to its commit.",
            buckets=REQUEST_SECONDS,
            registry=registry,
        )

    def _declare_read_models(self) -> None:
        registry = self.registry
        self.projection_lag_entries = Gauge(
            "engram_projection_lag_entries", "Committed entries not folded yet.", ["projection"], registry=registry
        )
        self.reembedding_remaining = Gauge(
            "engram_reembedding_remaining",
            "Messages with vectors of another model than the one in use, as last counted.",
            registry=registry,
        )

    def _declare_digests(self) -> None:
        self.read_model_digest = Gauge(
            "engram_read_model_digest",
            "The last 32 bits of the digest of a read model: equal on nodes whose digests are of the same index.",
            ["model"],
            registry=self.registry,
        )
        self.read_model_digest_index = Gauge(
            "engram_read_model_digest_index", "Log index that the digests were taken at.", registry=self.registry
        )

    def _declare_node(self, version: str) -> None:
        registry = self.registry
        self.http_requests_total = Counter(
            "engram_http_requests_total", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.http_request_duration_seconds = Histogram(
            "engram_http_request_duration_seconds",
            "From a request's head to its answer.",
            ["method", "route"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.event_loop_lag_seconds = Histogram(
            "engram_event_loop_lag_seconds",
            "How late the event loop woke a timer.",
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.build_info = Info("engram_build", "What runs here.", registry=registry)
        self.build_info.info({"version": version, "python": platform.python_version()})
        ProcessCollector(registry=registry)

    def watch(self, read_state: Callable[[], Awaitable[NodeState]]) -> None:
        """Take the gauges from `read_state`, each time somebody scrapes."""
        self._read_state = read_state

    def synced(self, seconds: float, entries: int) -> None:
        """Note one flush of the log that made `entries` entries durable."""
        self.log_fsync_duration_seconds.observe(seconds)
        if entries:
            self.log_batch_entries.observe(entries)

    def committed(self, seconds: float) -> None:
        """Note the time from an entry's proposal to its commit."""
        self.commit_duration_seconds.observe(seconds)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request's answer; `route` is the pattern, never the path that a client sent."""
        self.http_requests_total.labels(method, route, str(status)).inc()
        self.http_request_duration_seconds.labels(method, route).observe(seconds)

    def messages_added(self, role: str, count: int) -> None:
        """Count messages that were accepted; duplicates are not."""
        added = self._added.get(role)
        if added is None:
            added = self._added[role] = self.messages_added_total.labels(role)
        added.inc(count)

    def context_read(self, seconds: float) -> None:
        """Count a context and the time it took."""
        self.context_requests_total.inc()
        self.context_duration_seconds.observe(seconds)

    def searched(self, stage: str, seconds: float) -> None:
        """Note one stage of one search; ranking in the recall index is where its vectors are looked through."""
        self.search_duration_seconds.labels(stage).observe(seconds)
        if stage == "rank":
            self.vector_search_duration_seconds.labels("recall").observe(seconds)

    def embedded(self, model: str, seconds: float) -> None:
        """Count a call of the embedder."""
        self.embedding_duration_seconds.labels(model).observe(seconds)

    def abandoned(self, work: str) -> None:
        """Count work that was given up for one message."""
        self.work_abandoned_total.labels(work).inc()

    def short_term_store_failed(self, operation: str) -> None:
        """Count a failure of Redis."""
        self.short_term_store_errors_total.labels(operation).inc()

    def stored(self, rows: int, seconds: float) -> None:
        """Count rows that were written to LanceDB in one batch."""
        self.long_term_store_rows_total.inc(rows)
        self.long_term_store_duration_seconds.labels("write").observe(seconds)

    def optimized(self, seconds: float) -> None:
        """Note how long merging LanceDB's files took."""
        self.long_term_store_duration_seconds.labels("optimize").observe(seconds)

    def failed(self, operation: str) -> None:
        """Count a failure of LanceDB in `operation`."""
        self.long_term_store_errors_total.labels(operation).inc()

    def retried(self) -> None:
        """Count another attempt after a failure of LanceDB."""
        self.long_term_store_retries_total.inc()

    def led_by(self, leader_id: int) -> None:
        """Count an election that this node has seen the outcome of; 0 only says that the leader is lost."""
        if leader_id:
            self.raft_leader_changes_total.inc()

    def snapshot_built(self) -> None:
        """Count a snapshot of this node's own."""
        self.snapshot_build_total.inc()

    def snapshot_installed(self) -> None:
        """Count a snapshot that another node sent."""
        self.snapshot_install_total.inc()

    def history_reduced(self, entries: int, bytes_saved: int) -> None:
        """Count old entries of which a part or all was left out."""
        self.history_reduced_entries_total.inc(entries)
        self.history_reduced_bytes_total.inc(bytes_saved)

    async def scrape(self, accept: str = "") -> Exposition:
        """Return all values as they are now, in the form that the Accept header asks for."""
        if self._read_state is not None:
            self._show(await self._read_state())
        return self.render(accept)

    def render(self, accept: str = "") -> Exposition:
        """Return the values as last read: OpenMetrics when `accept` asks for it, else Prometheus's text."""
        encode, content_type = choose_encoder(accept)
        return Exposition(encode(self.registry), content_type)

    def _show(self, state: NodeState) -> None:
        self.raft_term.set(state.term)
        self.raft_commit_index.set(state.commit_index)
        self.raft_applied_index.set(state.applied_index)
        self.raft_is_leader.set(state.is_leader)
        self.snapshot_last_index.set(state.base_index)
        self.embedding_queue_size.set(state.embedding_queue_size)
        self.reembedding_remaining.set(state.reembedding_remaining)
        for projection, entries in state.projection_lag_entries.items():
            self.projection_lag_entries.labels(projection).set(entries)
        self.read_model_digest_index.set(state.digest_index)
        for model, low_bits in state.digests.items():
            self.read_model_digest.labels(model).set(low_bits)


async def watch_loop_lag(metrics: Metrics, clock: Clock) -> None:
    """Measure for ever how late this loop wakes a timer: what a blocking call costs everybody."""
    while True:
        due_s = clock.monotonic_s() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        metrics.event_loop_lag_seconds.observe(max(0.0, clock.monotonic_s() - due_s))
