"""A node for tests of the edge: real projections, eraser, searcher and context reader on a log that is a list."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.api.app import Application, build
from engram.api.ingest import Ingest
from engram.api.intake import Intake
from engram.api.open_streams import OpenStreams
from engram.api.services import Dependency, Services
from engram.events import Event, decode
from engram.inference.choice import Server
from engram.log.position import Position
from engram.metrics import Metrics
from engram.moving.backup_format import Head
from engram.moving.copying import Copier
from engram.projections.digests import Digests
from engram.projections.eraser import Eraser
from engram.projections.lance_feed import LanceFeed, Silent
from engram.projections.lance_rows import Space
from engram.projections.lance_store import LanceStore
from engram.projections.projector import Projector
from engram.projections.sqlite_store import PrimaryStore
from engram.projections.upkeep import Upkeep
from engram.recall.lookback import Lookback
from engram.recall.query_vectors import space_of
from engram.recall.reader import ContextReader
from engram.recall.search import Searcher
from engram.recorder import Recorder
from engram.workers.embedder_source import EmbedderSource
from engram.workers.embedding_use import EmbeddingUse
from engram.workers.moving import Embedders
from engram.workers.reembed_requests import ReembedRequests
from tests.api.fake_cluster import FakeCluster

NOW_MS = 1_777_593_600_000
"""2026-05-01T00:00:00Z."""


class StoppedClock:
    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 0.0


class Words:
    """Counts words instead of tokens."""

    def count(self, text: str) -> int:
        return len(text.split())

    def count_once(self, text: str) -> int:
        return self.count(text)

    def count_all(self, texts: Sequence[str]) -> list[int]:
        return list(map(self.count, texts))


class Letters:
    """Embeds a text by how often it has each of a few letters."""

    model = "letters"
    dimension = 8

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[1 + text.count(letter) for letter in "abceilot"] for text in texts], np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def embed_query(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self.embed([" ".join(weights)])[0]
        return row


class Unobserved:
    def searched(self, stage: str, seconds: float) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    data: bytes
    term: int = 1
    kind: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    last_index: int


class ListLog:
    """A log of one node in which every proposal is committed at once."""

    def __init__(self) -> None:
        self.held: list[Entry] = []
        self.refuse_with: Exception | None = None
        self.rewrites = 0
        self._grown = asyncio.Event()

    def propose(self, data: bytes) -> Position:
        if self.refuse_with is not None:
            raise self.refuse_with
        self.held.append(Entry(len(self.held) + 1, data))
        self._grown.set()
        return Position(len(self.held), 1)

    async def wait_handed_over(self, timeout_s: float) -> None:
        pass

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        while True:
            self._grown.clear()
            if len(self.held) > after:
                batch = self.held[after:]
                after = len(self.held)
                yield batch
            else:
                await self._grown.wait()

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        return self.held[after : after + limit]

    @property
    def applied_index(self) -> int:
        return len(self.held)

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        self.rewrites += 1
        for index, data in payloads.items():
            self.held[index - 1] = replace(self.held[index - 1], data=data)

    def status(self) -> Status:
        return Status(len(self.held))


class Node:
    """The parts, and what a test turns to make them misbehave."""

    def __init__(self, store: PrimaryStore, folder: Path) -> None:
        self.log = ListLog()
        self.store = store
        self.folder = folder
        self.projector = Projector(self.log, store)
        self.eraser = Eraser(self.log, store, None)
        self.searcher = Searcher(store, Letters(), cache_bytes_max=1_000_000, observer=Unobserved())
        self.dependencies = [Dependency("log", ready=True, detail="index 0")]
        self.feed = LanceFeed(self.lance(folder), store, clock=StoppedClock(), observer=Silent(), log_last_index=0)
        self.upkeep = Upkeep(
            self.log, store, folder, lance=lambda: self.lance(folder), feed=self.feed, redis=None, log_store="a-store",
            rewriting=self.eraser.rewriting, on_replaced=self.searcher.drop, clock=StoppedClock(),
        )  # fmt: skip
        self.digests: Digests | None = None
        self.cluster: FakeCluster | None = None
        self.floor_index = 0
        self.streams = OpenStreams(look_s=0.02)
        self.may_erase = asyncio.Event()
        """Set: erasures are done at once."""
        self.may_erase.set()
        self.waited_on = asyncio.Event()
        """Somebody waits, or waited, for an erasure."""

    @property
    def entries(self) -> list[list[Event]]:
        """Everything in the log."""
        return [decode(entry.data) if entry.data else [] for entry in self.log.held]

    def lance(self, folder: Path) -> LanceStore:
        """Return a way to a long-term store, which is opened when it is used."""
        return LanceStore(str(folder / "lancedb"), model=Letters.model, dimension=Letters.dimension)

    async def wait_erased(self, index: int) -> None:
        self.waited_on.set()
        await self.may_erase.wait()
        await self.eraser.wait_erased(index)

    async def readiness(self) -> Sequence[Dependency]:
        return self.dependencies

    def copy_head(self) -> Head:
        return Head(engram="0", created_at_ms=NOW_MS, store_id="a-store", cluster_id="", node_id=1)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.projector.run())
            tasks.create_task(self.eraser.run())
            tasks.create_task(self.upkeep.run())

    def _reembeds(self, recorder: Recorder, ingest: Ingest) -> ReembedRequests:
        server, clock, letters = Server(None, None), StoppedClock(), Letters()
        source = EmbedderSource(self.folder, server, space_of(letters), None, clock)
        use = EmbeddingUse(letters, self.searcher, self.feed, ingest, is_settled=True)
        embedders = Embedders(
            self.store, recorder, source, use, letters,
            leads=lambda: True, observer=Metrics(version="0"), clock=clock, rng=random.Random(1),
        )  # fmt: skip
        return ReembedRequests(embedders, source, server, {})

    def application(self) -> Application:
        """Return the application as the node is set up now."""
        return build(self.services())

    def services(self) -> Services:
        """Return what the application is built on."""
        clock = StoppedClock()
        metrics = Metrics(version="0")
        ids = itertools.count(1)
        recorder = Recorder(self.log, self.projector, clock, last_at_ms=lambda: 0, timeout_s=5)
        ingest = Ingest(embedder=Letters(), tokens=Words(), clock=clock, metrics=metrics)
        space = Space(Letters.model, Letters.dimension)
        return Services(
            recorder=recorder,
            log=self.log,
            reads=self.store,
            core=self.store,
            applied=self.projector,
            erased=self,
            searches=self.searcher,
            lookback=Lookback(self.store, self.log, self.searcher, Words(), model=Letters.model, short_term_count=20),
            contexts=ContextReader(self.store, self.searcher, Words(), short_term_count=20),
            ingest=ingest,
            intake=Intake(recorder, self.store, ingest, clock, metrics, space),
            clock=clock,
            metrics=metrics,
            new_id=lambda: f"made-{next(ids)}",
            readiness=self.readiness,
            version="0",
            cluster=self.cluster,
            streams=self.streams,
            copier=Copier(self.log, self.store, self, self.copy_head),
            upkeep=self.upkeep,
            digests=lambda: self.digests,
            reembeds=self._reembeds(recorder, ingest),
            floor_index=self.floor_index,
            wait_s=0.2,
            body_deadline_s=0.3,
        )


@asynccontextmanager
async def running_node(folder: Path) -> AsyncIterator[Node]:
    """Run a node whose projections lie in `folder`."""
    store = await PrimaryStore.open(folder / "projections.db")
    node = Node(store, folder)
    running = asyncio.get_running_loop().create_task(node.run())
    try:
        yield node
    finally:
        running.cancel()
        await asyncio.wait([running])
        node.searcher.close()
        await store.close()
