"""How fast is Redis filled, and what do requests notice when it is stopped, paused or flushed?

    python -m benchmarks.bench_redis            all of it, a minute; writes results/redis.json
    python -m benchmarks.bench_redis --quick    each part once, small; writes nothing

A real redis-server and a real node, each in a process of its own, and one client in this one.
"""

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Result, Timing, describe_machine, summarize
from engram import __version__
from engram.events import Chunk, Event, MessageAppended, MessageEmbedded, encode
from engram.projections.redis_projection import open_redis
from engram.projections.redis_rebuilding import rebuild
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import Entry
from tests.redis_server import RedisServer
from tests.server_process import ServerProcess, find_free_port

RESULTS = Path(__file__).parent / "results"
WINDOW = 24
"""SHORT_TERM_COUNT as it is set by default, and the messages that a context looks back."""

TEXT = "The ferry to the island leaves at nine, and the tickets are sold on board, so bring some coins. "
BATCH = 500
READY_S = 60.0


class Sizes(NamedTuple):
    """How much of everything."""

    messages: int
    sessions: int
    """Of the node that is asked."""
    said: int
    """Messages in each."""
    requests: int


FULL = Sizes(messages=100_000, sessions=200, said=30, requests=1_000)
QUICK = Sizes(messages=2_400, sessions=5, said=30, requests=40)


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is written down."""

    version: str
    machine: dict[str, str]
    results: list[Result]


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_redis", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each part once, small, and keep nothing")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = [*_fills(folder, sizes), *_requests(folder, sizes)]
    Console().print(_table(results))
    if not options.quick:
        report = Report(version=__version__, machine=describe_machine(), results=results)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "redis.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


def _fills(folder: Path, sizes: Sizes) -> list[Result]:
    """Measure how fast a key space is written: sessions that fit into their windows, and long ones."""
    results: list[Result] = []
    for each in (WINDOW, 10 * WINDOW):
        with RedisServer(folder / f"fill-{each}" / "redis", find_free_port()) as server:
            made = _fill(folder / f"fill-{each}", server.url, messages=sizes.messages, each=each)
            results.append(uvloop.run(made))
    return results


async def _fill(folder: Path, url: str, *, messages: int, each: int) -> Result:
    primary = await PrimaryStore.open(folder / "projections.db")
    await _fold(primary, messages=messages, each=each)
    redis = open_redis(url, node_id=1, window=WINDOW)
    before_kb = _rss_kb()
    started_s = time.perf_counter()
    written = await rebuild(redis, primary, lambda _: None, log_store="bench")
    run_s = time.perf_counter() - started_s
    grown_mb = max(0, _rss_kb() - before_kb) / 1024
    await redis.close()
    await primary.close()
    return Result(
        question=f"rebuild of {messages} messages, {each} a session",
        case=f"{written} of them are kept in Redis",
        per_s=round(messages / run_s, 1),
        value=round(grown_mb, 1),
        unit="MiB of memory more",
    )


async def _fold(primary: PrimaryStore, *, messages: int, each: int) -> None:
    vector = Chunk(start=0, end=10, vector=bytes(512))
    entries: list[Entry] = []
    for number in range(messages):
        session_id, message_id = f"session-{number // each}", f"message-{number}"
        events: list[Event] = [
            MessageAppended(
                session_id=session_id, at_ms=number, message_id=message_id, role="user", text=TEXT, tokens=22
            ),
            MessageEmbedded(
                session_id=session_id,
                at_ms=number,
                message_id=message_id,
                source_index=0,
                model="m",
                dimension=256,
                chunks=[vector],
            ),
        ]
        entries.append(Entry(number + 1, encode(events)))
        if len(entries) == BATCH:
            await primary.apply(entries)
            entries = []
    if entries:
        await primary.apply(entries)


def _rss_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


class _Client:
    """One connection that is kept open, and the sessions to ask for in turn."""

    def __init__(self, node: ServerProcess, sizes: Sizes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
        self._sizes = sizes
        self._turn = 0

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Return what is answered.

        Raises:
            AssertionError: It is an error: no request may fail because of Redis.
        """
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status in {200, 204}, f"{method} {path}: {answer.status} {content!r}"
        return content

    def write_all(self) -> None:
        """Write every session."""
        for number in range(self._sizes.sessions):
            messages = [{"role": "user", "content": f"{TEXT} {n}"} for n in range(self._sizes.said)]
            self.ask("POST", f"/sessions/s{number}/messages", {"messages": messages})
            self.ask("PUT", f"/sessions/s{number}/core-memory", {"fact": f"fact of {number}"})

    def context(self) -> None:
        """Ask for the context of the next session: nothing is searched, so what is read counts."""
        self._turn = (self._turn + 1) % self._sizes.sessions
        self.ask("GET", f"/sessions/s{self._turn}/context?long_term_top_k=0")

    def core(self) -> None:
        """Ask for the core memory of the next session."""
        self._turn = (self._turn + 1) % self._sizes.sessions
        self.ask("GET", f"/sessions/s{self._turn}/core-memory")

    def wait_current(self) -> None:
        """Wait until Redis answers for all sessions."""
        ends_s = time.perf_counter() + READY_S
        while time.perf_counter() < ends_s:
            told = json.loads(self.ask("GET", "/ready"))["dependencies"]
            if any(each["name"] == "redis" and each["detail"].startswith(("current", "not used")) for each in told):
                return
        raise AssertionError("Redis did not become current")


def _requests(folder: Path, sizes: Sizes) -> list[Result]:
    results: list[Result] = []
    with ServerProcess(folder / "alone", find_free_port()) as node:
        client = _Client(node, sizes)
        client.write_all()
        results += _both("without Redis", client, sizes)
    server = RedisServer(folder / "redis", find_free_port(), appendonly=True)
    with server, ServerProcess(folder / "node", find_free_port(), {"REDIS_URL": server.url}) as node:
        client = _Client(node, sizes)
        client.write_all()
        for case, befall, undo in _misfortunes(server):
            client.wait_current()
            client.context()
            befall()
            results += _both(case, client, sizes)
            undo()
    return results


def _misfortunes(server: RedisServer) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
    def nothing() -> None:
        pass

    return [
        ("Redis current", nothing, nothing),
        ("Redis flushed just before", server.flush, nothing),
        ("Redis paused just before", server.pause, server.resume),
        ("Redis stopped just before", server.stop, server.start),
        ("Redis killed just before", server.kill, server.start),
    ]


def _both(case: str, client: _Client, sizes: Sizes) -> list[Result]:
    return [
        _timed("GET context", case, client.context, sizes.requests),
        _timed("GET core-memory", case, client.core, sizes.requests),
    ]


def _timed(question: str, case: str, request: Callable[[], None], count: int) -> Result:
    latencies_s: list[float] = []
    for _ in range(count):
        started_s = time.perf_counter()
        request()
        latencies_s.append(time.perf_counter() - started_s)
    result = summarize(question, case, Timing(latencies_s, sum(latencies_s)))
    return msgspec.structs.replace(result, value=round(1000 * max(latencies_s), 1), unit="ms at most")


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="Redis")
    for heading in ("what", "case", "a second", "p50 ms", "p99 ms", "besides"):
        table.add_column(heading, justify="left" if heading in {"what", "case"} else "right")
    for each in results:
        numbers = (each.per_s, each.p50_ms, each.p99_ms)
        shown = ["" if number is None else f"{number:,.2f}" for number in numbers]
        table.add_row(each.question, each.case, *shown, f"{each.value} {each.unit}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
