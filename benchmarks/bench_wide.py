"""What does a search cost over very many messages? All sessions of a scope at once, and those that are chosen.

    python -m benchmarks.bench_wide             200 000 and 600 000 messages, ten minutes; writes results/wide.json
    python -m benchmarks.bench_wide --quick     4 000 messages in 40 sessions; writes nothing

Real read models, sealed recall indexes and a real LanceDB on this disk, without HTTP. One user has all of the sessions. In
each a needle stands among other messages, the only one with its words, and is asked for in other words than its own. The
messages are the node's own bound, and three times that. Each way of searching runs in a process of its own, which says how
large it became.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.timing import describe_machine
from engram.clock import SystemClock
from engram.commands import MessageDraft, Vectors, append_messages, create_session
from engram.events import Chunk, Event, encode
from engram.inference.builtin import BuiltinEmbedder
from engram.log.consensus.types import Entry
from engram.projections.lance_feed import LanceFeed, Options, Silent, rebuild
from engram.projections.lance_store import LanceStore
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.sealing import Sealer
from engram.recall.search import Searcher, SearchResult
from engram.recall.wide import SCOPE_ROWS_MAX

RESULTS = Path(__file__).parent / "results"
SEARCHES, QUICK_SEARCHES = 40, 3
CACHE_BYTES = 256 * 1024 * 1024
AT_MS = 1_777_593_600_000
TEXTS = (
    "The ferry to the island leaves at nine, and the tickets are sold on board, so bring some coins.",
    "My sister has moved to Lisbon, where she works for a company that builds small wind turbines.",
    "Could you remind me on Thursday that the library closes early, and that two books are overdue?",
    "We tried the lentil soup with lemon; next time less cumin, and bread from the place at the corner.",
)
THINGS = ("violin", "canoe", "telescope", "greenhouse", "tractor", "parrot", "camera", "sculpture", "tent", "piano")
PLACES = ("Oslo", "Porto", "Kyoto", "Quito", "Leeds", "Turin", "Dakar", "Perth", "Sofia", "Lima")
PEOPLE = (
    "Aino", "Bruno", "Chidi", "Dalia", "Emeka", "Farah", "Goran", "Hanna", "Ivo", "Jaya",
    "Kofi", "Lena", "Mateo", "Nadia", "Otto", "Paula", "Qasim", "Rosa", "Stefan", "Tova",
)  # fmt: skip
NOISE = 0.15
"""Added to each number of a vector, so that no two messages with the same words have the same one."""


class Size(NamedTuple):
    """What is searched."""

    sessions: int
    each: int
    """Messages of a session."""
    bound: int
    """Messages that have room in a search, unless all of them are searched."""

    @property
    def messages(self) -> int:
        """All of them."""
        return self.sessions * self.each


SIZES = (Size(400, 500, 50_000), Size(1_200, 500, SCOPE_ROWS_MAX))
QUICK_SIZES = (Size(40, 100, 1_000),)
WAYS = ("all", "latest", "nearest")


class Unobserved:
    """Takes note of nothing."""

    def searched(self, stage: str, seconds: float) -> None:
        """Take note of one stage of one search."""


class Line(msgspec.Struct, kw_only=True):
    """One way of searching."""

    way: str
    messages: int
    bound: int
    first_ms: float
    p50_ms: float
    p95_ms: float
    rss_mib: int
    """The most that the process had, of which the embedder and the imports are the base."""
    base_rss_mib: int
    left_out: int
    """Sessions, in the last search."""
    found: float
    """Share of the needles among the first ten hits."""


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_wide", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, small, and keep nothing")
    parser.add_argument("--child", nargs=5, metavar=("FOLDER", "WAY", *Size._fields), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    searches = QUICK_SEARCHES if options.quick else SEARCHES
    if options.child:
        folder, way, *numbers = options.child
        line = asyncio.run(_search(Path(folder), way, Size(*map(int, numbers)), searches))
        sys.stdout.buffer.write(msgspec.json.encode(line))
        return 0
    lines = [line for size in (QUICK_SIZES if options.quick else SIZES) for line in _measure(size, quick=options.quick)]
    if not options.quick:
        report = {"machine": describe_machine(), "results": lines}
        (RESULTS / "wide.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def _measure(size: Size, *, quick: bool) -> Sequence[Line]:
    with tempfile.TemporaryDirectory(dir=".") as name:
        asyncio.run(_fill(Path(name), size))
        lines = [asyncio.run(_in_child(name, way, size, quick=quick)) for way in WAYS]
    Console().print(_table(lines))
    return lines


def _lance(folder: Path, embedder: BuiltinEmbedder) -> LanceStore:
    return LanceStore(str(folder / "lance"), model=embedder.model, dimension=embedder.dimension)


def _needle(number: int) -> tuple[str, str]:
    """Return what is said in a session alone, and how it is asked for."""
    number, thing = divmod(number, len(THINGS))
    number, place = divmod(number, len(PLACES))
    assert number < len(PEOPLE), "there are no more needles"
    return (
        f"I bought a {THINGS[thing]} in {PLACES[place]} from {PEOPLE[number]}, a retired teacher.",
        f"What did the {PLACES[place]} purchase of a {THINGS[thing]} involve, the one from {PEOPLE[number]}?",
    )


async def _fill(folder: Path, size: Size) -> None:
    sessions, messages, _ = size
    embedder, rng = BuiltinEmbedder(), np.random.default_rng(1)
    store = await PrimaryStore.open(folder / "projections.db")
    spoken = embedder.embed(TEXTS)
    for number in range(sessions):
        name = f"session-{number}"
        made = create_session(session_id=name, agent_id=None, user_id="ann", metadata={}, at_ms=AT_MS + number)
        texts = [f"{TEXTS[place % len(TEXTS)]} That was number {place}." for place in range(messages)]
        numbers = spoken[np.arange(messages) % len(TEXTS)] + NOISE * rng.normal(size=(messages, embedder.dimension))
        texts[messages // 2] = _needle(number)[0]
        numbers[messages // 2] = embedder.embed([texts[messages // 2]])[0]
        numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
        first = store.applied_index + 1
        events = [made, _said(name, texts, numbers.astype("<f2"), embedder)]
        await store.apply([Entry(term=1, index=first + place, data=encode(each)) for place, each in enumerate(events)])
    searcher = Searcher(store, embedder, cache_bytes_max=CACHE_BYTES, observer=Unobserved())
    sealer = Sealer(store, searcher.indexes, SystemClock(), rests=0)
    while await sealer.seal_due():
        pass
    searcher.close()
    lance = _lance(folder, embedder)
    await rebuild(lance, store, lambda _: None)
    await lance.stop()
    await store.close()


def _said(name: str, texts: Sequence[str], numbers: np.ndarray, embedder: BuiltinEmbedder) -> Sequence[Event]:
    drafts = [
        MessageDraft(f"m{place}", "assistant" if place % 2 else "user", text, None, None, {}, tokens=28)
        for place, text in enumerate(texts)
    ]
    vectors = [
        Vectors(embedder.model, embedder.dimension, [Chunk(start=0, end=len(text), vector=row.tobytes())])
        for text, row in zip(texts, numbers, strict=True)
    ]
    return append_messages(session_id=name, drafts=drafts, vectors=vectors, at_ms=AT_MS)


async def _in_child(folder: str, way: str, size: Size, *, quick: bool) -> Line:
    child = ["--child", folder, way, *map(str, size), *(["--quick"] if quick else [])]
    command = [sys.executable, "-m", "benchmarks.bench_wide", *child]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return msgspec.json.decode(out, type=Line)


async def _search(folder: Path, way: str, size: Size, searches: int) -> Line:
    embedder = BuiltinEmbedder()
    store = await PrimaryStore.open(folder / "projections.db")
    feed = LanceFeed(
        _lance(folder, embedder),
        store,
        clock=SystemClock(),
        observer=Silent(),
        log_last_index=store.applied_index,
        options=Options(),
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(feed.run())
        while way == "nearest" and not feed.status().ready:  # noqa: ASYNC110  it tells nobody that it is open
            await asyncio.sleep(0.05)
        searcher = Searcher(
            store,
            embedder,
            feed if way == "nearest" else None,
            cache_bytes_max=CACHE_BYTES,
            observer=Unobserved(),
            scope_rows_max=size.messages if way == "all" else size.bound,
        )
        base_mib = _rss_mib()
        latencies_s, found, last = await _ask(store, searcher, size.sessions, searches)
        task.cancel()
    searcher.close()
    await store.close()
    return Line(
        way=way,
        messages=size.messages,
        bound=size.bound,
        first_ms=1000 * latencies_s[0],
        p50_ms=1000 * statistics.median(latencies_s[1:]),
        p95_ms=1000 * float(np.quantile(latencies_s[1:], 0.95)),
        rss_mib=_rss_mib(),
        base_rss_mib=base_mib,
        left_out=last.sessions_left_out,
        found=found,
    )


async def _ask(
    store: PrimaryStore, searcher: Searcher, sessions: int, searches: int
) -> tuple[list[float], float, SearchResult]:
    latencies_s: list[float] = []
    results: list[tuple[str, SearchResult]] = []
    for number in range(searches + 1):
        said, asked = _needle(number * sessions // (searches + 1))
        started_s = perf_counter()
        scope = await store.scope("default", user_id="ann")
        results.append((said, await searcher.search(scope, asked, top_k=10, now_ms=AT_MS)))
        latencies_s.append(perf_counter() - started_s)
    found = sum(any(hit.message.text == said for hit in result.hits) for said, result in results)
    return latencies_s, found / len(results), results[-1][1]


def _rss_mib() -> int:
    """Return the most that this process had. `getrusage` would count what its parent had when it was started."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


def _table(lines: Sequence[Line]) -> Table:
    table = Table(title=f"searching {lines[0].messages:,} messages of one user, {lines[0].bound:,} at a time")
    for column in (
        "searched",
        "first, ms",
        "p50 ms",
        "p95 ms",
        "RSS, MiB",
        "of it before",
        "sessions left out",
        "found",
    ):
        table.add_column(column, justify="left" if column == "searched" else "right")
    for line in lines:
        times = [f"{milliseconds:.0f}" for milliseconds in (line.first_ms, line.p50_ms, line.p95_ms)]
        counts = [str(count) for count in (line.rss_mib, line.base_rss_mib, line.left_out)]
        table.add_row(line.way, *times, *counts, f"{line.found:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
