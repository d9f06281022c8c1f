"""What is asked of a cluster of three, engram's or another: writes for some seconds, reads after writes, and nothing."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from benchmarks.connection import Answer, Connection
from benchmarks.conversations import Conversations
from benchmarks.timing import Timing

BATCH_MESSAGES = 100

READ_STATUS = 200
STORED_STATUSES = frozenset({200, 204})
MOVED_STATUSES = frozenset({307, 503})

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
"""In a second: what the kernel counts a process's time in."""

Turn = Mapping[str, str]


class WrongAnswerError(Exception):
    """A node answered something else than the workload counts on."""


class LeaderMovedError(Exception):
    """Another node leads now: what was being measured says nothing."""


class Nodes(NamedTuple):
    """A cluster that runs."""

    pids: Mapping[int, int]
    """The process that listens at each port of 127.0.0.1."""
    find_leader: Callable[[], Awaitable[int]]
    """Returns the port of the leader, once all follow one."""


class System(Protocol):
    """A cluster to measure, and how it is asked over HTTP and JSON."""

    name: str

    def running(self, folder: Path) -> AbstractAsyncContextManager[Nodes]:
        """Run three nodes with their data in `folder`, which is new; entered once they serve."""

    def write(self, session_id: str, number: int, turn: Turn) -> bytes:
        """Return the request that stores one message."""

    def write_batch(self, session_id: str, first: int, turns: Sequence[Turn]) -> bytes:
        """Return the request that stores all of `turns` or none."""

    def read(self, session_id: str, number: int, *, linearizable: bool) -> bytes:
        """Return the request that reads one message, from what the node has unless `linearizable`."""

    def read_after(self, session_id: str, number: int, acknowledged: Answer) -> bytes:
        """Return the request that reads one message by whoever got `acknowledged` for writing it."""

    def is_missing(self, answer: Answer) -> bool:
        """Return whether `answer`, to a read, says that there is no such message."""


class Case(NamedTuple):
    """One way of writing, all of it at once over so many connections."""

    name: str
    connections: int
    messages: int
    """In a request."""
    rate_max: int
    """Messages a second for which there are texts: what is faster says them again."""


CASES = (
    Case("1 connection", 1, 1, 1_500),
    Case("8 connections", 8, 1, 4_000),
    Case("64 connections", 64, 1, 6_000),
    Case("batches of 100, 1 connection", 1, BATCH_MESSAGES, 8_000),
    Case("batches of 100, 8 connections", 8, BATCH_MESSAGES, 12_000),
)


class Texts:
    """The messages of every case: the same ones for every system and every round."""

    def __init__(self, seed: int, seconds: float) -> None:
        said = Conversations(seed)
        self._turns = {
            case: [
                list(said.turns(max(case.messages, round(case.rate_max * seconds / case.connections))))
                for _ in range(case.connections)
            ]
            for case in CASES
        }

    def requests(self, case: Case, system: System) -> list[list[bytes]]:
        """Return the requests of each connection; each has a session of its own."""
        return [
            _requests(system, f"{case.connections}x{case.messages}-{place}", turns, case.messages)
            for place, turns in enumerate(self._turns[case])
        ]


def _requests(system: System, session_id: str, turns: Sequence[Turn], together: int) -> list[bytes]:
    if together == 1:
        return [system.write(session_id, number, turn) for number, turn in enumerate(turns)]
    return [
        system.write_batch(session_id, first, turns[first : first + together])
        for first in range(0, len(turns) - together + 1, together)
    ]


async def write_for(port: int, requests: Sequence[Sequence[bytes]], seconds: float) -> Timing:
    """Send each list of requests over a connection of its own, again and again, for so long.

    Raises:
        LeaderMovedError, WrongAnswerError: In an exception group; one was not stored.
    """
    connections = [await Connection.open(port) for _ in requests]
    latencies_s: list[float] = []
    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection, own in zip(connections, requests, strict=True):
            group.create_task(_write_until(started_s + seconds, connection, own, latencies_s))
    run_s = time.perf_counter() - started_s
    for connection in connections:
        connection.close()
    return Timing(latencies_s, run_s)


async def _write_until(
    end_s: float, connection: Connection, requests: Sequence[bytes], latencies_s: list[float]
) -> None:
    sent_s = time.perf_counter()
    for request in cycle(requests):
        _check_stored(await connection.ask(request))
        answered_s = time.perf_counter()
        latencies_s.append(answered_s - sent_s)
        if answered_s >= end_s:
            return
        sent_s = answered_s


def _check_stored(answer: Answer) -> Answer:
    if answer.status in MOVED_STATUSES:
        raise LeaderMovedError(answer.body[:500].decode(errors="replace"))
    if answer.status not in STORED_STATUSES:
        raise WrongAnswerError(f"{answer.status}: {answer.body[:500].decode(errors='replace')}")
    return answer


def message_id(number: int) -> str:
    """Return the id of a message that is to be read."""
    return f"m-{number}"


class Pair:
    """A connection to the leader, to write, and one to any node, to read at once what was written."""

    def __init__(
        self, leader: Connection, reader: Connection, system: System, session_id: str, turns: Iterator[Turn]
    ) -> None:
        self._leader = leader
        self._reader = reader
        self._system = system
        self._session_id = session_id
        self._turns = enumerate(turns)

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, leader_port: int, reader_port: int, system: System, turns: Iterator[Turn]
    ) -> AsyncIterator[Self]:
        """Connect, and write the first of `turns`; each read takes another one."""
        async with Connection.to(leader_port) as leader, Connection.to(reader_port) as reader:
            pair = cls(leader, reader, system, f"reads-{reader_port}", turns)
            number, _ = await pair._write()
            await pair._time(system.read(pair._session_id, number, linearizable=True))
            yield pair

    async def count_missed(self, count: int) -> int:
        """Read what the node has right after each write; return how many writes were not there."""
        missed = 0
        for _ in range(count):
            number, _ = await self._write()
            answer = await self._reader.ask(self._system.read(self._session_id, number, linearizable=False))
            missed += self._system.is_missing(answer)
        return missed

    async def time_local(self, count: int) -> Timing:
        """Read what the node has had for long, after each write."""
        request = self._system.read(self._session_id, 0, linearizable=False)
        return await self._time_all(count, lambda _number, _stored: request)

    async def time_linearizable(self, count: int) -> Timing:
        """Read each write as someone else does, who must not miss it."""
        return await self._time_all(
            count, lambda number, _stored: self._system.read(self._session_id, number, linearizable=True)
        )

    async def time_after_writes(self, count: int) -> Timing:
        """Read each write as its writer does, who knows its index."""
        return await self._time_all(
            count, lambda number, stored: self._system.read_after(self._session_id, number, stored)
        )

    async def _time_all(self, count: int, request: Callable[[int, Answer], bytes]) -> Timing:
        latencies_s = [await self._time(request(*await self._write())) for _ in range(count)]
        return Timing(latencies_s, sum(latencies_s))

    async def _write(self) -> tuple[int, Answer]:
        number, turn = next(self._turns)
        request = self._system.write(self._session_id, number, {"id": message_id(number), **turn})
        return number, _check_stored(await self._leader.ask(request))

    async def _time(self, request: bytes) -> float:
        started_s = time.perf_counter()
        answer = await self._reader.ask(request)
        latency_s = time.perf_counter() - started_s
        if answer.status in MOVED_STATUSES:
            raise LeaderMovedError(answer.body[:500].decode(errors="replace"))
        if answer.status != READ_STATUS or self._system.is_missing(answer):
            raise WrongAnswerError(f"a read missed a write: {answer.status}: {answer.body[:500]!r}")
        return latency_s


async def measure_idle(pids: Sequence[int], seconds: float) -> list[float]:
    """Return what each process uses of a core while nobody asks it anything, in percent."""
    before_s = [_cpu_s(pid) for pid in pids]
    started_s = time.perf_counter()
    await asyncio.sleep(seconds)
    waited_s = time.perf_counter() - started_s
    return [100 * (_cpu_s(pid) - start_s) / waited_s for pid, start_s in zip(pids, before_s, strict=True)]


def resident_mb(pid: int) -> float:
    """Return the memory that a process has resident, in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user_ticks, system_ticks = int(fields[11]), int(fields[12])
    return (user_ticks + system_ticks) / CLOCK_TICKS
