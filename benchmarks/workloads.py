"""What is asked of the server: each function measures one thing and returns its lines of the table."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from benchmarks.connection import Answer, Connection, build_request, session_path
from benchmarks.conversations import Conversations
from benchmarks.timing import Result, Timing, summarize

SESSION_MESSAGES = 500
BATCH_MESSAGES = 100
USER_SESSIONS = 40
"""Sessions of the one user who has many: with 500 messages each, a scope of 20 000 rows."""

USER = "someone"

Tick = Callable[[int], None]


class Sizes(NamedTuple):
    """How much of everything."""

    ingest: Sequence[tuple[int, int]]
    """Connections, and messages over all of them."""
    batches: Sequence[tuple[int, int]]
    """Connections, and batches over all of them."""
    context_messages: Sequence[int]
    stored_sessions: Sequence[int]
    """Sessions of 500 messages that are there when a search is measured, growing."""
    reads: int
    starts: int


FULL = Sizes(
    ingest=((1, 3_000), (8, 12_000), (64, 24_000)),
    batches=((1, 150), (8, 300)),
    context_messages=(20, 100, 1000),
    stored_sessions=(2, 20, 200),
    reads=500,
    starts=3,
)
QUICK = Sizes(
    ingest=((1, 50), (8, 160), (64, 256)),
    batches=((1, 3), (8, 8)),
    context_messages=(20,),
    stored_sessions=(2,),
    reads=20,
    starts=1,
)


class WrongAnswerError(Exception):
    """The server answered something else than the workload counts on."""


async def drive(port: int, requests: Sequence[Sequence[bytes]], tick: Tick) -> Timing:
    """Send each list of requests over a connection of its own, all at the same time."""
    connections = [await Connection.open(port) for _ in requests]
    latencies_s: list[float] = []
    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection, own in zip(connections, requests, strict=True):
            group.create_task(_send(connection, own, latencies_s, tick))
    run_s = time.perf_counter() - started_s
    for connection in connections:
        connection.close()
    return Timing(latencies_s, run_s)


async def _send(connection: Connection, requests: Sequence[bytes], latencies_s: list[float], tick: Tick) -> None:
    for request in requests:
        started_s = time.perf_counter()
        answer = await connection.ask(request)
        latencies_s.append(time.perf_counter() - started_s)
        _check(answer)
        tick(1)


def _check(answer: Answer) -> None:
    if answer.status not in {200, 204}:
        raise WrongAnswerError(f"{answer.status}: {answer.body[:500].decode(errors='replace')}")


async def measure_ingest(port: int, said: Conversations, sizes: Sizes, tick: Tick) -> list[Result]:
    """One message a request, acknowledged when it is durable and can be found."""
    results = []
    for connections, messages in sizes.ingest:
        requests = [
            [
                build_request("POST", session_path(f"single-{connections}-{number}", "/messages"), turn)
                for turn in said.turns(messages // connections)
            ]
            for number in range(connections)
        ]
        timing = await drive(port, requests, tick)
        results.append(summarize("ingest, one by one", _connections(connections), timing))
    return results


async def measure_batches(port: int, said: Conversations, sizes: Sizes, tick: Tick) -> list[Result]:
    """A hundred messages a request, all of them or none."""
    results = []
    for connections, batches in sizes.batches:
        requests = [
            _batches(f"batch-{connections}-{number}", said, batches // connections) for number in range(connections)
        ]
        timing = await drive(port, requests, tick)
        results.append(summarize("ingest, batches of 100", _connections(connections), timing, items=BATCH_MESSAGES))
    return results


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _batches(session_id: str, said: Conversations, count: int) -> list[bytes]:
    path = session_path(session_id, "/messages")
    turns = list(said.turns(count * BATCH_MESSAGES))
    return [
        build_request("POST", path, {"messages": turns[start : start + BATCH_MESSAGES]})
        for start in range(0, len(turns), BATCH_MESSAGES)
    ]


async def measure_context(port: int, said: Conversations, sizes: Sizes, tick: Tick) -> list[Result]:
    """A context of 8000 tokens with ten memories, each time for another query."""
    results = []
    for stored in sizes.context_messages:
        session_id = f"context-{stored}"
        path = session_path(session_id, "/messages")
        fill = [build_request("POST", path, turn) for turn in said.turns(stored)]
        await drive(port, [fill], tick)
        asked = [
            build_request("GET", session_path(session_id, f"/context?max_tokens=8000&query={quote(said.query())}"))
            for _ in range(sizes.reads)
        ]
        results.append(summarize("context", f"{stored} messages", await drive(port, [asked], tick)))
    return results


async def store_sessions(port: int, said: Conversations, numbers: range, tick: Tick) -> None:
    """Write sessions of 500 messages; the first forty belong to one user."""
    requests: list[bytes] = []
    for number in numbers:
        owner = {"user_id": USER} if number < USER_SESSIONS else {}
        session_id = f"stored-{number}"
        requests.append(build_request("POST", "/sessions", {"session_id": session_id, **owner}))
        requests += _batches(session_id, said, SESSION_MESSAGES // BATCH_MESSAGES)
    await drive(port, [requests], tick)


async def measure_search(port: int, said: Conversations, sizes: Sizes, tick: Tick) -> list[Result]:
    """The ten best of one session's 500 messages, and of all that one user's sessions hold."""
    results: list[Result] = []
    pick = random.Random(1)
    stored = 0
    for sessions in sizes.stored_sessions:
        await store_sessions(port, said, range(stored, sessions), tick)
        stored = sessions
        case = f"{sessions * SESSION_MESSAGES} stored"
        near = [_search(f"stored-{pick.randrange(min(sessions, 20))}", said) for _ in range(sizes.reads)]
        await drive(port, [[_search(f"stored-{number}", said) for number in range(min(sessions, 20))]], tick)
        results.append(summarize("search, session of 500", case, await drive(port, [near], tick)))
    rows = min(stored, USER_SESSIONS) * SESSION_MESSAGES
    wide = [_search("stored-0", said, scope="user") for _ in range(max(1, sizes.reads // 5))]
    await drive(port, [wide[:1]], tick)
    results.append(summarize("search, scope user", f"{rows} rows", await drive(port, [wide], tick)))
    return results


async def measure_first_searches(port: int, said: Conversations, sizes: Sizes, tick: Tick) -> list[Result]:
    """The first search of each session after a restart, when nothing of it is in memory."""
    sessions = min(sizes.stored_sessions[-1], sizes.reads)
    first = [_search(f"stored-{number}", said) for number in range(sessions)]
    timing = await drive(port, [first], tick)
    return [summarize("search, first after a restart", f"{SESSION_MESSAGES} rows", timing)]


def _search(session_id: str, said: Conversations, scope: str = "session") -> bytes:
    body = {"query": said.query(), "top_k": 10, "scope": scope}
    return build_request("POST", session_path(session_id, "/search"), body)


Workload = Callable[[int, Conversations, Sizes, Tick], Awaitable[list[Result]]]

WRITES: Sequence[Workload] = (measure_ingest, measure_batches)
READS: Sequence[Workload] = (measure_context, measure_search)
