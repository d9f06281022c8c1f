"""Serving the state of memory at one place in the log over HTTP: every read of a node, and no write."""

import asyncio
import signal
import uuid
from collections.abc import Sequence
from typing import Final

from engram import __version__
from engram.api.app import build
from engram.api.errors import ReadOnlyError
from engram.api.ingest import Ingest
from engram.api.server import HttpServer
from engram.api.services import Dependency, Services
from engram.api.times import format_time
from engram.cli.progress import Progress
from engram.clock import SystemClock
from engram.config import Config
from engram.errors import ConfigError, NotReadyError
from engram.foundation import make_embedder
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.choice import AnyEmbedder
from engram.inference.tokens import TokenCounter
from engram.log.position import Position
from engram.metrics import Metrics
from engram.projections.past import Log
from engram.projections.sqlite_store import PrimaryStore
from engram.projections.verdicts import Verdict
from engram.recall.lookback import Lookback
from engram.recall.reader import ContextReader
from engram.recall.search import Searcher
from engram.recorder import Recorder

STOP_S: Final = 2.0
"""How long answers under way may take once it is to stop."""


class PastClock(SystemClock):
    """The time of the last event: what "last week" meant then."""

    def __init__(self, at_ms: int) -> None:
        self._at_ms = at_ms

    def now_ms(self) -> int:
        return self._at_ms


class _ReadOnly:
    """The parts of a node that write, or wait for what was written: none of it happens here."""

    def __init__(self, applied_index: int, reason: str) -> None:
        self._applied_index = applied_index
        self._reason = reason

    def propose(self, data: bytes) -> Position:  # noqa: ARG002
        """Refuse."""
        raise ReadOnlyError(self._reason)

    async def wait_handed_over(self, timeout_s: float) -> None:
        """Return: nobody leads here."""

    def expect(self, log_index: int, term: int) -> asyncio.Future[Sequence[Verdict]]:  # noqa: ARG002
        """Refuse."""
        raise ReadOnlyError(self._reason)

    async def wait_applied(self, index: int, timeout_s: float) -> None:  # noqa: ARG002
        """Return if the entry belongs to the past that is served; wait for no other."""
        if index > self._applied_index:
            raise NotReadyError(f"entry {index} is not in it: {self._reason}")

    async def wait_erased(self, index: int) -> None:
        """Return: nothing is deleted here."""

    async def readiness(self) -> Sequence[Dependency]:
        """Return what it stands on."""
        return [Dependency("projections", ready=True, detail=self._reason)]


async def serve(config: Config, log: Log, store: PrimaryStore, port: int, progress: Progress) -> None:
    """Serve `store`, to which `log` leads, until SIGTERM or SIGINT.

    Raises:
        ConfigError: The port is taken, or the vectors are not of the model that is set.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    embedder = await asyncio.to_thread(make_embedder, config, SystemClock())
    await _check_space(store, embedder)
    metrics = Metrics(version=__version__)
    searcher = Searcher(
        store,
        embedder,
        cache_bytes_max=config.recall_cache_bytes_max,
        observer=metrics,
        clock=PastClock(store.last_at_ms),
    )
    tokens = await asyncio.to_thread(TokenCounter)
    services = _services(config, log, store, embedder, searcher, tokens, metrics)
    server = HttpServer(build(services), host=config.bind_host, port=port, stop_s=STOP_S)
    try:
        await server.start()
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.bind_host}:{port}: {error.strerror}; see --port") from error
    try:
        progress.say(f"memory as of entry {store.applied_index}, to be read only: {server.url} (Ctrl-C ends it)")
        await stopping.wait()
    finally:
        await server.stop()
        searcher.close()
        if not isinstance(embedder, BuiltinEmbedder):
            await embedder.close()


def _services(
    config: Config,
    log: Log,
    store: PrimaryStore,
    embedder: AnyEmbedder,
    searcher: Searcher,
    tokens: TokenCounter,
    metrics: Metrics,
) -> Services:
    clock = PastClock(store.last_at_ms)
    at = f" ({format_time(store.last_at_ms)})" if store.last_at_ms else ""
    reason = f"memory is served here as of entry {store.applied_index}{at}, to be read only"
    nothing = _ReadOnly(store.applied_index, reason)
    count = config.short_term_count
    return Services(
        recorder=Recorder(nothing, nothing, clock, last_at_ms=lambda: 0, timeout_s=1.0),
        log=log,
        reads=store,
        core=store,
        applied=nothing,
        erased=nothing,
        searches=searcher,
        lookback=Lookback(store, log, searcher, tokens, model=embedder.model, short_term_count=count),
        contexts=ContextReader(store, searcher, tokens, short_term_count=count),
        ingest=Ingest(embedder=None, tokens=tokens, clock=clock, metrics=metrics),
        clock=clock,
        metrics=metrics,
        new_id=lambda: str(uuid.uuid4()),
        readiness=nothing.readiness,
        version=__version__,
        read_only=reason,
    )


async def _check_space(store: PrimaryStore, embedder: AnyEmbedder) -> None:
    space = await store.embedding_space()
    if space is not None and (space.model, space.dimension) != (embedder.model, embedder.dimension):
        raise ConfigError(
            f"at entry {store.applied_index} the vectors were of model {space.model} with {space.dimension} dimensions, "
            f"but the settings name {embedder.model} with {embedder.dimension}: set those to serve it"
        )
