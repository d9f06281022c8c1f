"""How long does it take to look back? Contexts and lists as of an earlier log index, beside the context of now.

    python -m benchmarks.bench_past              a minute; writes results/past.json
    python -m benchmarks.bench_past --quick      once, small; writes nothing

A real log and real read models on this disk, with the built-in embedder and without HTTP. One session has 1 000 or 10 000
messages, each in an entry of its own; between any two of them stands one of another session. Looked back to is every
tenth of the log, in turn.

`cold`: nothing is in memory, so the recall index is opened from its sealed copy, as after a restart. `other vectors`: all
messages got new vectors at the end, as after a change of models, so those that they had come out of the log.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.conversations import Conversations
from benchmarks.timing import Result, Timing, describe_machine, summarize
from engram.clock import SystemClock
from engram.events import Chunk, Event, MessageAppended, MessageEmbedded, Role, encode
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.tokens import TokenCounter
from engram.log.changes import Append
from engram.log.consensus.types import Entry, HardState
from engram.log.sqlite import SqliteLog
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.differences import difference
from engram.recall.lookback import Lookback, Past
from engram.recall.reader import ContextReader
from engram.recall.sealing import Sealer
from engram.recall.search import Searcher

RESULTS = Path(__file__).parent / "results"
SIZES, QUICK_SIZES = (1_000, 10_000), (300,)
"""Messages of the session."""
REQUESTS, QUICK_REQUESTS = 100, 2
BATCH_ENTRIES = 500
CACHE_BYTES = 64 * 1024 * 1024
SHORT_TERM_COUNT = 20
SESSION = "s1"
START_MS = 1_700_000_000_000
MINUTE_MS = 60_000


class Unobserved:
    """Takes note of nothing."""

    def searched(self, stage: str, seconds: float) -> None:
        """Take note of one stage of one search."""


class Committed:
    """The log, all of which is committed."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Return the first `limit` entries behind the index `after`."""
        return await self._log.read(after, self._log.state.last_index, limit)


class Scene(NamedTuple):
    """What is looked back with, and how much there is."""

    log: SqliteLog
    store: PrimaryStore
    embedder: BuiltinEmbedder
    tokens: TokenCounter
    queries: Conversations
    last_index: int
    """Of the messages; what comes behind it are other vectors for them."""

    def searcher(self) -> Searcher:
        """Return a searcher that has nothing in memory."""
        return Searcher(self.store, self.embedder, cache_bytes_max=CACHE_BYTES, observer=Unobserved())

    def lookback(self, searcher: Searcher) -> Lookback:
        """Return what looks back with `searcher`."""
        return Lookback(
            self.store,
            Committed(self.log),
            searcher,
            self.tokens,
            model=self.embedder.model,
            short_term_count=SHORT_TERM_COUNT,
        )


def main(argv: Sequence[str]) -> int:
    """Measure, print a table, and write the results unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, small; writes nothing")
    quick = parser.parse_args(argv).quick
    requests = QUICK_REQUESTS if quick else REQUESTS
    results = [line for size in (QUICK_SIZES if quick else SIZES) for line in asyncio.run(_measure(size, requests))]
    Console().print(_table(results))
    if not quick:
        report = {"at": datetime.now(UTC).isoformat(), "machine": describe_machine(), "results": results}  # noqa: TID251
        (RESULTS / "past.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


async def _measure(messages: int, requests: int) -> list[Result]:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        log = await SqliteLog.open(Path(folder) / "log.db", store_id="bench")
        store = await PrimaryStore.open(Path(folder) / "projections.db")
        scene = Scene(log, store, BuiltinEmbedder(), TokenCounter(), Conversations(2), 2 * messages)
        try:
            await _write(scene, [_said(scene, number) for number in range(2 * messages)])
            results = await _requests(scene, messages, requests)
            await _write(scene, [_embedded_again(scene, number) for number in range(0, 2 * messages, 2)])
            return [*results, await _other_vectors(scene, messages, requests)]
        finally:
            await store.close()
            await log.close()


async def _write(scene: Scene, payloads: Sequence[Sequence[Event]]) -> None:
    first = scene.log.state.last_index + 1
    entries = [Entry(term=1, index=index, data=encode(events)) for index, events in enumerate(payloads, first)]
    for start in range(0, len(entries), BATCH_ENTRIES):
        batch = entries[start : start + BATCH_ENTRIES]
        hard_state = HardState(term=1, vote=1, commit=batch[-1].index)
        await scene.log.append([Append(entries=batch, hard_state=hard_state)])
        await scene.store.apply(batch)


def _said(scene: Scene, number: int) -> list[Event]:
    text = scene.queries.text()
    session_id = SESSION if number % 2 == 0 else "other"
    at_ms = START_MS + number * MINUTE_MS
    role: Role = "user" if number % 4 < 2 else "assistant"  # noqa: PLR2004 - a question, then its answer
    message = MessageAppended(
        session_id=session_id,
        at_ms=at_ms,
        message_id=f"m{number}",
        role=role,
        text=text,
        tokens=scene.tokens.count(text),
    )
    return [message, _vectors(scene, session_id, number, text, at_ms)]


def _embedded_again(scene: Scene, number: int) -> list[Event]:
    at_ms = START_MS + (scene.last_index + number) * MINUTE_MS
    return [_vectors(scene, SESSION, number, scene.queries.text(), at_ms, source_index=number + 1)]


def _vectors(
    scene: Scene, session_id: str, number: int, text: str, at_ms: int, source_index: int = 0
) -> MessageEmbedded:
    [vector] = scene.embedder.embed([text])
    return MessageEmbedded(
        session_id=session_id,
        at_ms=at_ms,
        message_id=f"m{number}",
        source_index=source_index,
        model=scene.embedder.model,
        dimension=scene.embedder.dimension,
        chunks=[Chunk(start=0, end=len(text), vector=vector.astype("<f2").tobytes())],
    )


async def _requests(scene: Scene, messages: int, requests: int) -> list[Result]:
    searcher = scene.searcher()
    lookback = scene.lookback(searcher)
    await Sealer(scene.store, searcher.indexes, SystemClock()).seal_due()
    present = ContextReader(scene.store, searcher, scene.tokens, short_term_count=SHORT_TERM_COUNT)

    async def now(_: int) -> None:
        await _read(present, scene, START_MS)

    async def then(index: int) -> None:
        past = await lookback.at(index)
        await _read(past.contexts, scene, past.at_ms)

    async def by_time(index: int) -> None:
        await then(await lookback.index_at(START_MS + index * MINUTE_MS))

    async def cold(index: int) -> None:
        fresh = scene.searcher()
        past = await scene.lookback(fresh).at(index)
        await _read(past.contexts, scene, past.at_ms)
        fresh.close()

    async def session(index: int) -> None:
        past = await lookback.at(index)
        row = await past.reads.session(SESSION)
        assert row is not None, "it was there from the first entry on"
        await past.reads.whole_session(row)

    async def page(index: int) -> None:
        await _page(await lookback.at(index))

    async def differ(index: int) -> None:
        before, after = await lookback.at(index), await lookback.at(scene.last_index)
        await difference(
            scene.store, Committed(scene.log), before.reads, after.reads, session_id=SESSION, tenant="default"
        )

    asked: dict[str, Callable[[int], Awaitable[None]]] = {
        "context of now": now,
        "context as of an index": then,
        "context as of a time": by_time,
        "context as of an index, cold": cold,
        "session as of an index": session,
        "last 50 messages as of an index": page,
        "difference up to now": differ,
    }
    results = [await _timed(question, ask, scene, messages, requests) for question, ask in asked.items()]
    searcher.close()
    return results


async def _other_vectors(scene: Scene, messages: int, requests: int) -> Result:
    searcher = scene.searcher()
    lookback = scene.lookback(searcher)

    async def then(index: int) -> None:
        past = await lookback.at(index)
        await _read(past.contexts, scene, past.at_ms)

    result = await _timed("context as of an index, other vectors", then, scene, messages, requests)
    searcher.close()
    return result


async def _timed(
    question: str, ask: Callable[[int], Awaitable[None]], scene: Scene, messages: int, requests: int
) -> Result:
    places = cycle(range(scene.last_index // 10, scene.last_index + 1, scene.last_index // 10))
    await ask(scene.last_index)
    latencies_s: list[float] = []
    started_s = perf_counter()
    for _ in range(requests):
        asked_s = perf_counter()
        await ask(next(places))
        latencies_s.append(perf_counter() - asked_s)
    return summarize(question, f"{messages:,} messages", Timing(latencies_s, perf_counter() - started_s))


async def _read(contexts: ContextReader, scene: Scene, now_ms: int) -> None:
    await contexts.read(
        SESSION,
        tenant="default",
        max_tokens=8000,
        similarity_threshold=None,
        long_term_top_k=10,
        query=scene.queries.text(),
        now_ms=now_ms,
        scope="session",
        format="text",
    )


async def _page(past: Past) -> None:
    row = await past.reads.session(SESSION)
    assert row is not None, "it was there from the first entry on"
    await past.reads.messages(row.session_key, limit=50, descending=True)


def _table(results: Sequence[Result]) -> Table:
    table = Table("question", "case", "p50 ms", "p95 ms", "p99 ms")
    for result in results:
        numbers = (result.p50_ms, result.p95_ms, result.p99_ms)
        table.add_row(result.question, result.case, *("" if number is None else f"{number:,.1f}" for number in numbers))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
