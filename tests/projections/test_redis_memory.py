"""Readers of short-term memory: they wait for Redis once at most, and are never told anything wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from engram.events import TENANT_DEFAULT
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import embedded, ended, pinned, said
from tests.projections.redis_scene import QUICK, Scene, needs_redis, primary_in
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

pytestmark = needs_redis

DEADLINE_S = 0.1

IDLE = QUICK._replace(check_s=60)
"""The feed looks at Redis only when it is told to: what is noticed was noticed by a reader."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", find_free_port(), appendonly=True) as started:
        yield started


@pytest_asyncio.fixture
async def primary(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    async with primary_in(tmp_path / "primary") as store:
        yield store


def commands(server: RedisServer, name: str) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


async def test_a_conversation_is_read_from_redis_in_one_transaction(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url)
    await scene.write(said("m1"), embedded("m1"), pinned("f1"))
    async with scene.fed():
        await scene.until(lambda: not scene.feed.status().unscrubbed, "nothing else is asked")
        before = commands(server, "exec")

        told = await scene.read()

        assert commands(server, "exec") == before + 1
        assert [message.message_id for message in told.recent] == ["m1"]
        assert [fact.fact_id for fact in told.facts] == ["f1"]


async def test_core_memory_is_read_from_redis(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url)
    await scene.write(pinned("f2", "second"), pinned("f1", "first"))
    async with scene.fed():
        assert await scene.memory.core("s", TENANT_DEFAULT) == await primary.core("s")
        assert await scene.memory.core("unknown", TENANT_DEFAULT) is None
        assert commands(server, "hgetall") > 0


async def test_an_unknown_session_is_unknown(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url)
    async with scene.fed():
        assert await scene.memory.conversation("unknown", TENANT_DEFAULT, 5) is None
        assert not scene.feed.status().waiting_sessions


async def test_a_session_that_ended_is_unknown_at_once(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url)
    await scene.write(said("m1"))
    async with scene.fed():
        await scene.write(ended())

        assert await scene.memory.conversation("s", TENANT_DEFAULT, 5) is None


async def test_a_paused_server_costs_one_bounded_wait(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url, options=IDLE, deadline_s=DEADLINE_S)
    await scene.write(said("m1"))
    async with scene.fed():
        await scene.read()
        server.pause()
        started_s = time.perf_counter()
        await scene.read()
        first_s = time.perf_counter() - started_s
        assert first_s >= DEADLINE_S
        assert scene.failures.operations == ["read"]
        assert not scene.feed.status().ready

        for _ in range(20):
            await scene.read()
        assert scene.failures.operations == ["read"]

        server.resume()
        await scene.settle()
        assert scene.is_trusted()


async def test_all_who_read_while_it_hangs_wait_together(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url, options=IDLE, deadline_s=DEADLINE_S)
    await scene.write(said("m1"))
    async with scene.fed():
        server.pause()

        told = await asyncio.gather(*(scene.read() for _ in range(100)))

        assert len(told) == 100
        server.resume()


async def test_answers_that_came_too_late_are_never_taken_for_others(
    server: RedisServer, primary: PrimaryStore
) -> None:
    scene = Scene(primary, server.url, deadline_s=0.02)
    for number in range(40):
        await scene.write(said(f"m{number}", session_id=f"s{number}"))
    async with scene.fed():
        for _ in range(5):
            server.pause()
            await asyncio.gather(*(scene.read(f"s{number}") for number in range(40)))
            server.resume()
            await scene.settle()
            for number in range(40):
                told = await scene.read(f"s{number}")
                assert told.recent[0].message_id == f"m{number}"


async def test_a_reader_that_gives_up_leaves_nothing_behind(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url)
    for number in range(40):
        await scene.write(said(f"m{number}", session_id=f"s{number}"))
    async with scene.fed(), asyncio.TaskGroup() as group:
        for number in range(40):
            reader = group.create_task(scene.read(f"s{number}"))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            reader.cancel()
        for number in range(40):
            assert (await scene.read(f"s{number}")).recent[0].message_id == f"m{number}"


async def test_a_stopped_server_costs_no_wait(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url, options=IDLE, deadline_s=60)
    await scene.write(said("m1"))
    async with scene.fed():
        server.stop()

        await scene.read()
        await scene.read()

        assert not scene.feed.status().ready


async def test_a_write_is_seen_by_every_read_behind_it(server: RedisServer, primary: PrimaryStore) -> None:
    scene = Scene(primary, server.url)
    async with scene.fed():
        for number in range(60):
            await scene.write(said(f"m{number}"), embedded(f"m{number}"))
            told = await scene.read()
            assert told.recent[-1].message_id == f"m{number}"
            for _ in range(number % 5):
                await asyncio.sleep(0)


async def test_reads_of_a_server_that_is_flushed_again_and_again_are_right(
    server: RedisServer, primary: PrimaryStore
) -> None:
    scene = Scene(primary, server.url)
    for number in range(30):
        await scene.write(said("m1", session_id=f"s{number}"), pinned("f1", session_id=f"s{number}"))
    async with scene.running():
        for number in range(30):
            server.flush()
            await scene.write(said("m2", session_id=f"s{number}"))
            for other in range(0, 30, 5):
                await scene.read(f"s{other}")
        await scene.settle()
        assert await scene.differences() == []
