"""Whatever happens to Redis and whatever is written: readers are told what the primary store says, and nothing else."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.events import TENANT_DEFAULT, Event
from tests.projections.histories import scratch_folder
from tests.projections.redis_scene import Scene, needs_redis, primary_in
from tests.property.test_projections import mixed, others, worked, written
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

pytestmark = needs_redis

SESSIONS = ("s1", "s2")

Misfortune = str
MISFORTUNES = st.sampled_from(
    ["flush", "drop state", "drop session", "drop messages", "drop core", "older", "restart", "breath", "settle"]
)
STEPS = st.lists(st.one_of(written(), mixed(), worked(), others(), MISFORTUNES), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), find_free_port()) as started:
        yield started


class Life:
    """A node with its Redis, which fares as the steps say."""

    def __init__(self, server: RedisServer, scene: Scene) -> None:
        self._server = server
        self.scene = scene
        self._older: dict[bytes, bytes] = {}

    async def meet(self, misfortune: Misfortune) -> None:
        """Let something befall the server, or time pass."""
        if misfortune == "settle":
            await self.scene.settle()
        elif misfortune == "breath":
            for _ in range(20):
                await asyncio.sleep(0)
        else:
            self._befall(misfortune)

    def _befall(self, misfortune: Misfortune) -> None:
        with self._server.client() as client:
            if misfortune == "flush":
                client.flushall()
            elif misfortune == "older":  # what a restore of an older snapshot does, without the start that it takes
                dumped = {key: client.dump(key) for key in client.scan_iter(count=1000)}
                client.flushall()
                for key, value in self._older.items():
                    client.restore(key, 0, value)
                self._older = {key: value for key, value in dumped.items() if value is not None}
            elif misfortune == "drop state":
                client.delete("engram:1:state")
            else:
                part = misfortune.removeprefix("drop ")
                client.delete(*(f"engram:1:default:{session_id}:{part}" for session_id in SESSIONS))


async def lived(server: RedisServer, steps: Sequence[list[Event] | Misfortune]) -> None:
    """Live through `steps`, reading everything after each, and compare what is in Redis at the end."""
    server.flush()
    with scratch_folder() as folder:
        async with primary_in(Path(folder)) as primary:
            rest = list(steps)
            while rest:  # once for each start of the node
                scene = Scene(primary, server.url, window=3)
                async with AsyncExitStack() as opened:
                    life = Life(server, await opened.enter_async_context(scene.running()))
                    while rest and (step := rest.pop(0)) != "restart":
                        await (life.meet(step) if isinstance(step, str) else scene.write(*step))
                        await told_the_truth(scene)
                    if not rest:
                        await come_to_rest(scene)


async def told_the_truth(scene: Scene) -> None:
    for session_id in SESSIONS:
        for limit in (0, 2, 3, 5):
            told = await scene.memory.conversation(session_id, TENANT_DEFAULT, limit)
            assert told == await scene.primary.conversation(session_id, TENANT_DEFAULT, limit)


async def come_to_rest(scene: Scene) -> None:
    """Wait until the last misfortune has been noticed and made good; then Redis holds what it should."""
    await told_the_truth(scene)  # who reads notices parts that are missing
    await scene.settle()
    await scene.until(lambda: not scene.feed.status().unscrubbed, "it is at rest")
    await told_the_truth(scene)
    await scene.settle()
    assert await scene.differences() == []


@given(STEPS)
def test_readers_are_told_the_truth_whatever_happens_to_redis(
    server: RedisServer, steps: list[list[Event] | Misfortune]
) -> None:
    asyncio.run(lived(server, steps))
