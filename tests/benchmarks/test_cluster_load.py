"""Load on a cluster: the same for every system, and nothing is measured that was not done."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from benchmarks.cluster_load import (
    CASES,
    LeaderMovedError,
    Pair,
    Texts,
    WrongAnswerError,
    measure_idle,
    resident_mb,
    write_for,
)
from benchmarks.connection import build_request
from benchmarks.engram_cluster import Engram
from benchmarks.etcd import Etcd

STORED = b"HTTP/1.1 204 No Content\r\nEngram-Index: 7\r\n\r\n"
FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
MOVED = b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 2\r\n\r\n{}"


class Node:
    """Answers writes with one thing and reads with another, and keeps what it was asked."""

    def __init__(self, to_write: bytes = STORED, to_read: bytes = FOUND) -> None:
        self.heads: list[bytes] = []
        self.to_read = to_read
        self._to_write = to_write
        self._opened: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]
            for writer in self._opened:
                writer.close()
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._opened.append(writer)
        while request := await reader.read(65536):
            self.heads.append(request.partition(b"\r\n")[0])
            writer.write(self._to_write if request.startswith(b"POST") else self.to_read)


def turns(count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(number)} for number in range(count)]


def raised(errors: BaseExceptionGroup[Exception]) -> Sequence[type[BaseException]]:
    return [type(error) for error in errors.exceptions]


def test_every_system_gets_as_many_requests_of_every_case() -> None:
    texts = Texts(1, seconds=0.05)

    for case in CASES:
        ours, theirs = texts.requests(case, Engram()), texts.requests(case, Etcd())
        assert len(ours) == case.connections
        assert [len(own) for own in ours] == [len(other) for other in theirs]
        assert all(ours)


async def test_each_answer_is_a_latency() -> None:
    node = Node()

    async with node.listening() as port:
        timing = await write_for(port, [[build_request("POST", "/", {})]] * 3, seconds=0.02)

    assert len(timing.latencies_s) == len(node.heads) >= 3
    assert timing.run_s >= 0.02


@pytest.mark.parametrize(("answer", "error"), [(MOVED, LeaderMovedError), (MISSING, WrongAnswerError)])
async def test_a_write_that_was_not_stored_is_not_measured(answer: bytes, error: type[Exception]) -> None:
    async with Node(to_write=answer).listening() as port:
        with pytest.raises(BaseExceptionGroup) as caught:
            await write_for(port, [[build_request("POST", "/", {})]], seconds=0.02)

    assert raised(caught.value) == [error]


async def test_a_read_by_index_names_the_index_of_its_write() -> None:
    node = Node()

    async with node.listening() as port, Pair.connected(port, port, Engram(), iter(turns(9))) as pair:
        timing = await pair.time_after_writes(2)

    reads = [head for head in node.heads if head.startswith(b"GET")]
    assert len(timing.latencies_s) == 2
    assert all(b"min_index=7" in head for head in reads[-2:])


async def test_plain_reads_that_find_nothing_are_counted() -> None:
    node = Node()

    async with node.listening() as port, Pair.connected(port, port, Engram(), iter(turns(9))) as pair:
        assert await pair.count_missed(2) == 0
        node.to_read = MISSING
        assert await pair.count_missed(3) == 3


async def test_a_read_that_must_not_miss_is_an_error_if_it_does() -> None:
    node = Node()

    async with node.listening() as port, Pair.connected(port, port, Engram(), iter(turns(9))) as pair:
        node.to_read = MISSING
        with pytest.raises(WrongAnswerError, match="missed"):
            await pair.time_linearizable(1)


async def test_a_process_that_works_is_not_idle() -> None:
    async def work() -> None:
        while True:
            sum(range(10_000))
            await asyncio.sleep(0)

    worker = asyncio.get_running_loop().create_task(work())
    [percent] = await measure_idle([os.getpid()], 0.1)
    worker.cancel()

    assert percent > 0
    assert resident_mb(os.getpid()) > 1
