"""One transaction of the key space: under the state that was written last, or not at all."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from engram.projections.redis_keys import KeySpace
from engram.projections.redis_rows import State
from engram.projections.redis_store import RedisChangedError, RedisStore
from tests.projections.redis_scene import needs_redis
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

pytestmark = needs_redis

FIRST = State(store="the-log", epoch="e", number=1, applied=1, complete=True)
SECOND = msgspec.structs.replace(FIRST, number=2, applied=2)
THIRD = msgspec.structs.replace(FIRST, number=3, applied=3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", find_free_port()) as started:
        yield started


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(server.url, KeySpace(1), window=6)
    yield opened
    await opened.close()


async def test_a_state_follows_on_the_one_that_was_written_last(store: RedisStore) -> None:
    await store.begin(FIRST)

    await store.write(FIRST, SECOND)

    assert await store.state() == SECOND


@pytest.mark.parametrize("is_there", [FIRST, THIRD, None])
async def test_nothing_is_written_to_a_server_that_has_another_state(store: RedisStore, is_there: State | None) -> None:
    """It lost something, or was put back, or somebody else writes there."""
    if is_there is not None:
        await store.begin(is_there)

    with pytest.raises(RedisChangedError):
        await store.write(SECOND, THIRD)

    assert await store.state() == is_there
