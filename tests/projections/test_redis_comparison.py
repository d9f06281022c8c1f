"""What differs between Redis and the primary store is named: session, message or fact, and the entry behind it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from engram.projections.redis_filling import clear
from engram.projections.redis_rebuilding import rebuild
from engram.projections.redis_store import RedisFailedError
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import pinned, said
from tests.projections.redis_scene import LOG_STORE, Scene, needs_redis, primary_in
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

pytestmark = needs_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", find_free_port()) as started:
        yield started


@pytest_asyncio.fixture
async def primary(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    async with primary_in(tmp_path / "primary") as store:
        yield store


@pytest_asyncio.fixture
async def scene(server: RedisServer, primary: PrimaryStore) -> AsyncIterator[Scene]:
    made = Scene(primary, server.url)
    yield made
    await made.redis.close()


async def fill(scene: Scene) -> int:
    """Write two sessions and rebuild Redis from them; return how many messages it holds then."""
    await scene.write(said("m1", "tea"))
    await scene.write(said("m2", "milk"), pinned("f1", "sugar"))
    await scene.write(said("m1", session_id="other"))
    return await rebuild(scene.redis, scene.primary, lambda _: None, log_store=LOG_STORE)


async def test_a_rebuilt_store_differs_in_nothing(server: RedisServer, scene: Scene) -> None:
    with server.client() as client:
        client.set("engram:1:default:gone:session", "left over")
        client.set("engram:1:nonsense", "left over")

    assert await fill(scene) == 3
    assert await scene.differences_at_rest() == []
    assert len(server.contents()) == 6


async def test_a_rebuild_tells_how_far_it_is(server: RedisServer, scene: Scene) -> None:
    for number in range(250):
        await scene.write(said("m1", session_id=f"s{number}"))
    heard: list[int] = []

    await rebuild(scene.redis, scene.primary, heard.append, log_store=LOG_STORE)

    assert sum(heard) == 250
    assert len(heard) > 1


async def test_a_node_takes_over_what_was_rebuilt(server: RedisServer, scene: Scene) -> None:
    await fill(scene)
    async with scene.fed():
        await scene.read()
        assert scene.feed.status().ready


async def test_clearing_leaves_other_nodes_alone(server: RedisServer, scene: Scene) -> None:
    await fill(scene)
    with server.client() as client:
        client.set("engram:2:state", "another node's")

    await clear(scene.redis)

    assert list(server.contents()) == ["engram:2:state"]


async def test_a_server_that_is_away_fails_a_rebuild(primary: PrimaryStore) -> None:
    scene = Scene(primary, f"redis://127.0.0.1:{find_free_port()}")

    with pytest.raises(RedisFailedError, match="Connection"):
        await rebuild(scene.redis, primary, lambda _: None, log_store=LOG_STORE)
    await scene.redis.close()


@pytest.mark.parametrize(
    ("spoil", "claim"),
    [
        (
            ["DEL", "engram:1:default:s:session"],
            "redis: session 's', entry 2: it is not in Redis",
        ),
        (
            ["SET", "engram:1:default:s:session", "{}"],
            "redis: session 's', entry 2: in Redis it is another store's or version's",
        ),
        (
            ["LPOP", "engram:1:default:s:messages"],
            "redis: session 's', message 'm1', entry 1: it is not in Redis",
        ),
        (
            ["DEL", "engram:1:default:s:core"],
            "redis: session 's', fact 'f1', entry 2: it is not in Redis",
        ),
        (
            [
                "HSET",
                "engram:1:default:s:core",
                "f1",
                '{"order":0,"fact_id":"f1","text":"salt","tokens":5,"log_index":2,"at_ms":3}',
            ],
            "redis: session 's', fact 'f1', entry 2: stored text differs",
        ),
        (
            [
                "HSET",
                "engram:1:default:s:core",
                "f2",
                '{"order":1,"fact_id":"f2","text":"salt","tokens":5,"log_index":2,"at_ms":3}',
            ],
            "redis: session 's', fact 'f2', entry 0: it is in Redis, but not in the primary store",
        ),
        (
            ["LSET", "engram:1:default:s:messages", "1", "no message"],
            "redis: session 's', entry 2: what is stored cannot be read",
        ),
        (
            ["SET", "engram:1:default:gone:core", "x"],
            "redis: session 'gone', entry 0: it is in Redis, but not in the primary store",
        ),
        (["SET", "engram:1:nonsense", "x"], "redis: session '', key engram:1:nonsense, entry 0: it means nothing"),
    ],
)
async def test_each_difference_is_named(server: RedisServer, scene: Scene, spoil: list[str], claim: str) -> None:
    await fill(scene)
    with server.client() as client:
        client.execute_command(*spoil)

    (found,) = await scene.differences_at_rest()

    assert found.startswith(claim)


async def test_a_changed_text_is_named_with_its_message(server: RedisServer, scene: Scene) -> None:
    await fill(scene)
    with server.client() as client:
        (first, _) = client.lrange("engram:1:default:s:messages", 0, -1)
        client.lset("engram:1:default:s:messages", 0, first.replace(b"tea", b"gin"))

    assert await scene.differences_at_rest() == ["redis: session 's', message 'm1', entry 1: stored text differs"]


async def test_what_a_stopped_node_had_not_written_yet_is_told_from_a_difference(
    server: RedisServer, scene: Scene
) -> None:
    await fill(scene)
    await scene.write(said("m3"))

    assert await scene.differences_at_rest() == ["redis: session 's', entry 4: in Redis it is as of entry 2"]


async def test_sessions_that_are_about_to_be_written_are_left_out(server: RedisServer, scene: Scene) -> None:
    await fill(scene)
    await scene.write(said("m3"))

    assert await scene.differences() == []
