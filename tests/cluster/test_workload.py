"""Clients do not lose what they were promised, and notice when a node does."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import pytest

from tests.cluster.asking import ask
from tests.cluster.checks import NOTHING_WRONG, check_nodes
from tests.cluster.cluster_process import Node
from tests.cluster.sockets import find_lasting_ports
from tests.cluster.waiting import NeverError
from tests.cluster.workload import BrokenPromiseError, Habits, Workload

HABITS = Habits(writers=3, pause_s=0.001, timeout_s=0.5, batch_share=0.3, read_every_s=0.005)

Answering = Callable[[str], Awaitable[bytes]]
"""Takes the first line of a request, returns the response."""


def response(status: int, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@asynccontextmanager
async def fake_node(answering: Answering) -> AsyncIterator[int]:
    """Serve on a free port whatever `answering` returns."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = head.partition("Content-Length: ")[2].partition("\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(await answering(head.partition("\r\n")[0]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def accepting(line: str) -> bytes:
    return response(204 if line.startswith("POST") else 200, "Engram-Index: 7")


async def refusing(line: str) -> bytes:
    return response(503, "Retry-After: 1")


async def hanging(line: str) -> bytes:
    return b""


async def write_some(ports: dict[int, int], *, but_by: tuple[int, ...] = (), habits: Habits = HABITS) -> Workload:
    async with Workload(ports, random.Random(1), habits) as workload:
        for _ in range(20):
            await workload.wait_written(perf_counter(), but_by=but_by, within_s=10)
    return workload


async def test_what_a_node_loses_would_be_found_and_a_crash_loses_nothing(tmp_path: Path) -> None:
    ports = find_lasting_ports(random.Random())
    node = Node(1, tmp_path, port=next(ports), raft_port=next(ports), announced_port=0)
    await asyncio.to_thread(node.start)
    try:
        async with Workload({1: node.port}, random.Random(1), HABITS) as workload:
            await workload.wait_written(perf_counter(), but_by=(), within_s=10)
            node.signal(signal.SIGKILL)
            await node.wait_ended()
            await asyncio.to_thread(node.start)
            await workload.wait_written(perf_counter(), but_by=(), within_s=10)

        assert workload.outcomes()["not connected"] > 0
        assert await check_nodes({1: node.port}, workload) == (NOTHING_WRONG, [])
        await ask(node.port, "DELETE", "/sessions/s-1/messages/m0", timeout_s=10)
        assert await check_nodes({1: node.port}, workload) == (NOTHING_WRONG._replace(lost=["node 1: s-1/m0"]), [])
    finally:
        await asyncio.to_thread(node.kill)


async def test_a_node_that_refuses_is_left_for_another() -> None:
    async with fake_node(refusing) as one, fake_node(accepting) as other:
        workload = await write_some({1: one, 2: other})

    assert {done.node_id for done in workload.acknowledgements()} == {2}


async def test_a_node_that_hangs_is_left_for_another_in_time() -> None:
    habits = Habits(writers=2, pause_s=0.001, timeout_s=0.2, batch_share=0)
    async with fake_node(hanging) as one, fake_node(accepting) as other:
        workload = await write_some({1: one, 2: other}, habits=habits)

    assert {done.node_id for done in workload.acknowledgements()} == {2}
    assert workload.outcomes()["no answer"] > 0


async def test_a_redirect_is_followed_at_once() -> None:
    async with fake_node(accepting) as leader:

        async def redirecting(line: str) -> bytes:
            return response(307, f"Location: http://127.0.0.1:{leader}{line.split()[1]}")

        async with fake_node(redirecting) as follower:
            workload = await write_some({1: leader, 2: follower})

    assert {done.node_id for done in workload.acknowledgements()} == {1}
    assert max(done.attempts for done in workload.acknowledgements()) == 1


async def test_nodes_that_redirect_to_one_another_are_no_endless_loop() -> None:
    places: list[int] = []

    async def redirecting(line: str) -> bytes:
        return response(307, f"Location: http://127.0.0.1:{places[0]}{line.split()[1]}")

    async with fake_node(redirecting) as one, fake_node(redirecting) as other:
        places.append(one)
        with pytest.raises(ExceptionGroup) as caught:
            async with Workload({1: one, 2: other}, random.Random(1), HABITS) as workload:
                await workload.wait_written(perf_counter(), but_by=(), within_s=0.2)

    assert caught.group_contains(NeverError)
    assert workload.outcomes()["redirected twice"] > 0


async def test_the_informed_client_asks_nobody_whom_it_was_told_to_shun() -> None:
    async with fake_node(hanging) as one, fake_node(accepting) as other:
        workload = Workload({1: one, 2: other}, random.Random(1), Habits(writers=0, timeout_s=2))
        workload.writers[0].caller.node_id = 1
        async with workload:
            workload.shun([1])
            await workload.wait_written(perf_counter(), but_by=[1], within_s=1)

    assert {done.node_id for done in workload.acknowledgements()} == {2}


async def test_an_answer_that_no_client_may_see_ends_the_drill() -> None:
    async def failing(line: str) -> bytes:
        return response(400)

    async with fake_node(failing) as one:
        with pytest.raises(ExceptionGroup) as caught:
            await write_some({1: one})

    assert caught.group_contains(BrokenPromiseError)


async def test_a_node_that_fails_is_left_for_another_and_noted() -> None:
    async def failing(line: str) -> bytes:
        return response(500)

    async with fake_node(failing) as one, fake_node(accepting) as other:
        workload = await write_some({1: one, 2: other})

    assert {done.node_id for done in workload.acknowledgements()} == {2}
    assert set(workload.failures()) == {"node 1 answered 500: "}


@pytest.mark.parametrize("stale", [response(404), response(200, "Engram-Index: 6")], ids=["gone", "of before"])
async def test_a_read_without_what_was_acknowledged_is_noted(stale: bytes) -> None:
    async def forgetting(line: str) -> bytes:
        return await accepting(line) if line.startswith("POST") else stale

    async with fake_node(forgetting) as one:
        workload = await write_some({1: one})

    assert all(reader.stale for reader in workload.readers)


async def test_a_read_that_is_refused_is_not_a_lie() -> None:
    async def busy(line: str) -> bytes:
        return await accepting(line) if line.startswith("POST") else response(503)

    async with fake_node(busy) as one:
        workload = await write_some({1: one})

    assert not any(reader.stale for reader in workload.readers)
    assert all(reader.unanswered.total() for reader in workload.readers)


async def test_the_time_without_writes_reaches_from_the_last_before_to_the_first_after() -> None:
    released = asyncio.Event()
    released.set()

    async def waiting(line: str) -> bytes:
        await released.wait()
        return await accepting(line)

    async with fake_node(waiting) as one:
        async with Workload({1: one}, random.Random(1), Habits(writers=2, timeout_s=60)) as workload:
            await workload.wait_written(perf_counter(), but_by=(), within_s=10)
            released.clear()
            from_s = perf_counter()
            with pytest.raises(NeverError):
                await workload.wait_written(from_s + 0.05, but_by=(), within_s=0.3)
            released.set()
            to_s = await workload.wait_written(from_s + 0.05, but_by=(), within_s=10)

        assert 0.2 < workload.longest_gap_s(from_s, to_s) <= to_s - from_s + 0.05
        assert workload.slowest_s(from_s, to_s) > 0.2
